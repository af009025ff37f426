// What the address keeps after its #: the view, its filters and the selection. Whoever is sent it sees the same.

const views = [...document.querySelectorAll("section.view")].map((section) => section.id.slice(2));
const state = { view: "overview", params: new URLSearchParams() };
const watchers = [];

function read() {
  const [view, query = ""] = location.hash.slice(1).split("?");
  state.view = views.includes(view) ? view : "overview";
  state.params = new URLSearchParams(query);
}

/** Changes some of the view's settings; null removes one. A change of the address goes through `read` alone. */
function set(changes) {
  const params = new URLSearchParams(state.params);
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === "") params.delete(name);
    else params.set(name, value);
  }
  const query = params.toString().replaceAll("%2C", ",");
  const wanted = `#${state.view}${query ? `?${query}` : ""}`;
  if (wanted !== location.hash) location.replace(wanted);
}

function get(name, otherwise = "") {
  return state.params.get(name) ?? otherwise;
}

function show() {
  for (const id of views) document.getElementById(`v-${id}`).hidden = id !== state.view;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.getAttribute("href") === `#${state.view}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  for (const watcher of watchers) watcher(state.view);
}

/** Asks to be told after each change of the address, while a view is shown. */
function watch(view, tell) {
  watchers.push((shown) => shown === view && tell());
}

function start() {
  let before = "";
  const changed = () => {
    read();
    show();
    const moved = state.view !== before, first = before === "";
    before = state.view;
    if (!moved || (first && !get("sel"))) return;
    document.getElementById("main").focus({ preventScroll: true });
    const chosen = state.view === "runs" && get("sel") ? document.getElementById("chosen") : null;
    if (chosen) chosen.scrollIntoView();
    else scrollTo(0, 0);
  };
  addEventListener("hashchange", changed);
  changed();
}
