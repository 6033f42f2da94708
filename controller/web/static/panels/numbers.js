// The readings in large figures, each with its quality: what is old or missing is hatched and says so.

import { byId, h, keyed, setAttr, setText } from "../dom.js";
import * as format from "../format.js";
import { AT_THE_END } from "../model.js";

const LATE_S = 5; // a good value this old shows its age

const READINGS = [
  { name: "heater/temperature", label: "Temperature", unit: "K", more: (model, { v, e }) => {
    const target = model.value("heater/target");
    return [target == null ? "no target" : `target ${format.text(target, "K")}`, e ? `± ${format.fixed(e, 1)} K` : "", format.celsius(v)];
  } },
  { name: "cell/voltage", label: "Cell voltage", unit: "V", more: (model) => [phase(model)] },
  { name: "cell/current", label: "Current", unit: "A", more: (model, { v }) => [v == null ? "" : v > 0 ? "charging" : v < 0 ? "discharging" : "no current"] },
  { name: "cell/charge", label: "Charge passed", unit: "C", more: (_model, { v, e }) => [e ? `± ${format.text(e, "C")}` : "", v == null ? "" : `${format.significant(v, 4)} C`] },
  { name: "beam/current", label: "Beam", unit: "A", more: (model) => {
    const blanked = model.value("beam/blanked");
    return [blanked == null ? "" : blanked ? "blanked" : "on the sample", model.value("beam/permit") === false ? "no permit" : ""];
  } },
];

export function numbers(model) {
  const list = byId("numbers");
  const draw = () => {
    const shown = READINGS.filter(({ name }) => model.states.has(name));
    keyed(list, [...shown, ...scan(model)], ({ name }) => name,
      ({ label }) => h("div.number", {}, h("dt", {}, label), h("dd.value", {}, h("span.figure", {}), h("span.unit", {})), h("dd.more", {})),
      (element, reading) => (reading.told ? plain(element, reading) : one(element, reading, model)));
  };
  model.when(["state:*", "states", "link", "host"], draw);
  setInterval(draw, 1000);
}

function one(element, { name, unit, more }, model) {
  const state = model.state(name);
  const old_s = state.t == null ? null : model.now() - state.t;
  const good = state.q === "good" || state.q === "uncertain";
  const idle = state.q === "bad" && resting(model, name);
  const { text, unit: shown } = format.quantity(state.v, state.unit || unit);
  setAttr(element, "data-quality", idle ? "idle" : state.q);
  setText(element.querySelector(".figure"), state.q === "bad" || state.q === "unknown" ? format.DASH : text);
  setText(element.querySelector(".unit"), shown);
  const beside = good ? more(model, state).filter(Boolean) : [idle ? "open circuit: not measured" : trouble(state, old_s)];
  if (good && old_s > LATE_S) beside.push(`${format.age(old_s)} old`);
  setText(element.querySelector(".more"), format.notes(beside));
}

/** Whether nobody measures this now because the circuit is open. */
function resting(model, name) {
  const now = model.value("cell/phase");
  return now === "open circuit" ? name === "cell/current" || name === "cell/voltage" : now === "ocv" && name === "cell/current";
}

function trouble({ v, q, why }, old_s) {
  if (q === "bad" || q === "unknown") return `no valid value${why && why !== "not heard" ? `: ${why}` : ""}`;
  if (why === AT_THE_END) return v == null ? `not measured ${why}` : why;
  return `${old_s == null ? "old" : `${format.age(old_s)} old`}${why ? `: ${why}` : ""}`;
}

function phase(model) {
  const now = model.value("cell/phase");
  return { cc: "constant current", cv: "constant voltage", eis: "impedance", geis: "impedance" }[now] ?? now ?? "";
}

/** The scan as a reading of its own, as long as one runs. */
function scan(model) {
  const now = model.state("scan/now");
  if (!now.v || model.ended()) return [];
  const { name, n, line, lines, quarantined } = now.v;
  const more = [lines > 1 ? `line ${line} of ${lines}` : "", quarantined ? `${quarantined} quarantined` : ""];
  return [{ name: "scan", label: `Scan ${name}`, told: `pass ${n}`, more: format.notes(more), quality: now.q }];
}

function plain(element, { label, told, more, quality }) {
  setAttr(element, "data-quality", quality);
  setText(element.querySelector("dt"), label);
  setText(element.querySelector(".figure"), told);
  setText(element.querySelector(".more"), more);
}
