// A map: pixels in a colour map on a canvas, what is not known hatched, scale bar, colour bar with its unit,
// and a read-out of one place with its error for mouse, finger and keyboard.

import { palette, robustRange } from "./colour.js";
import { h, setAttr, setText, themed } from "./dom.js";
import * as format from "./format.js";

const BAR_PX = 12;
const TALLEST_PX = 340;
const NICE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000];

/**
 * One map in a figure of its own.
 *
 * @param {object} options name (for people), unit, onPoint(x_um, y_um | null) when a place is pointed at.
 */
export class MapView {
  constructor({ name, unit = "", onPoint = () => {} }) {
    this.name = name;
    this.unit = unit;
    this.onPoint = onPoint;
    this.data = null;
    this.colours = "viridis";
    this.point = null;
    this.canvas = h("canvas", { tabindex: "0", role: "img", "aria-label": name });
    this.bar = h("canvas.bar", { "aria-hidden": "true" });
    this.title = h("span.map-name", {}, name);
    this.note = h("span.map-note", {});
    this.readout = h("output.readout", {}, "\u00a0");
    this.ends = h("span.map-ends", { "aria-hidden": "true" });
    this.root = h("figure.map", {},
      h("figcaption", {}, this.title, this.note),
      h("div.map-body", {}, this.canvas, this.bar),
      this.readout);
    this.image = document.createElement("canvas");
    this.canvas.addEventListener("pointermove", (event) => this.pointed(event));
    this.canvas.addEventListener("pointerdown", (event) => this.pointed(event));
    this.canvas.addEventListener("pointerleave", () => this.onPoint(null, null));
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    this.canvas.addEventListener("blur", () => this.onPoint(null, null));
  }

  /**
   * Show data: {shape: [ny, nx], x_um, y_um, values, sigma|null}.
   *
   * @param {object} options symmetric: a scale around zero; note: a few words beside the name; range: [low, high].
   */
  show(data, { colours = "viridis", symmetric = false, fromZero = true, note = "", range = null } = {}) {
    this.data = data;
    this.colours = colours;
    this.range = range ?? robustRange(data.values, { symmetric, fromZero });
    setText(this.note, note);
    this.paint();
    this.draw();
    this.tell();
  }

  /** Return the size of a map in CSS pixels for the room there is. */
  fit(width_px, height_px = TALLEST_PX) {
    const [w_um, h_um] = this.extent();
    const room = Math.max(60, width_px - BAR_PX - 58);
    const scale = Math.min(room / w_um, height_px / h_um);
    this.size = [Math.max(24, Math.round(w_um * scale)), Math.max(24, Math.round(h_um * scale))];
    this.draw();
  }

  extent() {
    const { x_um, y_um, shape } = this.data ?? {};
    if (!x_um || x_um.length < 2 || y_um.length < 2) return [shape?.[1] ?? 1, shape?.[0] ?? 1];
    return [pitch(x_um) * x_um.length, pitch(y_um) * y_um.length];
  }

  /** Fill the image, one word a pixel; NaN stays transparent, so that the hatching below shows. */
  paint() {
    const [ny, nx] = this.data.shape;
    if (this.image.width !== nx || this.image.height !== ny) {
      this.image.width = nx;
      this.image.height = ny;
      this.pixels = null;
    }
    const context = this.image.getContext("2d");
    this.pixels ??= context.createImageData(nx, ny);
    const words = new Uint32Array(this.pixels.data.buffer);
    const { values } = this.data;
    const colours = palette(this.colours);
    const [low, high] = this.range ?? [0, 1];
    const scale = 255.999 / (high - low);
    for (let i = 0; i < words.length; i += 1) {
      const value = values[i];
      const at = (value - low) * scale;
      words[i] = value !== value ? 0 : colours[at < 0 ? 0 : at > 255 ? 255 : at | 0];
    }
    context.putImageData(this.pixels, 0, 0);
  }

  draw() {
    if (!this.data || !this.size) return;
    const ratio = window.devicePixelRatio || 1;
    const [w, ht] = this.size;
    sized(this.canvas, w, ht, ratio);
    const context = this.canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    hatch(context, w, ht);
    context.imageSmoothingEnabled = false;
    context.save();
    context.translate(0, ht);
    context.scale(1, -1); // +y of the sample is up
    context.drawImage(this.image, 0, 0, w, ht);
    context.restore();
    this.scaleBar(context, w, ht);
    if (this.point) this.cross(context, w, ht);
    this.colourBar(ht, ratio);
  }

  scaleBar(context, w, ht) {
    const [w_um] = this.extent();
    if (!this.data.x_um) return;
    const length = NICE.filter((um) => um <= w_um * 0.45).pop();
    if (!length) return;
    const px = (length / w_um) * w;
    const text = length >= 1000 ? `${length / 1000} mm` : `${length} µm`;
    context.font = "600 11px system-ui, sans-serif";
    const box = Math.max(px, context.measureText(text).width) + 10;
    context.fillStyle = "rgba(0,0,0,0.62)";
    context.fillRect(5, ht - 27, box, 22);
    context.fillStyle = "#fff";
    context.fillRect(10, ht - 10, px, 2.5);
    context.fillText(text, 10, ht - 14);
  }

  cross(context, w, ht) {
    const [x, y] = this.toPixel(...this.point, w, ht);
    for (const [colour, width] of [["rgba(0,0,0,0.75)", 3], ["#fff", 1]]) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.beginPath();
      context.moveTo(x, 0);
      context.lineTo(x, ht);
      context.moveTo(0, y);
      context.lineTo(w, y);
      context.stroke();
    }
  }

  colourBar(ht, ratio) {
    const width = BAR_PX + 50;
    sized(this.bar, width, ht, ratio);
    const context = this.bar.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, ht);
    if (!this.range) return;
    const colours = palette(this.colours);
    const top = 7;
    const tall = ht - 2 * top;
    for (let i = 0; i < tall; i += 1) {
      const word = colours[Math.round(255 * (1 - i / Math.max(1, tall - 1)))];
      context.fillStyle = `rgb(${word & 255} ${(word >> 8) & 255} ${(word >> 16) & 255})`;
      context.fillRect(0, top + i, BAR_PX, 1.5);
    }
    context.fillStyle = themed("--ink-2");
    context.font = "11px system-ui, sans-serif";
    context.textBaseline = "middle";
    const [low, high] = this.range;
    for (const value of ticks(low, high, tall > 150 ? 5 : 3)) {
      const y = top + tall * (1 - (value - low) / (high - low));
      context.fillRect(BAR_PX, y - 0.5, 4, 1);
      context.fillText(format.significant(value, 3).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, ""), BAR_PX + 7, y);
    }
  }

  toPixel(x_um, y_um, w, ht) {
    const { x_um: xs, y_um: ys } = this.data;
    const [w_um, h_um] = this.extent();
    const x0 = xs ? xs[0] - pitch(xs) / 2 : 0;
    const y0 = ys ? ys[0] - pitch(ys) / 2 : 0;
    return [((x_um - x0) / w_um) * w, ht - ((y_um - y0) / h_um) * ht];
  }

  pointed(event) {
    if (!this.data?.x_um) return;
    const box = this.canvas.getBoundingClientRect();
    const { x_um, y_um, shape } = this.data;
    const i = Math.floor(((event.clientX - box.left) / box.width) * shape[1]);
    const j = Math.floor((1 - (event.clientY - box.top) / box.height) * shape[0]);
    this.onPoint(x_um[clamp(i, shape[1])], y_um[clamp(j, shape[0])]);
  }

  key(event) {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (event.key === "Escape") this.onPoint(null, null);
    if (!step || !this.data?.x_um) return;
    event.preventDefault();
    const { x_um, y_um, shape } = this.data;
    const [i, j] = this.point ? this.pixelAt(...this.point) : [shape[1] >> 1, shape[0] >> 1];
    const far = event.shiftKey ? 8 : 1;
    this.onPoint(x_um[clamp(i + far * step[0], shape[1])], y_um[clamp(j + far * step[1], shape[0])]);
  }

  pixelAt(x_um, y_um) {
    const { x_um: xs, y_um: ys } = this.data;
    return [nearest(xs, x_um), nearest(ys, y_um)];
  }

  /** Mark a place (also one that was pointed at in another map), or none, and read it out. */
  mark(x_um, y_um) {
    this.point = x_um == null ? null : [x_um, y_um];
    this.draw();
    this.tell();
  }

  tell() {
    const { values, sigma, shape } = this.data ?? {};
    if (!values) return;
    if (!this.point) {
      setText(this.readout, "\u00a0");
      const known = values.reduce((count, value) => count + Number(value === value), 0);
      const range = this.range ? `colours from ${format.significant(this.range[0])} to ${format.significant(this.range[1])}` : "";
      setAttr(this.canvas, "aria-label",
        `${this.name}${this.unit ? `, ${this.unit}` : ""}: ${shape[1]} by ${shape[0]} pixels, ${known} known, ${range}. ` +
        "Arrow keys move a read-out.");
      return;
    }
    const [i, j] = this.pixelAt(...this.point);
    const at = j * shape[1] + i;
    const value = values[at];
    const told = value === value ? format.withError(value, sigma?.[at], this.unit) : "not known here";
    const text = `${told} at ${format.significant(this.point[0], 3)}, ${format.significant(this.point[1], 3)} µm`;
    setText(this.readout, text);
    setAttr(this.canvas, "aria-label", `${this.name}: ${text}`);
  }
}

function sized(canvas, w, ht, ratio) {
  const [pw, ph] = [Math.round(w * ratio), Math.round(ht * ratio)];
  if (canvas.width !== pw || canvas.height !== ph) {
    canvas.width = pw;
    canvas.height = ph;
    canvas.style.width = `${w}px`;
    canvas.style.height = `${ht}px`;
  }
}

/** Fill with the pattern that means "not known". */
export function hatch(context, w, ht) {
  context.fillStyle = themed("--hatch-a");
  context.fillRect(0, 0, w, ht);
  context.strokeStyle = themed("--hatch-b");
  context.lineWidth = 1.5;
  context.beginPath();
  for (let x = -ht; x < w; x += 7) {
    context.moveTo(x, ht);
    context.lineTo(x + ht, 0);
  }
  context.stroke();
}

function pitch(axis) {
  return (axis[axis.length - 1] - axis[0]) / (axis.length - 1);
}

function nearest(axis, value) {
  return clamp(Math.round((value - axis[0]) / pitch(axis)), axis.length);
}

function clamp(index, count) {
  return Math.min(count - 1, Math.max(0, index));
}

/** Return round values from low to high, about as many as asked. */
export function ticks(low, high, count) {
  const raw = (high - low) / count;
  const size = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((n) => n * size).find((n) => n >= raw) ?? raw;
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-6; value += step)
    found.push(Math.abs(value) < step * 1e-6 ? 0 : value);
  return found;
}
