// The spectrum of each detector: beam on and off, fit and continuum, the windows of the lines; lin or log.

import { byId, setAttr, setText } from "../dom.js";
import * as format from "../format.js";
import { Plot } from "../plot.js";
import { describe } from "./maps.js";
import { asTable, table } from "./table.js";

const MARGIN = 0.6; // "around the lines": this much more than their windows on each side
const MOST = 2048; // points drawn; neighbours are added up beyond that

export function spectra(model) {
  const root = byId("spectra");
  const [log, near] = [byId("spectra-log"), byId("spectra-near")];
  const plots = new Map();

  const draw = () => {
    const shown = list(model);
    byId("spectra-empty").hidden = shown.length > 0;
    for (const [key, { plot }] of plots) {
      if (shown.some((product) => product.stream === key)) continue;
      plot.drop();
      plot.root.remove();
      plots.delete(key);
    }
    for (const product of shown) {
      let entry = plots.get(product.stream);
      if (!entry) {
        entry = { product };
        entry.plot = make(entry, product);
        plots.set(product.stream, entry);
        root.append(entry.plot.root);
        axes(entry);
      }
      entry.product = product;
      entry.plot.show(data_of(product, log.checked, near.checked));
    }
    const lost = model.old();
    setText(byId("spectra-age"), shown[0] ? `${lost ? "OLD: " : ""}${describe(shown[0], model)}` : "");
    setAttr(byId("spectra-age"), "data-stale", lost);
    setAttr(byId("panel-spectra"), "data-stale", lost);
    fill();
  };
  const axes = ({ plot }) => plot.change({ y: { log: log.checked, size: 58, range: (_u, _low, high) => [0, high * 1.08 || 1] } });
  const again = () => {
    plots.forEach(axes);
    draw();
  };

  const fill = asTable(byId("spectra-table"), () => list(model).map((product) => table(
    `${product.detector ?? product.stream}: lines in their windows`,
    [{ title: "line" }, { title: "window, keV", n: true }, { title: "gross counts", n: true }, { title: "net counts", n: true }],
    (product.windows ?? []).map((window) => [window.label || window.element, `${format.fixed(window.low_kev, 2)} to ${format.fixed(window.high_kev, 2)}`,
      String(inside(product, window)), format.withError(window.net, window.sigma)]))));
  log.addEventListener("change", again);
  near.addEventListener("change", again);
  model.when(["product:spectrum/*", "link", "host", "state:run/id"], draw);
  return () => plots.forEach(({ plot }) => plot.rebuild());
}

function list(model) {
  return [...model.products.values()].filter(({ stream, arrays }) => stream.startsWith("spectrum/") && arrays.energy_kev?.data.length)
    .sort((a, b) => a.stream.localeCompare(b.stream));
}

function inside({ arrays }, { low_kev, high_kev }) {
  let sum = 0;
  arrays.energy_kev.data.forEach((kev, i) => { if (kev >= low_kev && kev < high_kev) sum += arrays.values.data[i]; });
  return sum;
}

function make(entry, product) {
  const whole = (value) => format.significant(value, 4);
  return new Plot({
    name: (product.detector ?? product.stream.slice(9)).toUpperCase(), height: 190,
    x: { label: "energy, keV", unit: "keV" }, y: { log: true, size: 58 },
    series: [
      { label: "beam on", colour: "--c1", kind: "steps", width: 1.2, tell: whole },
      { label: "beam off", colour: "--c6", kind: "steps", width: 1.2, tell: whole },
      { label: "fit", colour: "--c2", width: 1.8, tell: whole },
      { label: "continuum", colour: "--c3", kind: "dash", width: 1.5, tell: whole },
    ],
    areas: () => (entry.product.windows ?? []).flatMap((window) => [
      { x: [window.low_kev, window.high_kev], colour: "--c2", strength: 0.16, text: window.label || window.element },
      ...(window.sidebands ?? []).map((band) => ({ x: band, colour: "--c6", strength: 0.12 })),
    ]),
  });
}

/** Return what is drawn: cut to the lines where asked, added up to not many more points than pixels. */
function data_of({ arrays, windows = [] }, log, near) {
  const kev = arrays.energy_kev.data;
  let [from, to] = [0, kev.length];
  if (near && windows.length) {
    const edges = windows.flatMap((w) => [w.low_kev, w.high_kev, ...(w.sidebands ?? []).flat()]);
    const [low, high] = [Math.min(...edges), Math.max(...edges)];
    const more = (high - low) * MARGIN * 0.5 + 0.2;
    from = Math.max(0, kev.findIndex((value) => value >= low - more));
    const end = kev.findIndex((value) => value > high + more);
    to = end < 0 ? kev.length : end;
  } else {
    while (to > 1 && !arrays.values.data[to - 1]) to -= 1; // nothing above the last count
  }
  const by = Math.max(1, Math.ceil((to - from) / MOST));
  const x = [];
  for (let i = from; i + by <= to; i += by) x.push((kev[i] + kev[i + by - 1]) / 2);
  const part = (array) => {
    const v = x.map((_, k) => {
      if (!array) return null;
      let sum = 0;
      for (let i = from + k * by; i < from + (k + 1) * by; i += 1) sum += array.data[i];
      return Number.isFinite(sum) && (!log || sum > 0) ? sum : null;
    });
    return { v };
  };
  return { x, series: [part(arrays.values), part(arrays.beam_off), part(arrays.fit), part(arrays.continuum)] };
}
