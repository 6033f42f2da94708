// State of charge from the beam beside that from charge, each with its error, on one scale.

import * as format from "../format.js";

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, LEFT, RIGHT] = [400, 8, 392];

function s(tag, attributes, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text != null) element.textContent = text;
  return element;
}

let drawn = "";

/** Draw {beam, charge} into an element; a value that is not of the present is called so. */
export function gauge(root, { beam, charge }, lost) {
  const key = JSON.stringify([beam, charge, lost]);
  if (key === drawn) return;
  drawn = key;
  root.replaceChildren();
  if (!beam && !charge) return;
  const ends = [beam, charge].filter(Boolean).flatMap((q) => [q.value - (q.total ?? 0), q.value + (q.total ?? 0)]);
  const low = Math.min(0, Math.floor(Math.min(...ends) * 5) / 5);
  const high = Math.max(1, Math.ceil(Math.max(...ends) * 5) / 5);
  const x = (value) => (LEFT + ((value - low) / (high - low)) * (RIGHT - LEFT)).toFixed(1);
  const told = (q) => (q ? format.percent(q.value, q.total) : format.DASH);
  const svg = s("svg", { viewBox: `0 0 ${WIDTH} 62`, role: "img",
    "aria-label": `State of charge${lost ? ", when last heard" : ""}: from the beam ${told(beam)}, from charge ${told(charge)}` });
  svg.append(s("line", { class: "scale", x1: x(low), x2: x(high), y1: 26, y2: 26 }));
  const step = high - low > 1.5 ? 0.5 : 0.25;
  for (let tick = Math.ceil(low / step) * step; tick <= high + 1e-9; tick += step)
    svg.append(s("text", { x: x(tick), y: 58, "text-anchor": tick <= low + 1e-9 ? "start" : tick >= high - 1e-9 ? "end" : "middle" }, `${Math.round(tick * 100)} %`));
  mark(svg, x, beam, "beam", 14, (cx, y) => s("circle", { class: "beam", cx, cy: y, r: 6 }));
  mark(svg, x, charge, "charge", 38, (cx, y) => s("rect", { class: "charge", x: cx - 5, y: y - 5, width: 10, height: 10 }));
  const list = document.createElement("dl");
  for (const [name, text, q] of [["beam", "from the beam", beam], ["charge", "from charge", charge]]) {
    const dt = document.createElement("dt");
    dt.className = name;
    dt.textContent = text;
    const dd = document.createElement("dd");
    dd.id = `soc-from-${name}`;
    dd.textContent = told(q);
    list.append(dt, dd);
  }
  root.append(svg, list);
}

function mark(svg, x, q, kind, y, shape) {
  if (!q) return;
  const span = (size, name) => size > 0 && svg.append(s("line", { class: `bar ${kind} ${name}`, x1: x(q.value - size), x2: x(q.value + size), y1: y, y2: y }));
  span(q.total, "wide");
  span(q.stat, "");
  svg.append(shape(Number(x(q.value)), y));
}
