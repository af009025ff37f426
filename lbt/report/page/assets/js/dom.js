// Elements. Texts are set as texts, never as markup: what a record says cannot become a part of the page.

const SVG = "http://www.w3.org/2000/svg";

/** Returns an element with attributes (on...: listeners), and texts or elements in it. */
function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "checked" || name === "selected" || name === "disabled" || name === "open") made[name] = value;
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined).map(asNode));
  return made;
}

function asNode(child) {
  return child instanceof Node ? child : document.createTextNode(String(child));
}

function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Returns a table in a box of its own that scrolls, and that the keyboard reaches. */
function tableOf(label, header, rows, kind = "") {
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label },
    el("table", { class: kind },
      el("thead", {}, el("tr", {}, header.map((text) => el("th", { scope: "col" }, text)))),
      el("tbody", {}, rows.map((row) => el("tr", {}, row.map((cell) => cellOf(cell)))))));
}

function cellOf(cell) {
  if (cell instanceof HTMLElement && (cell.tagName === "TD" || cell.tagName === "TH")) return cell;
  return el("td", {}, cell);
}

/** Returns a select with its label; options are texts or [value, text]. */
function choice(label, options, chosen, onchange) {
  const made = el("select", { onchange: (event) => onchange(event.target.value) },
    options.map((one) => {
      const [value, text] = Array.isArray(one) ? one : [one, one];
      return el("option", { value, selected: value === chosen }, cut(text, 60));
    }));
  return el("label", {}, label, made);
}

function cut(text, length) {
  return text.length > length ? `${text.slice(0, length - 1)}…` : text;
}

/** Returns a link to some runs in the explorer, or a text where there are none. */
function runsLink(ids, text = "") {
  const said = text || `${ids.length} run${ids.length === 1 ? "" : "s"}`;
  if (!ids.length) return said;
  const few = ids.slice(0, 6).join(", ") + (ids.length > 6 ? ", ..." : "");
  return el("a", { href: `#runs?sel=${ids.join(",")}`, title: few }, said);
}
