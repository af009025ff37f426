// Which runs a search, filters and an order leave, by the codes of columns: texts are looked at once each.

const MOST_CHOICES = 60; // values that a filter offers

/** Returns, for each column, which of its texts hold a word; the last is that of a run without a value. */
function hits(word) {
  return runs.columns.map((column) => Uint8Array.from(column.texts, (text) => (text.toLowerCase().includes(word) ? 1 : 0)));
}

/** Returns the places of runs that hold every word of a search somewhere, and have each filter's value. */
function matching(query, wanted) {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean).map(hits);
  const codes = [];
  for (const [key, text] of wanted) {
    const column = columns.get(key);
    if (column) codes.push([column.codes, text === "-" ? -1 : column.texts.indexOf(text)]);
  }
  const found = [];
  for (let place = 0; place < runs.ids.length; place++) {
    if (codes.some(([known, code]) => known[place] !== code)) continue;
    if (words.every((of) => of.some((hit, at) => hit[runs.columns[at].codes[place]]))) found.push(place);
  }
  return found;
}

/** Sorts places by a column; runs without a value stand last, equal ones as they were. */
function sorted(places, key, down) {
  const column = columns.get(key);
  if (!column) return places;
  const codes = column.codes, sign = down ? -1 : 1;
  return [...places].sort((one, other) => {
    const a = codes[one], b = codes[other];
    if (a < 0 || b < 0) return (a < 0) - (b < 0);
    return sign * (a - b);
  });
}

/** Returns the filters of the address: [key, text]. */
function wantedNow() {
  return [...state.params].filter(([name]) => name.startsWith("f.")).map(([name, text]) => [name.slice(2), text]);
}

/** Returns the columns that are shown. */
function shownColumns() {
  const asked = get("cols");
  const keys = asked ? new Set(asked.split(",")) : null;
  return runs.columns.filter((column) => (keys ? keys.has(column.key) : column.shown));
}

/** Returns the filters' controls: of shown columns with few values and those in use, the others folded away. */
function filterControls(list, open) {
  const wanted = new Map(wantedNow());
  const offered = runs.columns.filter((column) => column.key !== "id" && column.part !== "result" &&
    (wanted.has(column.key) || (column.texts.length + column.codes.includes(-1) > 1 && column.texts.length <= MOST_CHOICES)));
  const first = offered.filter((column) => list.includes(column) || wanted.has(column.key));
  const others = offered.filter((column) => !first.includes(column));
  const made = first.map((column) => filterControl(column, wanted));
  const more = () => el("div", { class: "controls" }, others.map((column) => filterControl(column, wanted)));
  if (others.length) made.push(folded(`More filters: ${others.length}`, "filters", new Set(open ? ["filters"] : []), more));
  return made;
}

function filterControl(column, wanted) {
  const none = column.codes.includes(-1) ? ["-"] : [];
  const options = [["", "any"], ...column.texts.slice(0, 500), ...none];
  if (wanted.has(column.key) && !options.includes(wanted.get(column.key))) options.push(wanted.get(column.key));
  return choice(column.label, options, wanted.get(column.key) ?? "", (text) => set({ [`f.${column.key}`]: text, page: null }));
}
