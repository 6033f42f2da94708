// How far the counts are, each against what was wished for; the totals of the layers; passes and what was quarantined.

import { byId, h, setText } from "../dom.js";
import * as format from "../format.js";
import { table } from "./table.js";

const NAMES = { soc_beam: "the state of charge", x: "x", li_relative: "the lithium signal", li_relative_charge: "the lithium signal" };

const KINDS = {
  counts: (goal) => `${goal.of} counts in the ${goal.layer}`, uncertainty: (goal) => `error of ${NAMES[goal.of] ?? goal.of}, ${goal.layer}`,
  passes: () => "passes", dose: (goal) => `dose${goal.layer ? ` in the ${goal.layer}` : ""}`,
};

export function counts(model) {
  const root = byId("counts");
  let before = "";
  const draw = () => {
    const goals = model.state("result/goals");
    const layers = model.state("result/counts");
    const key = JSON.stringify([model.state("scan/now").v?.scan, goals.v, goals.q, layers.v, layers.q, model.passes.length, model.old()]);
    if (key === before) return;
    before = key;
    const parts = [];
    const scan = model.state("scan/now").v?.scan;
    if (goals.v?.length && !model.ended() && (scan == null || goals.v[0].scan === scan)) parts.push(goalTable(goals));
    if (layers.v && Object.keys(layers.v).length) parts.push(layerTable(layers.v));
    if (model.passes.length) parts.push(passTable(model.passes));
    byId("counts-empty").hidden = parts.length > 0;
    root.replaceChildren(...parts);
    const bad = model.passes.filter((one) => !one.good).length;
    const text = model.passes.length ? `${format.plural(model.passes.length, "pass", "passes")}${bad ? `, ${bad} quarantined` : ", all good"}` : "";
    setText(byId("counts-age"), text ? `${model.old() ? "OLD: " : ""}${text}` : "");
  };
  model.when(["state:result/*", "state:scan/now", "passes", "states", "link", "host"], draw);
}

function goalTable({ v }) {
  const built = table("Goals of this scan", [{ title: "goal" }, { title: "now", n: true }, { title: "wanted", n: true }], v.map((goal) => [
    KINDS[goal.kind]?.(goal) ?? goal.kind, told(goal.now, goal), told(goal.goal, goal)]));
  built.querySelectorAll("tbody tr").forEach((row, i) => {
    const part = v[i].fraction;
    if (part == null) return;
    const meter = h("span.meter", { "data-full": part >= 1, role: "img", "aria-label": `${Math.round(part * 100)} % of the goal` }, h("i", {}));
    meter.firstChild.style.width = `${Math.min(100, Math.max(0, part * 100))}%`;
    row.firstChild.append(meter);
  });
  return built;
}

/** The first words of a reason; all of it stands in the events. */
function short(why = "") {
  return why.length > 48 ? `${why.slice(0, 46).trimEnd()} …` : why;
}

function told(value, { kind, unit }) {
  if (value == null) return format.DASH;
  if (kind === "passes") return String(Math.floor(value));
  if (kind === "uncertainty") return unit === "1" || !unit ? format.percent(value) : format.text(value, unit);
  return `${format.significant(value, 4)}${unit && unit !== "1" && unit !== "counts" ? ` ${unit}` : ""}`;
}

function layerTable(layers) {
  const elements = [...new Set(Object.values(layers).flatMap((found) => Object.keys(found)))];
  return table("Net counts of this scan, with their errors", [{ title: "layer" }, ...elements.map((title) => ({ title, n: true }))],
    Object.entries(layers).map(([layer, found]) => [layer, ...elements.map((one) => (found[one] ? format.withError(...found[one]) : format.DASH))]));
}

function passTable(passes) {
  return table("Last passes", [{ title: "pass" }, { title: "ended" }, { title: "events", n: true }, { title: "beam", n: true }, { title: "verdict" }],
    passes.slice(-6).reverse().map((one) => [`${one.name ?? one.scan} ${one.n}`, format.clock(one.t),
      Object.values(one.events ?? {}).reduce((sum, count) => sum + count, 0).toLocaleString("en").replace(/,/g, "\u202f"),
      one.charge_coulomb == null ? format.DASH : format.significant(one.charge_coulomb * 1e9, 3) + " nC", one.good ? "good" : `quarantined: ${short(one.why)}`]));
}
