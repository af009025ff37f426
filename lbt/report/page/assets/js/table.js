// The explorer's table: a page of rows at a time, so that thousands of runs stay fluid.

const PAGE = 100; // rows
const explorer = { found: [], drawn: "", offered: "", cols: "", list: [] };

function selection() {
  return get("sel").split(",").map((id) => placeOf.get(id)).filter((place) => place !== undefined);
}

function select(places) {
  set({ sel: places.map((place) => runs.ids[place]).join(",") });
}

function buildExplorer() {
  const host = document.getElementById("explorer");
  if (!runs.ids.length) {
    host.replaceChildren(el("p", {}, "No run yet."));
    return;
  }
  explorer.search = el("input", { type: "search", id: "search", placeholder: "words that a run must hold", autocomplete: "off", oninput: (event) => set({ q: event.target.value, page: null }) });
  explorer.filters = el("div", { class: "controls", id: "filters" });
  explorer.choice = el("div", { class: "columns-choice" });
  explorer.bar = el("div", { class: "bar" });
  explorer.table = el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Runs" });
  explorer.said = el("span", { role: "status", id: "found" });
  explorer.chosen = el("div", { id: "chosen" });
  host.replaceChildren(el("div", { class: "explorer" },
    el("div", { class: "controls" }, el("label", {}, "Search", explorer.search)),
    explorer.filters, el("details", {}, el("summary", {}, "Columns"), explorer.choice),
    explorer.bar, explorer.table), explorer.chosen);
  watch("runs", drawExplorer);
}

/** Draws what has changed: rows after a filter, the selection after a choice. */
function drawExplorer() {
  const list = shownColumns(), key = JSON.stringify([get("q"), wantedNow(), get("sort"), get("cols")]);
  if (key !== explorer.drawn) {
    explorer.drawn = key;
    const [name, down] = get("sort").startsWith("-") ? [get("sort").slice(1), true] : [get("sort"), false];
    explorer.found = sorted(matching(get("q"), wantedNow()), name, down);
    if (document.activeElement !== explorer.search) explorer.search.value = get("q");
  }
  const offered = JSON.stringify([wantedNow(), get("cols")]); // which a search does not change
  if (offered !== explorer.offered) {
    explorer.offered = offered;
    keepFocus(explorer.filters, () => explorer.filters.replaceChildren(...filterControls(list, Boolean(explorer.filters.querySelector("details[open]")))));
  }
  if (get("cols", "first") !== explorer.cols) {
    explorer.cols = get("cols", "first");
    drawChoice(list);
  }
  explorer.list = list;
  drawBar();
  drawRows(list);
  drawChosen();
}

/** Rebuilds what is in a box, and leaves it scrolled and the focus where they were. */
function keepFocus(box, rebuild) {
  const at = [...box.querySelectorAll("select, button, input")].indexOf(document.activeElement);
  const { scrollLeft, scrollTop } = box;
  rebuild();
  if (scrollLeft || scrollTop) box.scrollTo(scrollLeft, scrollTop); // it has the browser lay out all that is new
  if (at >= 0) [...box.querySelectorAll("select, button, input")][at]?.focus({ preventScroll: true });
}

function drawChoice(list) {
  const parts = [...new Set(runs.columns.map((column) => column.part))];
  keepFocus(explorer.choice, () => explorer.choice.replaceChildren(...parts.flatMap((part) => [
    el("strong", {}, { run: "Run", setting: "Settings that vary", result: "Results", "made by": "Made by" }[part]),
    ...runs.columns.filter((column) => column.part === part).map((column) => el("label", { class: "inline" },
      el("input", { type: "checkbox", checked: list.includes(column), onchange: (event) => chooseColumn(column, event.target.checked) }), column.label)),
  ])));
}

function chooseColumn(column, wanted) {
  const keys = shownColumns().map((one) => one.key).filter((key) => key !== column.key);
  set({ cols: (wanted ? [...keys, column.key] : keys).join(",") || "id" });
}

function page() {
  const last = Math.max(0, Math.ceil(explorer.found.length / PAGE) - 1);
  return [Math.min(Math.max(0, Number(get("page", "1")) - 1 || 0), last), last];
}

function drawRows(list) {
  const [now] = page(), chosen = new Set(selection());
  const [name, down] = get("sort").startsWith("-") ? [get("sort").slice(1), true] : [get("sort"), false];
  const header = list.map((column) => el("th", { scope: "col", class: column.number ? "n" : "", "aria-sort": column.key === name ? (down ? "descending" : "ascending") : "none" },
    el("button", { type: "button", title: column.key, onclick: () => set({ sort: column.key !== name ? column.key : down ? null : `-${column.key}`, page: null }) }, column.label)));
  const rows = explorer.found.slice(now * PAGE, (now + 1) * PAGE).map((place) => rowOf(list, place, chosen.has(place)));
  const body = rows.length ? rows : [el("tr", {}, el("td", { colspan: list.length + 1 }, "No run fits."))];
  keepFocus(explorer.table, () => explorer.table.replaceChildren(el("table", {},
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Choose"), header)), el("tbody", {}, body))));
}

function rowOf(list, place, isChosen) {
  const box = el("input", { type: "checkbox", checked: isChosen, "aria-label": `choose ${runs.ids[place]}`, onchange: (event) => {
    const others = selection().filter((one) => one !== place);
    select(event.target.checked ? [...others, place] : others);
  } });
  return el("tr", { class: isChosen ? "chosen" : "", "data-run": runs.ids[place] }, el("td", {}, box),
    list.map((column) => el("td", { class: column.number ? "n" : "", dir: column.number ? null : "auto" }, cut(textOf(column, place), 120))));
}

function drawBar() {
  const [now, last] = page(), count = explorer.found.length, here = explorer.found.slice(now * PAGE, (now + 1) * PAGE);
  const from = count ? now * PAGE + 1 : 0;
  const said = `${from.toLocaleString("en")} to ${Math.min(count, (now + 1) * PAGE).toLocaleString("en")} of ${count.toLocaleString("en")} runs`;
  if (explorer.said.textContent !== said) explorer.said.textContent = said;
  const button = (text, off, act) => el("button", { type: "button", disabled: off, onclick: act }, text);
  const most = Math.min(here.length, MOST_CHOSEN);
  keepFocus(explorer.bar, () => explorer.bar.replaceChildren(explorer.said,
    button("← Before", now === 0, () => set({ page: String(now) })), button("Next →", now >= last, () => set({ page: String(now + 2) })),
    button(most < here.length ? `Choose the first ${most}` : `Choose the ${most} shown`, !most, () => select([...new Set([...selection(), ...here.slice(0, most)])])),
    button("Choose none", !get("sel"), () => set({ sel: null })),
    button("Clear filters", !get("q") && !wantedNow().length, () => { explorer.search.value = ""; set({ q: null, page: null, ...Object.fromEntries(wantedNow().map(([key]) => [`f.${key}`, null])) }); })));
}
