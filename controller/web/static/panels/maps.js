// Maps side by side: elements and lithium, the state of charge, the change since the reference, beam and detectors.
// Pointing at one place marks it in all of them.

import { changeInSigma, total } from "../change.js";
import { byId, setAttr, setText } from "../dom.js";
import * as format from "../format.js";
import { MapView } from "../map.js";
import { asTable, table } from "./table.js";

const NAMES = {
  Li: "Lithium", Co: "Cobalt", P: "Phosphorus", Ni: "Nickel", Mn: "Manganese", Fe: "Iron", La: "Lanthanum", Zr: "Zirconium",
  Ta: "Tantalum", S: "Sulphur", charge: "Beam charge", dose: "Protons per area",
};
const GAP_PX = 18;
const LEAST_PX = 84;
const MOST_ON_WALL = 4;

export function maps(model) {
  const root = byId("maps");
  const views = new Map();
  let shown_order = [];
  const [what, colours] = [byId("maps-what"), byId("maps-colours")];
  const point = (x_um, y_um) => views.forEach((view) => view.mark(x_um, y_um));

  const draw = () => {
    const shown = choose(model, what.value, colours.value);
    byId("maps-empty").hidden = shown.length > 0;
    setText(byId("maps-empty"), empty(model, what.value));
    for (const [key, view] of views) {
      if (shown.some((one) => one.key === key)) continue;
      view.root.remove();
      views.delete(key);
    }
    for (const one of shown) {
      let view = views.get(one.key);
      if (!view) {
        view = new MapView({ name: one.name, unit: one.unit, onPoint: point });
        views.set(one.key, view);
      }
      view.show(one.data, one.options);
    }
    const order = shown.map((one) => views.get(one.key).root);
    if (order.some((figure, i) => root.children[i] !== figure)) root.append(...order);
    shown_order = shown.map((one) => one.key);
    fit();
    as_of();
    fill();
  };

  const fit = () => {
    const list = shown_order.map((key) => views.get(key)).filter(Boolean);
    list.forEach((view, i) => { view.root.hidden = document.documentElement.dataset.view === "wall" && i >= MOST_ON_WALL; });
    if (!list.length) return;
    const wide = root.clientWidth;
    if (!wide) return;
    const [w_um, h_um] = list[0].extent();
    const wall = document.documentElement.dataset.view === "wall";
    const tall = wall ? Math.max(120, root.clientHeight - 62) : wide < 500 ? 250 : 340;
    const flat = w_um > 1.4 * h_um;
    const across = Math.min(wall ? MOST_ON_WALL : list.length, list.length, Math.max(1, Math.floor((wide + GAP_PX) / ((flat ? 320 : LEAST_PX + 62) + GAP_PX))));
    const each = Math.floor((wide - GAP_PX * (across - 1)) / across);
    for (const view of list) {
      view.root.style.width = `${each}px`;
      view.fit(each, tall);
    }
  };

  const as_of = () => {
    const newest = [...model.products.values()].filter((one) => /^map\/|^soc$/.test(one.stream)).reduce((a, b) => (a && (a.t ?? 0) > (b.t ?? 0) ? a : b), null);
    const lost = model.old();
    const text = newest ? describe(newest, model) : "";
    setText(byId("maps-age"), lost && newest ? `OLD: ${text}` : text);
    setAttr(byId("maps-age"), "data-stale", lost);
    setAttr(byId("panel-maps"), "data-stale", lost);
  };

  const fill = asTable(byId("maps-table"), () => [table("Net counts in the whole map, and over its pixels",
    [{ title: "map" }, { title: "scan" }, { title: "passes", n: true }, { title: "sum", n: true }, { title: "lowest", n: true }, { title: "median", n: true }, { title: "highest", n: true }, { title: "unit" }],
    choose(model, what.value, colours.value).map(({ name, unit, data, product }) => {
      const known = Float64Array.from(data.values).filter((value) => value === value).sort();
      const sum = unit === "counts" ? sumWithError(data) : format.DASH;
      return [name, product?.name ?? "", String(product?.passes?.length ?? ""), sum, format.significant(known[0]),
        format.significant(known[known.length >> 1]), format.significant(known.at(-1)), unit];
    }))]);

  what.addEventListener("change", draw);
  colours.addEventListener("change", draw);
  new ResizeObserver(fit).observe(root);
  model.when(["product:*", "link", "host", "state:run/id"], draw);
  setInterval(as_of, 1000);
  return () => {
    fit();
    views.forEach((view) => view.draw());
  };
}

function sumWithError({ values, sigma }) {
  const error = sigma ? Math.sqrt(sigma.reduce((sum, one) => sum + (one === one ? one * one : 0), 0)) : null;
  return format.withError(total(values), error);
}

/** Return when and from what a product is, in words. */
export function describe(product, model) {
  const passes = product.passes ?? [];
  const count = !passes.length ? "" : product.partial ? `pass ${passes.at(-1)} still running` : format.plural(passes.length, "pass", "passes");
  const scan = product.name ? `“${product.name}”` : "";
  const when = product.t ? (model.ended() ? format.clock(product.t) : `${format.age(model.now() - product.t)} ago`) : "";
  return [[scan, count].filter(Boolean).join(" "), product.hist ? "came late" : "", when].filter(Boolean).join(", ");
}

function empty(model, what) {
  if (what === "change") return model.references.size ? "No scan after the reference yet." : "There is no map of the reference scan here.";
  return "No pass has come yet.";
}

function choose(model, what, colours) {
  if (what === "change") return changes(model);
  const found = [];
  for (const [stream, product] of model.products) {
    const element = stream.startsWith("map/") ? stream.slice(4) : stream === "soc" ? "soc" : null;
    if (!element || !product.arrays.values) continue;
    const beam = /^(charge|dose|live_|pile_up_)/.test(element);
    if (beam !== (what === "beam")) continue;
    found.push(one(stream, element, product, colours));
  }
  if (what === "elements") found.push(...changes(model).filter(({ key }) => key === "change map/Li"));
  const rank = ({ key }) => ["map/Li", "change map/Li", "soc"].indexOf(key) + 1 || 9;
  return found.sort((a, b) => rank(a) - rank(b) || a.key.localeCompare(b.key));
}

function one(stream, element, product, colours) {
  const soc = element === "soc";
  const unit = soc ? "%" : product.unit === "1" ? "" : product.unit;
  const data = data_of(product);
  if (soc) {
    data.values = data.values.map((value) => value * 100);
    data.sigma = data.sigma?.map((value) => value * 100);
  }
  const note = soc ? `%, regions of ${product.minimum_counts ?? ""} counts` : `${unit || "fraction"}${product.sum_unit ?? ""}`;
  return {
    key: stream, name: title(element), unit, product, data,
    options: { colours, note, fromZero: !soc },
  };
}

function title(element) {
  if (element === "soc") return "State of charge";
  const detector = element.match(/^(live|pile_up)_(.*)$/);
  if (detector) return `${detector[1] === "live" ? "Live time" : "Pile-up"} ${detector[2].toUpperCase()}`;
  return NAMES[element] ? `${NAMES[element]}${element.length <= 2 ? ` (${element})` : ""}` : element;
}

function data_of({ arrays }) {
  return {
    shape: arrays.values.shape, values: arrays.values.data, sigma: arrays.sigma?.data, gross: arrays.gross?.data,
    x_um: arrays.x_um?.data, y_um: arrays.y_um?.data,
  };
}

function changes(model) {
  const found = [];
  for (const [stream, product] of model.products) {
    const then = model.references.get(stream);
    if (!/^map\/[A-Z]/.test(stream) || !then || then.scan === product.scan || !product.arrays.sigma) continue;
    const [a, b] = [data_of(product), data_of(then)];
    const [q, p] = [exposure(model.products, product), exposure(model.references, then)];
    if (!q || !p || a.shape.join() !== b.shape.join() || !a.gross || !b.gross) continue;
    const { values, block } = changeInSigma(a, b, q, p);
    found.push({
      key: `change ${stream}`, name: `Change of ${stream.slice(4)}`, unit: "σ", product, data: { ...a, values, sigma: null },
      options: { colours: "change", range: [-5, 5], note: block > 1 ? `in σ, ${block} × ${block} pixels together` : "in σ" },
    });
  }
  return found;
}

/** Return the beam charge of the scan a product is of; of the same passes, or scaled to them. */
function exposure(products, product) {
  const charge = products.get("map/charge");
  if (!charge || charge.scan !== product.scan) return null;
  const sum = total(charge.arrays.values.data);
  return (sum / Math.max(1, charge.passes?.length ?? 1)) * Math.max(1, product.passes?.length ?? 1);
}
