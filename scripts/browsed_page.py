"""How soon a page of results is painted and filtered in headless Chromium, for `bench_report.py`."""

import contextlib
import shutil
import tempfile
import time
from pathlib import Path

OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync")
REPEATS = 5
PATIENCE = 60  # seconds
PAINTED = "return performance.getEntriesByName('first-contentful-paint').map((entry) => entry.startTime)[0] ?? null"
# From an event to the frame in which the text beside the table says something else.
UNTIL_FILTERED = """
const [selector, place, value, done] = arguments;
const said = () => document.getElementById("found").textContent, before = said(), began = performance.now();
const seen = new MutationObserver(() => {
  if (said() === before) return;
  seen.disconnect();
  requestAnimationFrame(() => setTimeout(() => done(performance.now() - began)));
});
seen.observe(document.body, {subtree: true, childList: true, characterData: true});
const box = document.querySelectorAll(selector)[place];
box.value = value;
box.dispatchEvent(new Event(box.tagName === "SELECT" ? "change" : "input", {bubbles: true}));
"""
CHOICES = "return [...document.querySelectorAll('#filters select')].map((one) => [...one.options].map((o) => o.value))"


def missing() -> str | None:
    """Returns why no page can be opened here, None where one can."""
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "selenium is not installed"
    lacking = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"there is no {lacking[0]}" if lacking else None


def timed(page: Path) -> dict[str, list[float]]:
    """Returns milliseconds: `first paint` after opening it, `search` and `filter` until the table shows them."""
    found: dict[str, list[float]] = {"first paint": [], "search": [], "filter": []}
    with tempfile.TemporaryDirectory() as profile, _driver(profile) as driver:
        for _ in range(REPEATS):
            driver.get("about:blank")
            driver.get(page.resolve().as_uri())
            until = time.monotonic() + PATIENCE
            while (painted := driver.execute_script(PAINTED)) is None and time.monotonic() < until:
                time.sleep(0.05)
            found["first paint"].append(painted)
        driver.get(f"{page.resolve().as_uri()}#runs")
        for word in ("tvlars", "lars 512", "", "released", ""):
            found["search"].append(driver.execute_async_script(UNTIL_FILTERED, "#search", 0, word))
        choices = driver.execute_script(CHOICES)
        place = next(place for place, values in enumerate(choices) if len(values) > 2)
        for value in (choices[place][1], "", choices[place][2], "", choices[place][1]):
            found["filter"].append(driver.execute_async_script(UNTIL_FILTERED, "#filters select", place, value))
    return found


@contextlib.contextmanager
def _driver(profile: str):
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for option in (*OPTIONS, f"--user-data-dir={profile}"):
        options.add_argument(option)
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    driver.set_script_timeout(PATIENCE)
    try:
        yield driver
    finally:
        driver.quit()
