// The address remembers what is sorted and filtered: #sort=0.3.down&filter=rll
const tables = [...document.querySelectorAll("table")];
const state = new URLSearchParams(location.hash.slice(1));

function remember(name, value) {
  if (value) state.set(name, value); else state.delete(name);
  history.replaceState(null, "", `#${state}`);
}

// Holes stay below.
function sort(table, column, down) {
  const heads = [...table.tHead.rows[0].cells];
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

function filter(text) {
  for (const row of document.querySelectorAll("table.losses tbody tr")) {
    row.hidden = !row.cells[0].dataset.value.includes(text);
  }
}

// The first click on a column sorts the best to the top, or names from a to z.
tables.forEach((table, place) => {
  [...(table.tHead?.rows[0].cells ?? [])].forEach((head, column) => {
    head.querySelector("button")?.addEventListener("click", () => {
      const sorted = head.getAttribute("aria-sort");
      const down = sorted ? sorted === "ascending" : head.dataset.text === undefined;
      sort(table, column, down);
      remember("sort", `${place}.${column}.${down ? "down" : "up"}`);
    });
  });
});

const search = document.querySelector("#filter");
search?.addEventListener("input", () => {
  filter(search.value);
  remember("filter", search.value);
});
if (search && state.has("filter")) {
  search.value = state.get("filter");
  filter(search.value);
}
const [place, column, direction] = (state.get("sort") ?? "").split(".");
if (tables[place]?.tHead?.rows[0].cells[column]) sort(tables[place], column, direction !== "up");
