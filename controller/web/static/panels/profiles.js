// Profiles across the layers, one plot for each line, with their errors, over those of the reference scan.

import { byId, setAttr, setText } from "../dom.js";
import * as format from "../format.js";
import { Plot } from "../plot.js";
import { describe } from "./maps.js";
import { asTable, table } from "./table.js";

const TINTS = ["--c5", "--c3", "--c4", "--c6"];

export function profiles(model) {
  const root = byId("profiles");
  const plots = new Map();

  const draw = () => {
    const shown = list(model);
    byId("profiles-empty").hidden = shown.length > 0;
    for (const [key, { plot }] of plots) {
      if (shown.some((product) => name(product) === key)) continue;
      plot.drop();
      plot.root.remove();
      plots.delete(key);
    }
    shown.forEach((product, i) => {
      let entry = plots.get(name(product));
      if (!entry) {
        entry = { product };
        entry.plot = product.key ? makeDifference(entry, product) : make(entry, product, i === 0);
        plots.set(name(product), entry);
      }
      entry.product = product;
      entry.plot.show(product.key ? difference(product) : aligned(product));
    });
    const order = shown.map((product) => plots.get(name(product)).plot.root);
    if (order.some((figure, i) => root.children[i] !== figure)) root.append(...order);
    const newest = shown[0];
    const lost = model.old();
    setText(byId("profiles-age"), newest ? `${lost ? "OLD: " : ""}${describe(newest, model)}` : "");
    setAttr(byId("profiles-age"), "data-stale", lost);
    setAttr(byId("panel-profiles"), "data-stale", lost);
    fill();
  };

  const fill = asTable(byId("profiles-table"), () => list(model).filter(({ key }) => !key).map((product) => {
    const { position_um: x, values, sigma } = product.arrays;
    const rows = Array.from(x.data, (um, i) => [format.significant(um, 4), format.withError(values.data[i], sigma?.data[i])]);
    return table(`${product.element}, ${product.unit}`, [{ title: "position, µm", n: true }, { title: `${product.element}, ${product.unit}`, n: true }], rows);
  }));
  model.when(["product:profile/*", "link", "host", "state:run/id"], draw);
  return () => plots.forEach(({ plot }) => plot.rebuild());
}

function list(model) {
  const found = [...model.products.values()].filter((product) => product.stream.startsWith("profile/") && product.arrays.values?.data.length);
  found.sort((a, b) => Number(b.element === "Li") - Number(a.element === "Li") || a.stream.localeCompare(b.stream));
  const at = found.findIndex((product) => product.element === "Li" && product.arrays.reference_values?.data.length);
  if (at >= 0) found.splice(at + 1, 0, { ...found[at], key: "difference" }); // the question is what moved
  return found;
}

function name({ stream, key = "" }) {
  return stream + key;
}

function makeDifference(entry, { element, unit }) {
  return new Plot({
    name: `${element} less the reference, ${unit}`, height: 150, sync: "profiles",
    x: { label: "along the normal of the layers, µm", unit: "µm" }, y: {},
    series: [{ label: "difference", unit, colour: "--c4", error: true }],
    areas: () => tints(entry.product, false), marks: () => [{ y: 0, colour: "--c6" }],
  });
}

/** Return what is more and less than in the reference; errors in quadrature. */
function difference({ arrays }) {
  const x = Array.from(arrays.position_um.data);
  const at = Array.from(arrays.reference_position_um.data);
  const then = spread([...new Set([...x, ...at])].sort((a, b) => a - b), at, banded(arrays.reference_values.data, arrays.reference_sigma?.data));
  const places = [...new Set([...x, ...at])].sort((a, b) => a - b);
  const now = banded(arrays.values.data, arrays.sigma?.data);
  const part = { v: [], low: [], high: [] };
  x.forEach((um, i) => {
    const k = places.indexOf(um);
    const known = now.v[i] != null && then.v[k] != null;
    const value = known ? now.v[i] - then.v[k] : null;
    const sigma = known ? Math.hypot(now.high[i] - now.v[i], then.high[k] - then.v[k]) : 0;
    part.v.push(value);
    part.low.push(known ? value - sigma : null);
    part.high.push(known ? value + sigma : null);
  });
  return { x, series: [part] };
}

function tints({ layers_um = [], layers = [] }, named) {
  return layers_um.flatMap((bounds, i) => (bounds ? [{ x: bounds, colour: TINTS[i % TINTS.length], strength: 0.1, text: named ? layers[i] ?? "" : "" }] : []));
}

function make(entry, product, first) {
  const { element, unit } = product;
  return new Plot({
    name: `${element}${unit ? `, ${unit}` : ""}`, height: 150, sync: "profiles",
    x: { label: "along the normal of the layers, µm", unit: "µm" }, y: { range: (_u, low, high) => [Math.min(0, low), high > 0 ? high * 1.12 : 1] },
    series: [
      { label: element, unit, colour: "--c1", error: true },
      { label: "reference", unit, colour: "--c2", kind: "dash", error: true, width: 1.5, spanGaps: true },
    ],
    areas: () => tints(entry.product, first),
  });
}

/** Return both profiles on the positions of the present one and, where the reference has others, of both. */
function aligned({ arrays }) {
  const x = Array.from(arrays.position_um.data);
  const now = banded(arrays.values.data, arrays.sigma?.data);
  const at = arrays.reference_position_um?.data;
  if (!at?.length) return { x, series: [now, { v: x.map(() => null), low: x.map(() => null), high: x.map(() => null) }] };
  const then = banded(arrays.reference_values.data, arrays.reference_sigma?.data);
  const all = [...new Set([...x, ...at])].sort((a, b) => a - b);
  return { x: all, series: [spread(all, x, now), spread(all, Array.from(at), then)] };
}

function banded(values, sigma) {
  const known = (value) => (value === value ? value : null);
  const v = Array.from(values, known);
  return { v, low: v.map((value, i) => (value == null ? null : value - (sigma?.[i] ?? 0))), high: v.map((value, i) => (value == null ? null : value + (sigma?.[i] ?? 0))) };
}

/** Put values onto more positions; linear in between, so that a line stays a line. */
function spread(all, x, part) {
  const place = (values) => {
    let i = 0;
    return all.map((at) => {
      while (i + 1 < x.length && x[i + 1] <= at) i += 1;
      if (x[i] === at) return values[i];
      if (at < x[i] || i + 1 >= x.length || values[i] == null || values[i + 1] == null) return null;
      return values[i] + ((at - x[i]) / (x[i + 1] - x[i])) * (values[i + 1] - values[i]);
    });
  };
  return { v: place(part.v), low: place(part.low), high: place(part.high) };
}
