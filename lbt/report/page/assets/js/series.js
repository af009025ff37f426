// Lines of a chart from chosen runs: each run, and the mean and band over runs that differ in their seeds alone.

/** Returns chosen runs by configuration: [{places, label}], the label saying what tells them apart. */
function groupsOf(places) {
  const found = new Map();
  for (const place of places) {
    const group = runs.groups[place];
    if (!found.has(group)) found.set(group, []);
    found.get(group).push(place);
  }
  const groups = [...found.values()];
  const telling = tellingApart(groups.map((group) => group[0]));
  return groups.map((group) => ({ places: group, label: labelOf(telling, group[0]) }));
}

/** Returns as few settings, seeds aside, as tell some runs apart. */
function tellingApart(places) {
  let known = places.map(() => ""), apart = 1;
  return differing(places, "setting").filter((column) => {
    if (column.key === "seed" || apart === places.length) return false;
    const finer = places.map((place, at) => `${known[at]},${column.codes[place]}`), count = new Set(finer).size;
    if (count === apart) return false;
    [known, apart] = [finer, count];
    return true;
  });
}

/** Returns the columns of a part in which some runs differ, those shown at first before the others. */
function differing(places, part) {
  const found = runs.columns.filter((column) => column.part === part && new Set(places.map((place) => column.codes[place])).size > 1);
  return found.sort((one, other) => other.shown - one.shown);
}

function labelOf(telling, place) {
  const named = columns.get("optimizer.name");
  const said = telling.filter((column) => column.codes[place] >= 0).map((column) => {
    const text = cut(textOf(column, place), 40);
    return column.key.endsWith(".name") ? text : `${column.label.split(".").pop()} ${text}`;
  });
  return said.join(", ") || (named ? cut(textOf(named, place), 40) : runs.ids[place]);
}

/** Returns a run's points [{x, y, epoch}] of a curve; a value that is not finite is no point. */
function pointsOf(place, name, axis) {
  const ys = curveOf(place, name), xs = along(place, axis), epochs = epochsOf(place);
  if (!ys || !xs) return [];
  return epochs.map((epoch, at) => ({ epoch, x: xs[at], y: ys[at] })).filter((one) => Number.isFinite(one.y) && Number.isFinite(one.x));
}

/**
 * Returns the mean over some runs: [{x, y, sd, n, epoch}] at each epoch at which all of them have a point.
 *
 * The band is the standard deviation over n - 1; x is the mean of where they stand.
 */
function meanOf(lines) {
  const known = lines.map((line) => new Map(line.map((point) => [point.epoch, point])));
  const found = [];
  for (const { epoch } of lines[0] ?? []) {
    const here = known.map((line) => line.get(epoch));
    if (here.some((point) => !point)) continue;
    const n = here.length;
    const y = here.reduce((sum, point) => sum + point.y, 0) / n;
    const x = here.reduce((sum, point) => sum + point.x, 0) / n;
    const squares = here.reduce((sum, point) => sum + (point.y - y) ** 2, 0);
    found.push({ epoch, x, y, n, sd: n > 1 ? Math.sqrt(squares / (n - 1)) : null });
  }
  return found;
}

/** Returns a chart's lines: for each configuration its mean with a band where it has several runs, and its runs. */
function linesOf(groups, name, axis, withMean) {
  const lines = [];
  groups.forEach((group, look) => {
    const own = group.places.map((place) => ({ place, points: pointsOf(place, name, axis) })).filter((one) => one.points.length);
    const many = own.length > 1 && withMean;
    if (many) lines.push({ look, label: `${group.label} (mean of ${own.length})`, points: meanOf(own.map((one) => one.points)), band: true, places: group.places });
    own.forEach((one) => {
      const status = textOf(columns.get("status"), one.place);
      const seed = own.length > 1 && columns.has("seed") ? `, seed ${textOf(columns.get("seed"), one.place)}` : "";
      lines.push({
        look, thin: many, places: [one.place], points: one.points, id: runs.ids[one.place],
        label: `${group.label}${seed}`, lost: status === "diverged" ? one.points.at(-1) : null,
      });
    });
  });
  return lines;
}
