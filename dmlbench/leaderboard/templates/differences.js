const data = JSON.parse(document.querySelector("#differences-data").textContent);
const MOST_CLASSES = 12;
const state = new URLSearchParams(location.hash.slice(1));
const [first, second] = ["first", "second"].map((id) => document.querySelector(`#${id}`));
for (const chooser of [first, second]) {
  data.losses.forEach(({ name, title }) => chooser.add(new Option(title, name)));
}
const names = data.losses.map(({ name }) => name);
const titles = data.losses.map(({ title }) => title);
first.value = names.includes(state.get("first")) ? state.get("first") : names[0];
second.value = names.includes(state.get("second")) ? state.get("second") : names[1];

function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function picture(place, label, verdict, owner) {
  const [x, y] = [place % data.columns, Math.floor(place / data.columns)];
  const name = data.classes[label];
  const says = [owner, name, verdict].filter(Boolean).join(", ");
  return element("span", { class: `picture ${verdict}` },
    element("b", { style: `--x: ${x}; --y: ${y}`, role: "img", "aria-label": says }),
    element("small", { "aria-hidden": "true", title: says }, owner ? `${owner}: ${name}` : name));
}

function queries(target, winner, loser, letters) {
  const won = data.queries.filter((query) =>
    query.labels[winner] === query.label && query.labels[loser] !== query.label);
  document.querySelector(target).replaceChildren(...(won.length ? won.slice(0, 12).map((query) =>
    element("div", { class: "example" }, picture(query.place, query.label, "", ""),
      element("span", { class: "to", "aria-hidden": "true" }, "→"),
      picture(query.nearest[winner], query.labels[winner], "right", letters[0]),
      picture(query.nearest[loser], query.labels[loser], "wrong", letters[1]))) : ["None."]));
}

function classes(a, b) {
  const differences = data.classes.map((name, label) => ({
    name, size: data.sizes[label], by: data.scores[a][label] - data.scores[b][label],
    known: data.scores[a][label] !== null && data.scores[b][label] !== null,
  })).filter(({ known, size }) => known && size > 1);
  const won = differences.filter(({ by }) => by > 0).length;
  const lost = differences.filter(({ by }) => by < 0).length;
  document.querySelector("#sums").textContent = differences.length
    ? `${titles[a]} is better on ${won} classes, ${titles[b]} on ${lost}, of ${differences.length}.`
    : "No class has a score by both losses.";
  differences.sort((left, right) => right.by - left.by);
  const ends = differences.length > 2 * MOST_CLASSES
    ? [...differences.slice(0, MOST_CLASSES), ...differences.slice(-MOST_CLASSES)] : differences;
  const most = Math.max(...ends.map(({ by }) => Math.abs(by)), 1e-9);
  document.querySelector("#bars").replaceChildren(...ends.map(({ name, size, by }) => {
    const width = (50 * Math.abs(by)) / most;
    const colour = data.losses[by >= 0 ? a : b].colour;
    const bar = element("div", { class: "bar" }, element("span", {
      style: `background: ${colour}; width: ${width}%; ${by >= 0 ? "left" : "right"}: 50%` }));
    return element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, bar),
      element("td", {}, `${by > 0 ? "+" : ""}${by.toFixed(1)}`), element("td", {}, size));
  }));
}

function update() {
  const [a, b] = [names.indexOf(first.value), names.indexOf(second.value)];
  classes(a, b);
  queries("#a-wins", a, b, ["A", "B"]);
  queries("#b-wins", b, a, ["B", "A"]);
  document.querySelector("#a-right").textContent = `Queries that ${titles[a]} (A) gets right and ${titles[b]} (B) does not`;
  document.querySelector("#b-right").textContent = `Queries that ${titles[b]} (B) gets right and ${titles[a]} (A) does not`;
  state.set("first", names[a]);
  state.set("second", names[b]);
  history.replaceState(null, "", `#${state}`);
}

first.addEventListener("change", update);
second.addEventListener("change", update);
update();
