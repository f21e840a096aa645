// The address remembers what is sorted and shown:
// #sort=0.3.down&filter=rll&dataset=cub&family=proxies&hide=NMI&hide=seeds
const tables = [...document.querySelectorAll("table")];
const state = new URLSearchParams(location.hash.slice(1));
const search = document.querySelector("#filter");
const filters = [...document.querySelectorAll("[data-filter]")];
const columns = [...document.querySelectorAll("[data-column]")];
const report = document.querySelector("[role=status]");

function remember(name, value) {
  if (value) state.set(name, value); else state.delete(name);
  history.replaceState(null, "", `#${state}`);
}

const headsOf = (table) => [...(table.tHead?.rows[0].cells ?? [])];

// Holes stay below.
function sort(table, column, down) {
  const heads = headsOf(table);
  const isText = heads[column].dataset.text !== undefined;
  heads.forEach((head) => head.removeAttribute("aria-sort"));
  heads[column].setAttribute("aria-sort", down ? "descending" : "ascending");
  const value = (row) => row.cells[column].dataset.value;
  const order = (a, b) => isText ? a.localeCompare(b) : a - b;
  const body = table.tBodies[0];
  body.append(...[...body.rows].sort((left, right) => {
    const [a, b] = [value(left), value(right)];
    if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
    return down ? order(b, a) : order(a, b);
  }));
}

// What says nothing of a name, as a section on all data sets, is about each of its values.
const isAbout = (element, names) => names.every((name) =>
  !state.get(name) || (element.dataset[name] ?? state.get(name)) === state.get(name));

function showSections() {
  for (const section of document.querySelectorAll("section")) {
    section.hidden = !isAbout(section, ["dataset", "backbone", "protocol"]);
  }
}

function showColumns() {
  const unchecked = new Set(columns.filter((box) => !box.checked).map((box) => box.dataset.column));
  for (const table of tables) {
    headsOf(table).forEach((head, place) => {
      const isHidden = place > 0 && (unchecked.has(head.textContent)
        || !isAbout(head, ["dataset", "backbone", "protocol"]));
      if (isHidden !== head.hidden) {
        for (const row of table.rows) row.cells[place].hidden = isHidden;
      }
    });
  }
}

// Controls are of no family, and stay beside each.
function showRows() {
  const text = (state.get("filter") ?? "").toLowerCase(), family = state.get("family");
  const shown = new Set();
  for (const row of document.querySelectorAll("table.losses tbody tr")) {
    const name = row.cells[0].dataset.value;
    const isOfFamily = !family || row.dataset.family === family || row.closest(".controls");
    row.hidden = !isOfFamily || !name.toLowerCase().includes(text);
    if (!row.hidden && !row.closest("section[hidden]")) shown.add(name);
  }
  say(text || family ? `shown: ${[...shown].join(", ") || "no row"}` : "");
}

function say(text) {
  if (report) report.textContent = text;
}

// A table as rows of texts, without what is hidden. A spreadsheet would run a text that begins
// like a formula.
function textsOf(table) {
  const isNumber = (text) => /^[+-]?\d[\d.,]*(e[+-]?\d+)?( %)?( ± [\d.,]+)?$/.test(text);
  const plain = (text) => /^[=+\-@]/.test(text) && !isNumber(text) ? `'${text}`
    : text.replace(/^(\d+)-(\d+)$/, "$1–$2"); // ranks, which would become dates
  return [...table.rows].filter((row) => !row.hidden).map((row) =>
    [...row.cells].filter((cell) => !cell.hidden).map((cell) =>
      plain(cell.textContent.replace(/\s+/g, " ").trim())));
}

function csvOf(table) {
  const quoted = (text) => /[",]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  return textsOf(table).map((row) => row.map(quoted).join(",") + "\r\n").join("");
}

function download(table, title) {
  const link = document.createElement("a");
  // the mark tells spreadsheets that ± and – are UTF-8
  link.href = URL.createObjectURL(new Blob(["\ufeff", csvOf(table)], { type: "text/csv" }));
  link.download = `${title.replace(/[^\p{L}\p{N}.]+/gu, "_")}.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  say(`${title}: saved as CSV`);
}

async function copy(table, title) {
  const text = textsOf(table).map((row) => row.join("\t")).join("\n");
  try {
    await navigator.clipboard.writeText(text);
  } catch { // a page from the disk may have no clipboard
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  say(`${title}: copied`);
}

function addButton(place, name, label, action) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = name;
  button.setAttribute("aria-label", label);
  button.addEventListener("click", action);
  place.append(button);
}

for (const table of tables) {
  const heading = table.closest("section")?.querySelector("h2");
  if (!heading) continue;
  const title = heading.textContent;
  const place = document.createElement("span");
  place.className = "of-table";
  addButton(place, "copy", `copy ${title}`, () => copy(table, title));
  addButton(place, "CSV", `CSV of ${title}`, () => download(table, title));
  heading.after(place);
}

// The first click on a column sorts the best to the top, or names from a to z.
document.addEventListener("click", (event) => {
  const head = event.target.closest("thead button")?.parentElement;
  if (!head) return;
  const table = head.closest("table"), column = head.cellIndex;
  const sorted = head.getAttribute("aria-sort");
  const down = sorted ? sorted === "ascending" : head.dataset.text === undefined;
  sort(table, column, down);
  remember("sort", `${tables.indexOf(table)}.${column}.${down ? "down" : "up"}`);
});

search?.addEventListener("input", () => {
  remember("filter", search.value);
  showRows();
});
for (const select of filters) {
  select.addEventListener("change", () => {
    remember(select.dataset.filter, select.value);
    showSections();
    showColumns();
    showRows();
  });
}
for (const box of columns) {
  box.addEventListener("change", () => {
    state.delete("hide");
    for (const each of columns) if (!each.checked) state.append("hide", each.dataset.column);
    history.replaceState(null, "", `#${state}`);
    showColumns();
  });
}

// What the address says; a name or a value that the page does not have says nothing.
if (search) search.value = state.get("filter") ?? "";
for (const select of filters) {
  select.value = state.get(select.dataset.filter) ?? "";
  if (select.selectedIndex < 0) select.value = "";
}
for (const name of ["dataset", "backbone", "protocol", "family"]) {
  const value = filters.find((select) => select.dataset.filter === name)?.value;
  if (!value) state.delete(name);
}
for (const box of columns) box.checked = !state.getAll("hide").includes(box.dataset.column);
if ([...state.keys()].some((name) => name !== "sort")) {
  showSections();
  showColumns();
  showRows();
}
const [place, column, direction] = (state.get("sort") ?? "").split(".");
if (/^\d+$/.test(column) && tables[place]?.tHead?.rows[0].cells[column]) sort(tables[place], column, direction !== "up");
if (search) addEventListener("hashchange", () => location.reload());
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("main > details")) details.open = true;
});
