"""The page in a real browser: what it shows, that nothing leaves it, and that a keyboard is enough."""

import json
import shutil
import statistics
import time
from dataclasses import replace

import pytest
from planted import make, plant
from support import configure
from test_page import HOSTILE, plant_hostile

from lbt import runtime
from lbt.report.page import write

webdriver = pytest.importorskip("selenium.webdriver")
CHROMIUM, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium with its chromedriver")
OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync",
    "--no-first-run", "--window-size=1280,900",
)  # fmt: skip
SEEDS = 104  # more than one page of rows


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """The page of runs of two optimizers, with many seeds, one diverged run and some that say odd things."""
    folder = tmp_path_factory.mktemp("results")
    config = runtime.settle(configure("+experiment=quickstart", "precision=fp32", "epochs=3", "optimizer=lars"))
    for seed in range(SEEDS):
        plant(
            folder,
            replace(config, seed=seed),
            (20.0, 30.0, accuracy(seed)),
            lines=[{"train_loss": 1.0 / n} for n in (1, 2, 3)],
        )
    make(folder, 9.0, "optimizer=lamb", "batch=512", status="diverged")
    for number, text in enumerate(HOSTILE):
        plant_hostile(folder, text, number)
    return write(folder)


def accuracy(seed):
    return 40.0 + (seed * 7 % SEEDS) / 4


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for option in (*OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield started
    started.quit()


class Page:
    """The page, and what is looked for in it."""

    def __init__(self, driver, path):
        self.driver, self.address = driver, f"file://{path}"

    def open(self, fragment=""):
        """Loads it anew."""
        self.driver.get("about:blank")
        self.driver.get(self.address + fragment)
        deadline = time.monotonic() + 60  # a busy machine may take a while for a browser's first page
        while self.js("return document.documentElement.dataset.ready") != "1":
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def js(self, code, *arguments):
        return self.driver.execute_script(code, *arguments)

    def texts(self, selector):
        return self.js("return [...document.querySelectorAll(arguments[0])].map((one) => one.textContent)", selector)

    def click(self, selector):
        self.js("document.querySelector(arguments[0]).click()", selector)

    def choose(self, label, text):
        """Chooses an option of the select with a label."""
        of_label = "[...document.querySelectorAll('label')].find((one) => one.firstChild.textContent === arguments[0])"
        change = "one.value = arguments[1]; one.dispatchEvent(new Event('change'))"
        self.js(f"const one = {of_label}.querySelector('select'); {change}", label, text)

    def search(self, words):
        """Types words into the search."""
        box = "const box = document.getElementById('search'); box.value = arguments[0]"
        self.js(f"{box}; box.dispatchEvent(new Event('input'))", words)

    def press(self, begin):
        """Presses the explorer's button whose text begins so."""
        buttons = "[...document.querySelectorAll('#explorer button')]"
        self.js(f"{buttons}.find((one) => one.textContent.startsWith(arguments[0])).click()", begin)

    def column(self, label):
        """The texts of a column of the runs that are shown."""
        header = [text.strip() for text in self.texts("#explorer thead th")]
        return self.texts(f"#explorer tbody td:nth-child({header.index(label) + 1})")


@pytest.fixture
def page(session, path):
    session.get_log("browser")
    found = Page(session, path)
    found.open()
    yield found
    assert [entry["message"] for entry in session.get_log("browser")] == []  # nothing in the console, whatever was done


def test_every_view_opens_without_a_request(page):
    page.driver.get_log("performance")
    page.open()
    for view in page.js("return [...document.querySelectorAll('nav a')].map((one) => one.getAttribute('href'))"):
        page.click(f'nav a[href="{view}"]')
        page.js("return new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
        assert page.js(
            "return [...document.querySelectorAll('section.view')].filter((one) => !one.hidden).map((one) => one.id)"
        ) == [f"v-{view[1:]}"]
    messages = [json.loads(entry["message"])["message"] for entry in page.driver.get_log("performance")]
    sent = [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]
    assert {url.split("#")[0] for url in sent if not url.startswith(("data:", "about:"))} <= {page.address}


def test_runs_are_sorted_by_a_column_both_ways(page):
    page.open("#runs?f.optimizer.name=lars")
    page.click('#explorer th button[title="test_accuracy"]')
    assert (
        page.js("return document.querySelector('#explorer th[aria-sort=ascending]').textContent") == "test accuracy (%)"
    )
    shown = [float(text) for text in page.column("test accuracy (%)")]
    assert shown == [round(value, 2) for value in sorted(map(accuracy, range(SEEDS)))[:100]]
    page.click('#explorer th button[title="test_accuracy"]')
    assert float(page.column("test accuracy (%)")[0]) == round(max(map(accuracy, range(SEEDS))), 2)


def test_runs_are_filtered_and_searched(page):
    page.open("#runs")
    assert page.texts("#found") == [f"1 to 100 of {SEEDS + 1 + len(HOSTILE)} runs"]
    page.choose("optimizer", "lamb")
    assert page.column("optimizer") == ["lamb"] and page.column("status") == ["diverged"]
    page.choose("optimizer", "")
    page.search("lars done")
    assert page.texts("#found") == [f"1 to 100 of {SEEDS} runs"]
    page.press("Next")
    assert page.texts("#found") == [f"101 to {SEEDS} of {SEEDS} runs"] and len(page.column("id")) == SEEDS - 100
    page.search("no such run")
    assert page.texts("#explorer tbody td") == ["No run fits."]


def test_chosen_runs_are_overlaid_with_the_mean_and_spread_of_their_seeds(page):
    page.open("#runs?f.optimizer.name=lars")
    for row in range(3):
        page.js("document.querySelectorAll('#explorer tbody input')[arguments[0]].click()", row)
    assert page.js("return document.querySelectorAll('#chosen figure svg path').length") > 3
    assert page.texts("#chosen .legend-list li")[0].endswith("(n=3)")
    page.js(
        "const box = document.querySelector('#explorer .scroll'); box.scrollTop = 300;"
        "box.querySelectorAll('input')[9].click()"
    )
    assert page.js("return document.querySelector('#explorer .scroll').scrollTop") == 300  # although it is drawn anew
    page.js("document.querySelectorAll('#explorer tbody input')[9].click()")
    last = [float(text) for text in page.column("test accuracy (%)")[:3]]
    page.click("#chosen details[data-name=figures] summary")
    mean = page.texts("#chosen details[data-name=figures] tbody tr:first-child td")
    shown, spread = mean[-1].split(" ± ")
    assert float(shown) == pytest.approx(statistics.fmean(last), rel=1e-4)
    assert float(spread) == pytest.approx(statistics.stdev(last), rel=1e-3)
    page.choose("Along", "update")
    assert page.texts("#chosen figcaption") == ["test accuracy (%) by update"]
    assert page.texts("#diff tbody th") == ["seed"]
    assert all(text.startswith("lbt train protocol=") for text in page.texts("#chosen pre"))


def test_an_address_keeps_filters_order_and_selection(page):
    page.open("#runs?f.optimizer.name=lars&sort=-test_accuracy")
    page.click("#explorer tbody input")
    page.choose("Along", "update")
    page.click('#explorer th button[title="seed"]')
    address, rows, chosen = page.driver.current_url, page.column("id"), page.texts("#chosen h3")[0]
    page.driver.get("about:blank")
    page.driver.get(address)
    assert page.column("id") == rows and page.texts("#chosen h3")[0] == chosen == "Chosen: 1 run"
    assert page.texts("#chosen figcaption") == ["test accuracy (%) by update"]
    assert page.js("return document.querySelector('tr.chosen').dataset.run") in address


def test_a_cell_of_a_table_opens_its_runs(page):
    page.open("#tables?t=quickstart")
    page.click("td.m-diverged a")
    assert page.js("return location.hash").startswith("#runs?sel=") and page.texts("#chosen h3")[0] == "Chosen: 1 run"
    assert page.texts("#chosen .legend-list li") == ["lamb (n=1)"]


def test_a_keyboard_is_enough(page):
    keys = webdriver.ActionChains(page.driver)
    focused = "return document.activeElement.textContent.trim()"
    keys.send_keys("\ue004").perform()  # Tab
    assert page.js(focused) == "Skip to the content"
    for _ in range(3):
        webdriver.ActionChains(page.driver).send_keys("\ue004").perform()
    assert page.js(focused).startswith("Runs")
    webdriver.ActionChains(page.driver).send_keys("\ue007").perform()  # Enter
    assert page.js("return location.hash") == "#runs"
    for _ in range(80):
        webdriver.ActionChains(page.driver).send_keys("\ue004").perform()
        if page.js("return document.activeElement.getAttribute('aria-label') ?? ''").startswith("choose "):
            break
    webdriver.ActionChains(page.driver).send_keys(" ").perform()
    assert page.texts("#chosen h3")[0] == "Chosen: 1 run"
    # The focus is still on the box that was ticked, although the table has been drawn anew.
    assert page.js("return document.activeElement.getAttribute('aria-label') ?? ''").startswith("choose ")


def test_what_a_record_says_is_shown_as_text(page):
    title = page.driver.title
    page.open("#runs?f.experiment=own sweep")
    found = page.column("optimizer")
    assert len(found) == len(HOSTILE) and all(any(text[:100] in one for one in found) for text in HOSTILE)
    page.press("Choose the")
    whole = page.texts("#diff td")
    assert set(HOSTILE) <= set(whole)
    for view in ("overview", "tables", "figures"):
        page.click(f'nav a[href="#{view}"]')
        assert page.driver.title == title
    assert page.js("return document.querySelectorAll('main img, main script, main iframe').length") == 0


@pytest.mark.parametrize("width", [390, 800])
def test_nothing_is_wider_than_the_screen(page, width):
    page.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    )
    try:
        for view in ("overview", "tables", "runs", "figures", "about"):
            page.click(f'nav a[href="#{view}"]')
            assert page.js("return document.documentElement.scrollWidth") <= width, view
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_line_over_batches_is_broken_at_a_batch_without_a_run(session, tmp_path):
    for optimizer, batches in {"lamb": (512, 1024, 4096, 8192), "lars": (512, 2048)}.items():
        for batch in batches:
            config = runtime.settle(
                configure("data=cifar10", "precision=fp32", f"optimizer={optimizer}", f"batch={batch}")
            )
            plant(tmp_path, replace(config, experiment="tvlars_table1_x"), 70.0)
    page = Page(session, write(tmp_path))
    page.open("#figures")
    lines = "[...document.querySelectorAll('#v-figures svg g[aria-label=line] path')]"
    paths = page.js(f"return {lines}.map((one) => one.getAttribute('d'))")
    found = {(path.count("M"), path.count("L")) for path in paths}  # pieces, and steps within them
    assert {(2, 0), (2, 2)} <= found and not {(1, 1), (1, 3)} & found
