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
      if (shown.some((product) => product.stream === key)) continue;
      plot.drop();
      plot.root.remove();
      plots.delete(key);
    }
    shown.forEach((product, i) => {
      let entry = plots.get(product.stream);
      if (!entry) {
        entry = { product };
        entry.plot = make(entry, product, i === 0);
        plots.set(product.stream, entry);
        root.append(entry.plot.root);
      }
      entry.product = product;
      entry.plot.show(aligned(product));
    });
    const newest = shown[0];
    const lost = Boolean(model.lost());
    setText(byId("profiles-age"), newest ? `${lost ? "OLD: " : ""}${describe(newest, model)}` : "");
    setAttr(byId("profiles-age"), "data-stale", lost);
    setAttr(byId("panel-profiles"), "data-stale", lost);
    fill();
  };

  const fill = asTable(byId("profiles-table"), () => list(model).map((product) => {
    const { position_um: x, values, sigma } = product.arrays;
    const rows = Array.from(x.data, (um, i) => [format.significant(um, 4), format.withError(values.data[i], sigma?.data[i])]);
    return table(`${product.element}, ${product.unit}`, [{ title: "position, µm", n: true }, { title: `${product.element}, ${product.unit}`, n: true }], rows);
  }));
  model.when(["product:profile/*", "link", "host", "state:run/id"], draw);
  return () => plots.forEach(({ plot }) => plot.rebuild());
}

function list(model) {
  const found = [...model.products.values()].filter((product) => product.stream.startsWith("profile/") && product.arrays.values?.data.length);
  return found.sort((a, b) => Number(b.element === "Li") - Number(a.element === "Li") || a.stream.localeCompare(b.stream));
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
    areas: () => (entry.product.layers_um ?? []).flatMap((bounds, i) => (
      bounds ? [{ x: bounds, colour: TINTS[i % TINTS.length], strength: 0.1, text: first ? entry.product.layers?.[i] ?? "" : "" }] : [])),
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
