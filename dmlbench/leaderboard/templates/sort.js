// The first click on a column sorts the best to the top, or names from a to z; holes stay below.
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.firstChild.addEventListener("click", () => {
    const sorted = head.getAttribute("aria-sort");
    const isText = head.dataset.text !== undefined;
    const down = sorted ? sorted === "ascending" : !isText;
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = (row) => row.cells[column].dataset.value;
    const order = (a, b) => isText ? a.localeCompare(b) : a - b;
    const body = table.tBodies[0];
    body.append(...[...body.rows].sort((left, right) => {
      const [a, b] = [value(left), value(right)];
      if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
      return down ? order(b, a) : order(a, b);
    }));
  }));
}
