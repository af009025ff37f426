// The chosen runs: their curves over one another, and what tells them apart.

const MOST_CHOSEN = 60; // runs whose curves are drawn and whose commands are said
const chosenNow = { drawn: "" };
const FIRST_CURVES = ["test_accuracy", "val_accuracy", "test_loss", "train_loss", "lr", "effective_lr"];

function drawChosen() {
  const all = selection(), places = all.slice(0, MOST_CHOSEN), host = explorer.chosen;
  const key = JSON.stringify([all, ...["y", "x", "mean", "ylog", "xlog"].map((name) => get(name))]);
  if (key === chosenNow.drawn) return;
  chosenNow.drawn = key;
  if (!places.length) {
    host.replaceChildren(el("p", {}, "Choose runs to see their curves, how their configurations differ, what made them and the commands that repeat them."));
    return;
  }
  const open = new Set([...host.querySelectorAll("details[open]")].map((one) => one.dataset.name));
  const more = all.length > places.length ? ` (of ${all.length}; the first ${MOST_CHOSEN} are shown)` : "";
  const box = el("div");
  keepFocus(host, () => host.replaceChildren(el("h3", {}, `Chosen: ${places.length} run${places.length === 1 ? "" : "s"}${more}`), box));
  drawCurves(box, places, open);
  host.append(...comparison(places, open));
}

/** Returns the names of curves that some of the runs have, the usual ones first. */
function namesOf(places) {
  const known = new Set(places.flatMap((place) => [...curves().byRun[place].keys()]));
  known.delete("step");
  return [...FIRST_CURVES.filter((name) => known.has(name)), ...[...known].filter((name) => !FIRST_CURVES.includes(name)).sort()];
}

function labelOfCurve(name) {
  const unit = name.endsWith("accuracy") ? " (%)" : name === "seconds" ? " (s)" : name.endsWith("bytes") || name.startsWith("bytes") ? " (bytes)" : "";
  const words = { lr: "learning rate", effective_lr: "effective learning rate", wall_images_per_second: "images per second", seconds: "training time" };
  return (words[name] ?? name.replaceAll("_", " ")) + unit;
}

function drawCurves(box, places, open) {
  const names = namesOf(places);
  if (!names.length) {
    box.append(el("p", {}, "None of these runs has finished an epoch."));
    return;
  }
  const name = names.includes(get("y")) ? get("y") : names[0], axis = get("x", "epoch") in AXES ? get("x", "epoch") : "epoch";
  const groups = groupsOf(places), withMean = get("mean", "1") === "1";
  const lines = linesOf(groups, name, axis, withMean);
  const flag = (label, key, on, off) => el("label", { class: "inline" }, el("input", { type: "checkbox", checked: get(key, off) === on, onchange: (event) => set({ [key]: event.target.checked === (on === "1" && off === "1") ? null : event.target.checked ? "1" : "0" }) }), label);
  const figure = el("figure"), holder = el("div", { class: "panels one" }, figure);
  box.append(el("div", { class: "controls", id: "curve-controls" },
    choice("Curve", names.map((one) => [one, labelOfCurve(one)]), name, (value) => set({ y: value })),
    choice("Along", Object.entries(AXES), axis, (value) => set({ x: value })),
    flag("mean and band over seeds", "mean", "1", "1"), flag("logarithmic", "ylog", "1", "0"), flag("axis logarithmic", "xlog", "1", "0")), holder);
  const lost = places.filter((place) => !pointsOf(place, name, axis).length).map((place) => runs.ids[place]);
  lineChart(figure, `${labelOfCurve(name)} by ${AXES[axis]}`, lines, { x: AXES[axis], y: labelOfCurve(name), logY: get("ylog") === "1", logX: get("xlog") === "1" });
  box.append(legendOf(groups.map((group, at) => ({ look: at, label: `${group.label} (n=${group.places.length})` }))));
  const said = [];
  if (lines.some((line) => line.band)) said.push("Band: ± standard deviation over seeds, where all of them have a figure; thin lines: the runs.");
  if (lines.some((line) => line.lost)) said.push("✕: where a run diverged.");
  if (lost.length) said.push(`Without such a curve: ${lost.slice(0, 8).join(", ")}${lost.length > 8 ? ", ..." : ""}.`);
  if (said.length) box.append(el("p", { class: "small" }, said.join(" ")));
  box.append(folded("The curves' figures", "figures", open, () => curveTable(lines)));
}

/** Returns a folded part whose content is made when it is opened. */
function folded(title, name, open, make) {
  const inner = el("div");
  const fill = () => { if (!inner.firstChild) inner.append(...[make()].flat()); };
  const made = el("details", { "data-name": name, open: open.has(name), ontoggle: (event) => event.target.open && fill() }, el("summary", {}, title), inner);
  if (open.has(name)) fill();
  return made;
}

/** Returns what a pointer would tell of each line, at ten epochs. */
function curveTable(lines) {
  const epochs = [...new Set(lines.flatMap((line) => line.points.map((point) => point.epoch)))].sort((a, b) => a - b);
  const kept = epochs.filter((_, at) => at === epochs.length - 1 || at % Math.max(1, Math.ceil(epochs.length / 10)) === 0);
  const rows = lines.map((line) => {
    const known = new Map(line.points.map((point) => [point.epoch, point]));
    const cell = (epoch) => {
      const point = known.get(epoch);
      return point ? shown(point.y) + (point.sd !== null && point.sd !== undefined ? ` ± ${shown(point.sd)}` : "") : "-";
    };
    return [el("th", { scope: "row" }, line.label), runsLink(line.places.map((place) => runs.ids[place]), line.id ?? ""), ...kept.map((epoch) => el("td", { class: "n" }, cell(epoch)))];
  });
  return tableOf("The curves' figures", ["line", "runs", ...kept.map((epoch) => `epoch ${epoch}`)], rows);
}
