const data = JSON.parse(document.querySelector("#map-data").textContent);
const canvas = document.querySelector("#map");
const hovered = document.querySelector(".hovered");
const decode = (text, Numbers) => new Numbers(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
const points = decode(data.points, Uint16Array);
const labels = decode(data.labels, Uint32Array);
const right = decode(data.right, Uint8Array);
const GRID = 65535;
const view = { x: 0.5, y: 0.5, zoom: 1 };

// Neighbouring numbers get hues that are far apart: multiples of the golden angle.
const hue = (number) => `hsl(${(number * 137.508) % 360} 65% ${38 + 14 * (number % 3)}%)`;
const VERDICTS = ["#c62828", "#2e7d32", "#8a8a8a"];
const MOST_NAMES = 40;
const colourings = [
  { title: "class", colour: (point) => hue(labels[point]), names: data.classes, colours: hue },
  ...data.levels.map(([title, names, groups]) => (
    { title, colour: (point) => hue(groups[labels[point]]), names, colours: hue })),
  { title: "right or wrong", colour: (point) => VERDICTS[right[point]],
    names: ["nearest image wrong", "nearest image right", "no query"], colours: (verdict) => VERDICTS[verdict] },
];
const chooser = document.querySelector("#colour");
colourings.forEach(({ title }, number) => {
  chooser.add(new Option(title, number, false, number === Math.min(1, data.levels.length)));
});
const only = document.querySelector("#class");
data.classes.forEach((name, label) => only.add(new Option(name, label)));

function scale() {
  const { clientWidth: width, clientHeight: height } = canvas;
  const size = 0.96 * Math.min(width, height) * view.zoom;
  return { width, height, size };
}

function place(point) {
  const { width, height, size } = scale();
  return [
    width / 2 + (points[2 * point] / GRID - view.x) * size,
    height / 2 - (points[2 * point + 1] / GRID - view.y) * size,
  ];
}

function draw() {
  const { width, height } = scale();
  const ratio = window.devicePixelRatio || 1;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  const { colour } = colourings[chooser.value];
  const radius = Math.min(6, (data.count > 5000 ? 1.6 : 3) * Math.sqrt(view.zoom));
  const shown = only.value === "" ? null : Number(only.value);
  const later = [];
  for (let point = 0; point < data.count; point++) {
    if (shown !== null && labels[point] === shown) { later.push(point); continue; }
    const [x, y] = place(point);
    if (x < -9 || y < -9 || x > width + 9 || y > height + 9) continue;
    context.globalAlpha = shown === null ? 0.85 : 0.12;
    context.fillStyle = colour(point);
    context.beginPath();
    context.arc(x, y, radius, 0, 7);
    context.fill();
  }
  context.globalAlpha = 1;
  for (const point of later) {
    const [x, y] = place(point);
    context.fillStyle = colour(point);
    context.beginPath();
    context.arc(x, y, radius + 2.5, 0, 7);
    context.fill();
  }
}

// Which colour is which, unless these are too many to be told apart.
function explain() {
  const { names, colours } = colourings[chooser.value];
  document.querySelector(".legend").replaceChildren(...(names.length > MOST_NAMES ? [] : names.map((name, number) => {
    const entry = document.createElement("span"), dot = document.createElement("i");
    dot.style.background = colours(number);
    entry.append(dot, name);
    return entry;
  })));
}

let isAsked = false;
function redraw() {
  if (isAsked) return;
  isAsked = true;
  requestAnimationFrame(() => { isAsked = false; draw(); });
}

function nearest(left, top) {
  let best = -1, least = 15 ** 2;
  for (let point = 0; point < data.count; point++) {
    if (only.value !== "" && labels[point] !== Number(only.value)) continue;
    const [x, y] = place(point);
    const distance = (x - left) ** 2 + (y - top) ** 2;
    if (distance < least) [best, least] = [point, distance];
  }
  return best;
}

function point(event) {
  const frame = canvas.getBoundingClientRect();
  return [event.clientX - frame.left, event.clientY - frame.top];
}

function show(event) {
  const [x, y] = point(event);
  const found = nearest(x, y);
  hovered.hidden = found < 0;
  if (found < 0) return;
  const [picture, text] = hovered.children;
  const size = 2 * data.side;
  Object.assign(picture.style, {
    width: `${size}px`,
    height: `${size}px`,
    backgroundImage: `url("${data.sheet}")`,
    backgroundSize: `${data.columns * size}px auto`,
    backgroundPosition: `-${(found % data.columns) * size}px -${Math.floor(found / data.columns) * size}px`,
  });
  text.textContent = data.classes[labels[found]] + ["; nearest image: wrong", "; nearest image: right", ""][right[found]];
  const isFarRight = x > canvas.clientWidth - 180;
  hovered.style.left = isFarRight ? "" : `${x + 14}px`;
  hovered.style.right = isFarRight ? `${canvas.clientWidth - x + 14}px` : "";
  hovered.style.top = `${Math.max(0, Math.min(y - 20, canvas.clientHeight - 120))}px`;
}

function zoom(factor, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) {
  const before = scale();
  const to = Math.min(200, Math.max(1, view.zoom * factor));
  const change = (1 - view.zoom / to) / before.size;
  view.x += (x - before.width / 2) * change;
  view.y -= (y - before.height / 2) * change;
  view.zoom = to;
  redraw();
}

let dragged = null;
canvas.addEventListener("pointerdown", (event) => {
  dragged = point(event);
  canvas.setPointerCapture(event.pointerId);
  show(event);
});
for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { dragged = null; });
canvas.addEventListener("pointermove", (event) => {
  if (!dragged) { show(event); return; }
  const [x, y] = point(event), { size } = scale();
  view.x -= (x - dragged[0]) / size;
  view.y += (y - dragged[1]) / size;
  dragged = [x, y];
  hovered.hidden = true;
  redraw();
});
canvas.addEventListener("pointerleave", (event) => {
  if (event.pointerType === "mouse") hovered.hidden = true; // a finger leaves when it has tapped
});
canvas.addEventListener("wheel", (event) => {
  if (!event.deltaY) return;
  event.preventDefault();
  zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2, ...point(event));
}, { passive: false });
function press(key) {
  const step = 0.1 / view.zoom;
  const actions = {
    ArrowLeft: () => { view.x -= step; },
    ArrowRight: () => { view.x += step; },
    ArrowUp: () => { view.y += step; },
    ArrowDown: () => { view.y -= step; },
    "+": () => zoom(1.3),
    "-": () => zoom(1 / 1.3),
    0: () => Object.assign(view, { x: 0.5, y: 0.5, zoom: 1 }),
  };
  if (!(key in actions)) return false;
  actions[key]();
  hovered.hidden = true;
  redraw();
  return true;
}

canvas.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return; // the browser's own
  if (press(event.key)) event.preventDefault();
});
for (const button of document.querySelectorAll("button[data-key]")) {
  button.addEventListener("click", () => press(button.dataset.key));
}
chooser.addEventListener("change", explain);
chooser.addEventListener("change", redraw);
only.addEventListener("change", redraw);
new ResizeObserver(redraw).observe(canvas);
explain();
draw();
