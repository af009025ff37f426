// Legends: a list, each entry with a sample of its line.

/** Returns a legend of [{look, label, hollow, places}]; places make it a link to the runs. */
function legendOf(entries) {
  return el("ul", { class: "legend-list", "aria-label": "Legend" }, entries.map((one) => {
    const style = look(one.look);
    const sample = svg("svg", { width: 34, height: 14, viewBox: "0 0 34 14", class: `s${one.look % 8}`, "aria-hidden": "true" },
      svg("line", { x1: 0, x2: 34, y1: 7, y2: 7, stroke: "currentColor", "stroke-width": 2, "stroke-dasharray": one.hollow ? "2 3" : style.dash }),
      svg("path", { d: d3.symbol(style.shape, 46)(), transform: "translate(17,7)", fill: "var(--back)", stroke: "currentColor", "stroke-width": 1.5 }));
    return el("li", {}, sample, el("span", {}, one.label));
  }));
}
