// The data of the page: runs as columns, and their curves, which are unpacked when they are looked at.

const island = (name) => JSON.parse(document.getElementById(`data-${name}`).textContent);
const runs = island("runs");
const placeOf = new Map(runs.ids.map((id, place) => [id, place]));
const columns = new Map(runs.columns.map((column) => [column.key, column]));
let packed = null;
const unpacked = new Map();

/** Returns a run's value in a column as a text; "-" for none. */
function textOf(column, place) {
  const code = column.codes[place];
  return code < 0 ? "-" : column.texts[code];
}

function numberOf(key, place) {
  const column = columns.get(key) ?? runs.same.find((one) => one.key === key);
  if (!column) return NaN;
  return Number(column.codes ? textOf(column, place) : column.text);
}

function curves() {
  if (!packed) {
    packed = island("curves");
    packed.byRun = packed.runs.map((line) => {
      const found = new Map();
      for (let at = 0; at < line.length; at += 2) found.set(packed.names[line[at]], line[at + 1]);
      return found;
    });
  }
  return packed;
}

/** Returns float32 values from the upper three bytes of each, in base64. */
function unpack(text) {
  const bytes = atob(text);
  const view = new DataView(new ArrayBuffer(4));
  const values = new Float32Array(bytes.length / 3);
  for (let at = 0; at < values.length; at++) {
    for (let byte = 0; byte < 3; byte++) view.setUint8(byte, bytes.charCodeAt(3 * at + byte));
    values[at] = view.getFloat32(0);
  }
  return values;
}

/** Returns a run's curve of a name: a value for each of `epochsOf`, or null. */
function curveOf(place, name) {
  const known = curves().byRun[place].get(name);
  if (known === undefined) return null;
  if (!unpacked.has(known)) unpacked.set(known, unpack(curves().packed[known]));
  return unpacked.get(known);
}

function epochsOf(place) {
  return curves().epochs[String(curves().lengths[place])] ?? [];
}

const AXES = { epoch: "epoch", update: "update", images: "images seen", seconds: "seconds of training" };

/** Returns where a run's curves stand along an axis: a value for each of its epochs, or null where it is not known. */
function along(place, axis) {
  const epochs = epochsOf(place);
  if (axis === "epoch") return epochs;
  if (axis === "seconds") return curveOf(place, "seconds");
  const steps = curveOf(place, "step");
  if (axis === "update" || !steps) return steps;
  const batch = numberOf("batch", place), images = numberOf("train_images", place);
  return Array.from(steps, (step, at) => Math.min(step * batch, Number.isFinite(images) ? epochs[at] * images : Infinity));
}

/** Returns the command that repeats a run, whatever the folder of results has already. */
function commandOf(place) {
  const first = ["protocol", "data", "model", "task", "schedule", "optimizer"].map((name) => `${name}.name`);
  const words = new Map();
  for (const one of runs.same) words.set(one.key, one.word);
  for (const one of runs.columns) {
    if (!one.words) continue;
    const code = one.codes[place];
    words.set(one.key, code >= 0 ? one.words[code] : one.lacking?.includes(place) ? "" : one.nothing);
  }
  const others = [...words.keys()].filter((key) => !first.includes(key));
  const said = [...first, ...others].map((key) => words.get(key)).filter(Boolean);
  for (const [word, places] of Object.entries(runs.words)) if (places.includes(place)) said.push(word);
  return `lbt train ${said.join(" ")} results_dir=again`;
}
