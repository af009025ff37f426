// Charts: Observable Plot with this page's look. A line has a colour, dashes and a symbol of its own.

const SYMBOLS = ["circle", "square", "diamond", "triangle2", "triangle", "plus", "star", "wye"];
const SHAPES = [d3.symbolCircle, d3.symbolSquare, d3.symbolDiamond, d3.symbolTriangle2, d3.symbolTriangle, d3.symbolPlus, d3.symbolStar, d3.symbolWye];
const DASHES = ["", "7 3", "8 3 2 3", "2 2", "5 2 2 2 2 2", "12 4", "3 3", "9 5"];

function look(number) {
  return {
    colour: `var(--c${number % 8})`,
    dash: DASHES[(number + Math.floor(number / 8)) % 8],
    symbol: SYMBOLS[(number + 2 * Math.floor(number / 8)) % 8],
    shape: SHAPES[(number + 2 * Math.floor(number / 8)) % 8],
  };
}

/** Draws a chart into a figure with a caption; the style that Plot brings along is a part of the page's own. */
function plot(host, caption, description, options) {
  const width = Math.max(260, Math.min(host.clientWidth || 340, options.width ?? 900));
  const made = Plot.plot({ marginLeft: 55, marginBottom: 42, marginTop: 22, height: 300, grid: true, ...options, width, className: "plot", ariaLabel: caption, ariaDescription: description });
  made.querySelectorAll("style").forEach((style) => style.remove());
  made.setAttribute("role", "img");
  host.replaceChildren(el("figcaption", {}, caption), made);
  return made;
}

/** Returns the marks of overlaid lines with bands, and of what a pointer tells; the same stands in a table below. */
function lineMarks(lines, logY) {
  const marks = [];
  for (const line of lines) {
    const style = look(line.look);
    const points = logY ? line.points.filter((point) => point.y > 0) : line.points;
    if (line.band) {
      const band = points.filter((point) => point.sd !== null && (!logY || point.y > point.sd));
      marks.push(Plot.areaY(band, { x: "x", y1: (d) => d.y - d.sd, y2: (d) => d.y + d.sd, fill: style.colour, fillOpacity: 0.15 }));
    }
    marks.push(Plot.lineY(points, { x: "x", y: "y", stroke: style.colour, strokeWidth: line.thin ? 0.7 : 1.8, strokeOpacity: line.thin ? 0.6 : 1, strokeDasharray: style.dash || undefined }));
    if (!line.thin) {
      const every = Math.max(1, Math.floor(points.length / 8)), first = (line.look * 3) % every;
      marks.push(Plot.dot(points.filter((_, at) => at % every === first % every || points.length < 9), { x: "x", y: "y", stroke: style.colour, fill: "var(--back)", symbol: style.symbol, r: 3.5 }));
    }
    if (line.lost) marks.push(Plot.text([line.lost], { x: "x", y: "y", text: () => "✕", fill: style.colour, fontSize: 15, fontWeight: "bold" }));
  }
  const told = lines.flatMap((line) => (line.thin && lines.length > 60 ? [] : line.points.map((point) => ({ ...point, title: titleOf(line, point) }))));
  marks.push(Plot.tip(told, Plot.pointer({ x: "x", y: "y", title: "title", fill: "var(--back)" })));
  return marks;
}

function titleOf(line, point) {
  const spread = point.sd === null || point.sd === undefined ? "" : ` ± ${shown(point.sd)} (n=${point.n})`;
  return `${line.label}\n${shown(point.y)}${spread}\nepoch ${point.epoch}${line.id ? `\n${line.id}` : ""}`;
}

function shown(value) {
  return value === null || value === undefined || !Number.isFinite(value) ? "-" : Number(value.toPrecision(5)).toString();
}

/** Draws overlaid lines. */
function lineChart(host, caption, lines, { x, y, logX = false, logY = false, width = 900, height = 340 }) {
  const [low, high] = d3.extent(lines.flatMap((line) => line.points), (point) => point.x);
  const whole = !logX && x !== AXES.seconds ? d3.ticks(low ?? 0, high ?? 1, 8).filter(Number.isInteger) : undefined; // no half epochs
  const n = lines.filter((line) => !line.thin).length;
  return plot(host, caption, `${n} lines over ${x}; the table below has their figures`, {
    width, height,
    x: { label: x, type: logX ? "log" : "linear", labelAnchor: "center", labelArrow: "none", tickFormat: compact, ticks: whole },
    y: { label: y, type: logY ? "log" : "linear", labelArrow: "none", tickFormat: logY ? shownTick : undefined },
    marks: lineMarks(lines, logY),
  });
}

function compact(value) {
  return Math.abs(value) >= 1e4 ? d3.format("~s")(value) : shown(value);
}

function shownTick(value) {
  return d3.format("~g")(value);
}
