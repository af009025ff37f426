// The tables' filters: task, data set, model and block (published, protocols), and one table alone.

const GRID_LABELS = { "task.name": "Task", "data.name": "Data set", "model.name": "Model", block: "Published, protocol" };

function buildGrids() {
  const known = new Map();
  for (const table of document.querySelectorAll("article.grid")) {
    for (const [key, values] of Object.entries(JSON.parse(table.dataset.filters))) {
      known.set(key, [...new Set([...(known.get(key) ?? []), ...values])]);
    }
  }
  const titles = [...document.querySelectorAll("article.grid")].map((table) => [table.dataset.table, table.getAttribute("aria-label")]);
  const host = document.getElementById("grid-controls");
  watch("tables", () => {
    keepFocus(host, () => host.replaceChildren(
      choice("Table", [["", "all"], ...titles], get("t"), (value) => set({ t: value })),
      ...[...known].map(([key, values]) => choice(GRID_LABELS[key] ?? key, [["", "any"], ...values], get(key), (value) => set({ [key]: value })))));
    filterGrids([...known.keys()]);
  });
}

function filterGrids(keys) {
  for (const table of document.querySelectorAll("article.grid")) {
    table.hidden = get("t") !== "" && get("t") !== table.dataset.table;
    for (const part of table.querySelectorAll(".part")) {
      const place = JSON.parse(part.dataset.place);
      part.hidden = keys.some((key) => key !== "block" && get(key) && key in place && String(place[key]) !== get(key));
    }
    for (const cell of table.querySelectorAll("[data-block]")) {
      cell.hidden = Boolean(get("block") && cell.dataset.block && cell.dataset.block !== get("block"));
    }
  }
}
