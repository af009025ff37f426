// The charts of figures, studies and the audit, each with a table of what a pointer tells.

function drawFigures() {
  for (const host of document.querySelectorAll("[data-figure]")) {
    const figure = charts.figures[host.dataset.figure];
    if (!figure || host.firstChild) continue;
    const panels = el("div", { class: "panels" });
    host.append(legendOf(figure.series.map((one) => ({ look: one.look, label: one.name }))), panels);
    for (const panel of figure.panels) {
      const holder = el("figure");
      panels.append(holder);
      (figure.kind === "lines" ? drawSettings : drawTraining)(holder, figure, panel);
    }
    const published = figure.panels.some((panel) => panel.published?.length);
    const notes = [...figure.notes, ...(published ? ["dashed, hollow: published"] : []), ...(figure.kind === "lines" ? ["small dashes: each run, of more than ten the standard deviation"] : [])];
    host.append(el("p", { class: "small" }, notes.join("; ")), folded("The figure as a table", "figure", new Set(), () => figureTable(figure)));
  }
}

function figureTable(figure) {
  const rows = figure.panels.flatMap((panel) => [
    ...panel.points.map((point) => [panel.title, figure.series[point.series].name, point.x, point.text, runsLink(point.runs)]),
    ...(panel.published ?? []).map((point) => [panel.title, figure.series[point.series].name, point.x, `${point.text} (published)`, "-"])]);
  return tableOf("The figure as a table", ["panel", "line", figure.kind === "lines" ? figure.x : "", figure.y, "runs"], rows);
}

/** Draws means along a setting, each run, and the published figures. */
function drawSettings(host, figure, panel) {
  const x = figure.log ? "at" : "x", count = figure.series.length, marks = [];
  const values = panel.points.filter((point) => point.mean !== null);
  figure.series.forEach((one, series) => {
    const style = look(one.look), dx = figure.log ? 0 : (series - (count - 1) / 2) * 5;
    const printed = (panel.published ?? []).filter((point) => point.series === series);
    if (printed.length) marks.push(
      Plot.lineY(printed, { x, y: "mean", stroke: style.colour, strokeDasharray: "2 3", strokeWidth: 1, dx: dx + 2 }),
      Plot.dot(printed, { x, y: "mean", stroke: style.colour, symbol: style.symbol, fill: "var(--back)", r: 3, dx: dx + 2 }));
    const all = panel.points.filter((point) => point.series === series), own = all.filter((point) => point.mean !== null);
    const each = own.flatMap((point) => (point.values.length > 1 ? point.values.map((value) => ({ ...point, value })) : []));
    const wide = own.filter((point) => point.sd !== null && !point.values.length);
    // A line is broken where all runs diverged, and at a value that has none.
    const line = figure.log ? all : panel.ticks.map((tick) => all.find((point) => point.x === tick) ?? { x: tick, mean: null });
    marks.push(
      Plot.lineY(line, { x, y: "mean", stroke: style.colour, strokeWidth: 1.8, strokeDasharray: style.dash || undefined, dx }),
      Plot.ruleX(wide, { x, y1: (d) => d.mean - d.sd, y2: (d) => d.mean + d.sd, stroke: style.colour, dx }),
      Plot.text(each, { x, y: "value", text: () => "–", fill: style.colour, dx, fontSize: 13 }),
      Plot.dot(own, { x, y: "mean", fill: style.colour, stroke: style.colour, symbol: style.symbol, r: 4, dx }));
    const lost = panel.points.filter((point) => point.series === series && point.diverged);
    marks.push(Plot.text(lost, { x, text: (d) => `✕${d.diverged > 1 ? d.diverged : ""}`, frameAnchor: "bottom", fill: style.colour, dx, dy: -3 - 11 * series, fontSize: 11 }));
  });
  const told = [...values, ...(panel.published ?? [])].map((point) => ({ ...point, title: `${figure.series[point.series].name}, ${point.x}\n${point.text}${point.runs ? `\n${cut(point.runs.join(", "), 90)}` : "\npublished"}` }));
  marks.push(Plot.tip(told, Plot.pointer({ x, y: "mean", title: "title", fill: "var(--back)" })));
  plot(host, panel.title || figure.y, `${figure.y} by ${figure.x}; the table below has the figures`, {
    width: 520, height: 260, marks,
    x: { label: figure.x, labelAnchor: "center", labelArrow: "none", ...(figure.log ? { type: "log" } : { type: "point", domain: panel.ticks, padding: 0.6 }) },
    y: { label: figure.y, labelArrow: "none" },
  });
}

const MOST_RUNS = 30; // of a line over training

/** Draws means over training, a line for each place; thin lines are the runs. */
function drawTraining(host, figure, panel) {
  const groups = panel.points.map((point) => ({ label: figure.series[point.series].name, look: figure.series[point.series].look, places: point.runs.map((id) => placeOf.get(id)) }));
  const cut = groups.some((group) => group.places.length > MOST_RUNS) ? ` (of each line ${MOST_RUNS} runs)` : "";
  const lines = groups.flatMap((group) => linesOf([{ ...group, places: group.places.slice(0, MOST_RUNS) }], figure.metric, "epoch", true).map((line) => ({ ...line, look: group.look })));
  lineChart(host, `${panel.title || figure.y}${cut}`, lines, { x: "epoch", y: figure.y, width: 520, height: 260 });
}

const OF_STUDY = { boxes: drawBoxes, best_of_k: drawBestOf, intervals: drawIntervals, schedules: drawSchedules };

function drawStudies() {
  for (const host of document.querySelectorAll("[data-study]")) {
    if (host.firstChild) continue;
    const panels = el("div", { class: "panels" });
    host.append(panels);
    for (const chart of charts.studies[host.dataset.study] ?? []) {
      const figure = el("figure"), holder = el("div", {}, figure);
      panels.append(holder);
      OF_STUDY[chart.kind](figure, chart, `${chart.title} (batch ${chart.batch.toLocaleString("en")})`, holder);
    }
  }
}

function drawBoxes(host, chart, title, holder) {
  const rows = chart.rows, marks = [];
  rows.forEach((row) => {
    const style = look(chart.looks[row.name]);
    const points = row.values.map((value, at) => ({ label: row.label, value, at, run: row.runs[at], lost: row.diverged[at] }));
    const spread = points.map((point) => ({ ...point, off: (point.at - (points.length - 1) / 2) * Math.min(3, 24 / points.length) }));
    if (points.length > 3) marks.push(Plot.barY([row], { x: "label", y1: (d) => d.quartiles[0], y2: (d) => d.quartiles[1], fill: style.colour, fillOpacity: 0.15, stroke: style.colour, insetLeft: 4, insetRight: 4 }));
    spread.forEach((point) => marks.push(point.lost ? Plot.text([point], { x: "label", y: "value", text: () => "✕", fill: style.colour, dx: point.off })
      : Plot.dot([point], { x: "label", y: "value", stroke: style.colour, fill: row.variant ? "var(--back)" : style.colour, symbol: style.symbol, r: 2.6, dx: point.off })));
    marks.push(Plot.tickY([row], { x: "label", y: "median", strokeWidth: 2, insetLeft: 4, insetRight: 4 }));
  });
  marks.push(Plot.ruleY([chart.target], { strokeDasharray: "5 2" }));
  const told = rows.flatMap((row) => row.values.map((value, at) => ({ label: row.label, value, title: `${row.label}\n${shown(value)}${chart.sign} (median ${shown(row.median)}${chart.sign}, n=${row.values.length})\n${row.runs[at]}` })));
  marks.push(Plot.tip(told, Plot.pointer({ x: "label", y: "value", title: "title", fill: "var(--back)" })));
  plot(host, title, `dashed line: the target, ${chart.target}${chart.sign}`, { width: 520, marginBottom: 90, height: 330, marks,
    x: { type: "band", domain: rows.map((row) => row.label), label: null, tickRotate: -35 }, y: { label: chart.unit, labelArrow: "none", zero: false } });
  holder.append(el("p", { class: "small" }, `Line: median; box: quartiles; dashed: the target, ${chart.target}${chart.sign}; hollow: ablations; ✕: diverged, at chance.`),
    folded("As a table", "boxes", new Set(), () => tableOf(title, ["configuration", "n", `median${chart.sign}`, `quartiles${chart.sign}`, `values${chart.sign}`, "runs"],
      rows.map((row) => [row.label, String(row.values.length), shown(row.median), row.quartiles.map(shown).join(" to "), row.values.map(shown).join(", "), runsLink(row.runs.filter(Boolean))]))));
}

function drawBestOf(host, chart, title, holder) {
  const names = [...new Set(chart.rows.map((row) => row.name))], marks = [];
  names.forEach((name, at) => {
    const style = look(chart.looks[name]), own = chart.rows.filter((row) => row.name === name), dx = (at - (names.length - 1) / 2) * 4;
    marks.push(Plot.ruleX(own, { x: "x", y1: (d) => d.range[0], y2: (d) => d.range[1], stroke: style.colour, dx }),
      Plot.lineY(own, { x: "x", y: "y", stroke: style.colour, strokeDasharray: style.dash || undefined, dx }),
      Plot.dot(own, { x: "x", y: "y", stroke: style.colour, fill: "var(--back)", symbol: style.symbol, r: 3, dx }));
  });
  marks.push(Plot.tip(chart.rows.map((row) => ({ ...row, title: `${row.name}, best of ${row.x}\n${shown(row.y)}${chart.sign} (${shown(row.range[0])} to ${shown(row.range[1])})` })), Plot.pointer({ x: "x", y: "y", title: "title", fill: "var(--back)" })));
  plot(host, title, "the table below has the figures", { width: 520, marks, x: { label: "trials", labelAnchor: "center", labelArrow: "none", ticks: Math.min(8, d3.max(chart.rows, (row) => row.x)), tickFormat: "d" }, y: { label: chart.unit, labelArrow: "none" } });
  holder.append(legendOf(names.map((name) => ({ look: chart.looks[name], label: name }))));
}

function drawIntervals(host, chart, title) {
  const rows = chart.rows.map((row) => ({ ...row, title: `${row.label}\n${shown(row.mean)} [${row.range.map(shown).join(", ")}]` }));
  plot(host, title, "the table below has the figures", { width: chart.width ?? 520, height: 60 + 24 * rows.length, marginLeft: chart.margin ?? 165, marginBottom: 40,
    x: { label: chart.unit ?? "difference (% points)", labelAnchor: "center", labelArrow: "none", ticks: 5, nice: true }, y: { type: "band", domain: rows.map((row) => row.label), label: null },
    marks: [Plot.ruleX([0]), Plot.ruleY(rows, { y: "label", x1: (d) => d.range[0], x2: (d) => d.range[1], strokeWidth: 2, stroke: "var(--c0)" }),
      Plot.dot(rows, { y: "label", x: "mean", fill: "var(--c0)", r: 4 }), Plot.tip(rows, Plot.pointerY({ y: "label", x: "mean", title: "title", fill: "var(--back)" }))] });
}

function drawSchedules(host, chart, title, holder) {
  const lines = chart.rows.map((row) => ({ look: chart.looks[row.name], label: row.name, places: [], points: row.points.map(([x, y]) => ({ x, y, epoch: `update ${x}` })) }));
  lineChart(host, title, lines, { x: "update", y: "learning rate", logY: true, width: 520, height: 300 });
  const thin = chart.rows.some((row) => row.thinned) ? " Lines are thinned to 200 updates." : "";
  holder.append(legendOf(chart.rows.map((row) => ({ look: chart.looks[row.name], label: `${row.name}, peak ${shown(row.peak)}` }))), el("p", { class: "small" }, `Computed from the settings.${thin}`));
}

function drawAudit() {
  const host = document.getElementById("audit-chart");
  if (!host || host.firstChild || !charts.audit.length) return;
  const figure = el("figure");
  host.append(el("div", { class: "panels one" }, figure));
  const rows = charts.audit.map((row) => ({ label: `${row.row}. ${cut(row.title, 30)} (${row.optimizer}, ${row.batch})`, mean: Number(row.difference), range: [Number(row.low), Number(row.high)] }));
  drawIntervals(figure, { rows, margin: 290, width: 760, unit: "effect on the test accuracy (% points)" }, "Effects with Dunnett's 95 % intervals, switch minus base");
}
