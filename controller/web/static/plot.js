// One plot: uPlot with the theme's colours, error bands, marks, a read-out below it, and the keyboard.

import uPlot from "./vendor/uPlot.esm.js";
import { h, setAttr, setText, themed } from "./dom.js";
import * as format from "./format.js";

const AXIS_FONT = "12px system-ui, sans-serif";

/**
 * A plot in a figure of its own; drawn again when room or theme change.
 *
 * Series: {label, unit, colour: "--c1", kind: "line" | "points" | "steps" | "dash", error: true, digits,
 * tell(value, sigma)}. Data: an array of x, then for each series its values, and for those with ``error`` low
 * and high beside: {x, series: [{v, low, high}]}; null where nothing is known.
 */
const LEAST_SPAN_S = 60; // of an axis of time: a run that has just begun has no ticks of parts of a second

/** Return the range of an axis of time, a minute at least. */
export const spanned = (low, high) => (low == null ? [0, 1] : [low, Math.max(high, low + LEAST_SPAN_S)]);

export class Plot {
  constructor({ name, height = 150, x = {}, y = {}, series, marks = () => [], areas = () => [], sync = null }) {
    Object.assign(this, { name, height, xAxis: x, yAxis: y, series, marks, areas, sync });
    this.holder = h("div.plot", { role: "img", tabindex: "0", "aria-label": name });
    this.legend = h("ul.legend", {});
    this.readout = h("output.readout", {}, "\u00a0");
    this.caption = h("figcaption", {}, h("span.chart-name", {}, name), this.legend, this.readout);
    this.root = h("figure.chart", {}, this.caption, this.holder);
    this.data = null;
    this.plot = null;
    this.index = null;
    this.width = 0;
    this.tallness = null;
    for (const one of series) if (one.label) this.legend.append(h("li", { class: `key key-${one.kind ?? "line"}`, "data-colour": one.colour }, one.label));
    this.holder.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(([entry]) => this.resized(entry.contentRect)).observe(this.holder);
  }

  /** Show data; nothing is drawn where there is none. */
  show(data) {
    this.data = data;
    const flat = this.flat();
    const empty = !flat.slice(1).some((values) => values.some((value) => value != null));
    setAttr(this.root, "data-empty", empty);
    if (empty) return this.drop();
    if (this.plot) this.plot.setData(flat, true);
    else this.build(flat);
    this.tell();
  }

  /** Draw again from the beginning, as after a change of the theme. */
  rebuild() {
    this.drop();
    if (this.data) this.show(this.data);
  }

  /** Take other settings of the axes (log or lin, another range) and draw again. */
  change({ x = this.xAxis, y = this.yAxis }) {
    this.xAxis = x;
    this.yAxis = y;
    this.rebuild();
  }

  drop() {
    this.plot?.destroy();
    this.plot = null;
  }

  flat() {
    const { x = [], series = [] } = this.data ?? {};
    const flat = [x];
    this.series.forEach((one, i) => {
      flat.push(series[i]?.v ?? []);
      if (one.error) flat.push(series[i]?.low ?? [], series[i]?.high ?? []);
    });
    return flat;
  }

  resized({ width, height }) {
    const next = Math.floor(width);
    const tall = Math.floor(height) || this.height;
    if (!next || (next === this.width && tall === this.tallness)) return;
    this.width = next;
    this.tallness = tall;
    if (this.plot) this.plot.setSize({ width: next, height: tall });
    else if (this.data) this.show(this.data);
  }

  build(flat) {
    if (!this.width) return;
    const drawn = [{}];
    const bands = [];
    for (const one of this.series) {
      const colour = themed(one.colour);
      const points = one.kind === "points";
      drawn.push({
        label: one.label, stroke: colour, width: points ? 0 : one.width ?? 1.8, spanGaps: Boolean(one.spanGaps),
        dash: one.kind === "dash" ? [5, 4] : undefined,
        paths: one.kind === "steps" ? uPlot.paths.stepped({ align: 1 }) : points ? () => null : undefined,
        points: { show: points, size: 7, fill: colour, stroke: themed("--surface"), width: 1 },
      });
      if (one.error) {
        const at = drawn.length;
        const edge = { stroke: "transparent", width: 0, points: { show: false }, spanGaps: Boolean(one.spanGaps) };
        drawn.push({ ...edge }, { ...edge });
        if (!points) bands.push({ series: [at + 1, at], fill: alpha(colour, 0.2) });
      }
    }
    const axis = {
      stroke: themed("--ink-2"), font: AXIS_FONT, labelFont: AXIS_FONT,
      grid: { stroke: themed("--grid"), width: 1 }, ticks: { stroke: themed("--grid"), width: 1, size: 4 },
    };
    const { label: xLabel, time = false, range: xRange } = this.xAxis;
    const { label: yLabel, log = false, range: yRange, size = 52 } = this.yAxis;
    this.plot = new uPlot({
      width: this.width, height: this.tallness || this.height, legend: { show: false }, bands, series: drawn,
      padding: [10, time ? 26 : 12, 0, 0],
      scales: {
        x: { time, ...(xRange ? { range: xRange } : {}) },
        y: { distr: log ? 3 : 1, ...(yRange && !log ? { range: yRange } : {}) },
      },
      axes: [
        { ...axis, label: xLabel, labelSize: xLabel ? 18 : 0, size: xLabel ? 26 : 28, space: 68, ...(time ? { values: times } : {}) },
        { ...axis, label: yLabel, labelSize: yLabel ? 18 : 0, size, space: 28, values: (_u, splits) => splits.map(short) },
      ],
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 7 }, ...(this.sync ? { sync: { key: this.sync } } : {}) },
      hooks: { setCursor: [(u) => this.moved(u)], drawClear: [(u) => this.under(u)], draw: [(u) => this.over(u)] },
    }, flat, this.holder);
  }

  /** Draw what lies under the curves: areas in x or y. */
  under(u) {
    const { ctx, bbox } = u;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    for (const area of this.areas()) {
      const [scale, low, high] = area.x ? ["x", ...area.x] : ["y", ...area.y];
      const a = u.valToPos(low, scale, true);
      const b = u.valToPos(high, scale, true);
      ctx.fillStyle = alpha(themed(area.colour), area.strength ?? 0.12);
      if (area.x) ctx.fillRect(Math.min(a, b), bbox.top, Math.abs(b - a), bbox.height);
      else ctx.fillRect(bbox.left, Math.min(a, b), bbox.width, Math.abs(b - a));
      if (area.text) {
        ctx.fillStyle = themed("--ink-2");
        ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
        ctx.textAlign = area.x ? "center" : "right";
        ctx.textBaseline = "top";
        if (area.x) ctx.fillText(area.text, (a + b) / 2, bbox.top + 4);
        else ctx.fillText(area.text, bbox.left + bbox.width - 6, Math.min(a, b) + 3);
      }
    }
    ctx.restore();
  }

  /** Draw error bars of points, and marks. */
  over(u) {
    const { ctx, bbox } = u;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    let at = 1;
    for (const one of this.series) {
      if (one.error && one.kind === "points") this.bars(u, at, themed(one.colour));
      at += one.error ? 3 : 1;
    }
    for (const mark of this.marks()) {
      const vertical = mark.x != null;
      const at_px = u.valToPos(vertical ? mark.x : mark.y, vertical ? "x" : "y", true);
      ctx.strokeStyle = themed(mark.colour ?? "--ink-2");
      ctx.lineWidth = 1.5 * devicePixelRatio;
      ctx.setLineDash([6 * devicePixelRatio, 4 * devicePixelRatio]);
      ctx.beginPath();
      ctx.moveTo(vertical ? at_px : bbox.left, vertical ? bbox.top : at_px);
      ctx.lineTo(vertical ? at_px : bbox.left + bbox.width, vertical ? bbox.top + bbox.height : at_px);
      ctx.stroke();
      ctx.setLineDash([]);
      ctx.fillStyle = themed(mark.colour ?? "--ink-2");
      ctx.font = `600 ${11 * devicePixelRatio}px system-ui, sans-serif`;
      ctx.textBaseline = "top";
      ctx.textAlign = "left";
      const wide = ctx.measureText(mark.text ?? "").width;
      const left = vertical ? Math.min(at_px + 5, bbox.left + bbox.width - wide - 3) : bbox.left + 6;
      ctx.fillText(mark.text ?? "", left, vertical ? bbox.top + bbox.height - 14 * devicePixelRatio : at_px + 3);
    }
    ctx.restore();
  }

  bars(u, at, colour) {
    const { ctx } = u;
    const [xs, low, high] = [u.data[0], u.data[at + 1], u.data[at + 2]];
    ctx.strokeStyle = colour;
    ctx.lineWidth = 1.6 * devicePixelRatio;
    ctx.beginPath();
    for (let i = 0; i < xs.length; i += 1) {
      if (low[i] == null || high[i] == null) continue;
      const x = u.valToPos(xs[i], "x", true);
      ctx.moveTo(x, u.valToPos(low[i], "y", true));
      ctx.lineTo(x, u.valToPos(high[i], "y", true));
    }
    ctx.stroke();
  }

  moved(u) {
    const next = u.cursor.left < 0 ? null : u.cursor.idx;
    if (next === this.index) return;
    this.index = next;
    this.tell();
  }

  key(event) {
    if (!this.plot || !this.data) return;
    const count = this.data.x.length;
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    let next = null;
    if (step) next = Math.min(count - 1, Math.max(0, (this.index ?? count - 1) + step * (event.shiftKey ? 10 : 1)));
    else if (event.key === "Home") next = 0;
    else if (event.key === "End") next = count - 1;
    else if (event.key === "Escape") return void this.plot.setCursor({ left: -10, top: -10 });
    if (next == null) return;
    event.preventDefault();
    this.plot.setCursor({ left: this.plot.valToPos(this.data.x[next], "x"), top: 1 });
  }

  /** Read out the place of the cursor; without one the last values stand in the label for a screen reader. */
  tell() {
    const { x, series } = this.data ?? { x: [] };
    const here = this.index != null && this.index < x.length;
    const at = here ? this.index : x.length - 1;
    if (at < 0) return;
    const told = this.series.flatMap((one, i) => {
      const value = series[i]?.v?.[at];
      if (value == null || !one.label) return [];
      const low = series[i].low?.[at];
      const sigma = one.error && low != null ? (series[i].high[at] - low) / 2 : null;
      return [`${one.label} ${one.tell ? one.tell(value, sigma) : format.withError(value, sigma, one.unit)}`];
    });
    const place = this.xAxis.time ? format.clock(x[at]) : `${format.significant(x[at], 4)} ${this.xAxis.unit ?? ""}`.trim();
    const text = `${place}: ${told.join(" · ")}`;
    setText(this.readout, here ? text : "\u00a0");
    setAttr(this.holder, "aria-label", `${this.name}. ${here ? "At" : "Last,"} ${text}. Arrow keys move a read-out.`);
  }
}

function alpha(colour, strength) {
  const hex = colour.replace("#", "");
  const [r, g, b] = [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16));
  return `rgba(${r},${g},${b},${strength})`;
}

function short(value) {
  if (value == null) return "";
  if (value !== 0 && (Math.abs(value) >= 1e5 || Math.abs(value) < 1e-3)) return format.significant(value, 1);
  return String(Number(value.toPrecision(6))).replace("-", "−");
}

function times(_u, splits, _axis, _space, increment) {
  return splits.map((wall_s) => format.clock(wall_s, { seconds: increment < 60 }).slice(-(increment < 60 ? 8 : 5)));
}
