// What tells chosen runs apart: settings, provenance, and the command that repeats each.

const MOST_COMPARED = 12; // runs that stand beside one another

function comparison(places, open) {
  const few = places.slice(0, MOST_COMPARED);
  const heading = places.length > few.length ? `, the first ${few.length} of ${places.length}` : "";
  return [
    el("h3", {}, `Configurations${heading}`), settingsTable(few),
    folded("All settings, those that are the same too", "same", open, () => sameSettings(few)),
    folded(`Provenance and results${heading}`, "provenance", open, () => provenance(few)),
    el("details", { class: "commands", "data-name": "commands", open: open.has("commands") || places.length <= 3 },
      el("summary", {}, "The commands that repeat them"),
      el("p", { class: "small" }, "Every setting in full; results_dir=again has them executed although these records are here. lbt verify with a run's id repeats its beginning and says whether it is the same."),
      places.map((place) => el("div", {}, el("strong", {}, runs.ids[place]), " ", copyButton(place), el("pre", { "data-command": runs.ids[place] }, commandOf(place))))),
  ];
}

function copyButton(place) {
  return el("button", { type: "button", onclick: async (event) => {
    const button = event.target;
    try {
      await navigator.clipboard.writeText(commandOf(place));
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(button.parentElement.querySelector("pre"));
      button.textContent = "Selected";
    }
  } }, "Copy");
}

function headerOf(places) {
  return ["setting", ...places.map((place) => runs.ids[place])];
}

function rowsOf(list, places) {
  return list.map((column) => {
    const texts = places.map((place) => textOf(column, place)), apart = new Set(texts).size > 1;
    return [el("th", { scope: "row" }, column.key), ...texts.map((text) => el("td", { class: apart && text !== texts[0] ? "differs" : "", dir: "auto" }, text))];
  });
}

function settingsTable(places) {
  const list = differing(places, "setting");
  if (places.length === 1) return el("p", {}, "One run: below are all its settings.");
  if (!list.length) return el("p", {}, "All settings are the same.");
  return el("div", { id: "diff" }, tableOf("Settings in which they differ", headerOf(places), rowsOf(list, places), "diff"));
}

function sameSettings(places) {
  const apart = new Set(differing(places, "setting"));
  const here = runs.columns.filter((column) => column.part === "setting" && !apart.has(column) && column.codes[places[0]] >= 0);
  const rows = [...here.map((column) => [column.key, textOf(column, places[0])]), ...runs.same.map((one) => [one.key, one.text])];
  const shownRows = places.length === 1 ? rows : rows;
  return tableOf("Settings that are the same", ["setting", "value"], shownRows.sort((a, b) => (a[0] < b[0] ? -1 : 1)), "diff");
}

function provenance(places) {
  const list = runs.columns.filter((column) => column.part !== "setting" && column.key !== "id" && places.some((place) => column.codes[place] >= 0));
  return tableOf("Provenance and results", headerOf(places), rowsOf(list, places), "diff");
}
