// Instruments and lines: who answers, how old its last word is, what went wrong on its line.

import { byId, h, icon } from "../dom.js";
import * as format from "../format.js";
import { table } from "./table.js";

const WRONG = [["timeouts", "timed out"], ["bad_replies", "bad"], ["losses", "lost"], ["errors", "errors"]];
const ICONS = { ok: "ok", warn: "warn", alarm: "alarm", unknown: "unknown" };

export function health(model) {
  const root = byId("health");
  let before = "";
  const draw = () => {
    const devices = instruments(model);
    const lines = wires(model);
    const counters = Object.entries(model.state("run/counters").v ?? {}).filter(([, count]) => count);
    const key = JSON.stringify([devices, lines, counters]);
    if (key === before) return;
    before = key;
    const parts = [];
    if (devices.length) parts.push(withStates(table("Instruments", [{ title: "instrument" }, { title: "answers" }, { title: "last word", n: true }],
      devices.map((one) => [one.name, one.text, one.age])), devices));
    if (lines.length) parts.push(withStates(table("Lines", [{ title: "line" }, { title: "trouble" }, { title: "reply, half / 99 of 100", n: true }],
      lines.map((one) => [one.name, one.text, one.fast])), lines));
    if (counters.length) parts.push(table("Counted in this run", [{ title: "what" }, { title: "times", n: true }], counters.map(([name, count]) => [name.replaceAll("_", " "), String(count)])));
    if (!parts.length) parts.push(h("p.empty", {}, "Nothing has been heard of an instrument yet."));
    root.replaceChildren(...parts);
  };
  model.when(["state:run/*", "state:line-*", "state:heater/*", "state:cell/*", "describe", "states", "link", "host"], draw);
  setInterval(draw, 2000);
}

function withStates(built, rows) {
  built.querySelectorAll("tbody tr").forEach((row, i) => {
    const cell = row.children[1];
    const text = cell.textContent;
    const state = h("span.state", { "data-level": rows[i].level }, icon(ICONS[rows[i].level]), h("span", {}, text));
    cell.replaceChildren(state);
  });
  return built;
}

/** Every module of ``describe`` that measures: the newest of its states, the worst of their qualities. */
function instruments(model) {
  const lost = Boolean(model.lost());
  const found = [];
  const told = model.state("run/instruments").v ?? {};
  for (const [name, module] of Object.entries(model.describe?.modules ?? {})) {
    if (!module.driver && !(module.roles ?? []).length) continue;
    if (name.startsWith("line-")) continue;
    const states = [...model.states].filter(([key]) => key.startsWith(`${name}/`) && module.parameters?.[key.slice(name.length + 1)]).map(([key]) => model.state(key));
    const newest = states.reduce((t, state) => Math.max(t, state.t ?? 0), 0);
    const idle = name === "cell" && ["open circuit", "ocv"].includes(model.value("cell/phase")); // no current to measure
    const bad = idle ? 0 : states.filter((state) => state.q === "bad").length;
    const stale = states.filter((state) => state.q === "stale").length;
    const level = lost || !states.length ? "unknown" : stale === states.length ? "alarm" : bad || stale ? "warn" : "ok";
    const words = { unknown: model.ended() ? "run ended" : "not known", alarm: "silent", warn: stale ? "partly silent" : "no valid value", ok: "yes" }[level];
    const device = Object.values(told).find((one) => one.role === name || one.role?.includes?.(name));
    const about = module.driver ? ` (${module.driver}${device?.identity?.serial ? `, ${device.identity.serial}` : ""})` : "";
    const problems = model.state(`${name}/problems`).v;
    found.push({ name: name + about, level: problems && level === "ok" ? "warn" : level, text: problems || words, age: newest ? ago(model.now() - newest) : format.DASH });
  }
  return found;
}

function wires(model) {
  const names = new Set([...model.states.keys()].filter((key) => key.startsWith("line-")).map((key) => key.split("/")[0]));
  const lost = Boolean(model.lost());
  return [...names].sort().map((name) => {
    const value = (what) => model.state(`${name}/${what}`).v;
    const requests = value("requests");
    const named = WRONG.slice(0, -1).reduce((sum, [what]) => sum + (value(what) ?? 0), 0); // the errors are all of them
    const wrong = WRONG.filter(([what]) => what !== "errors" || value(what) > named).filter(([what]) => value(what) > 0).map(([what, text]) => `${value(what)} ${text}`);
    const [half, most] = [value("p50_ms"), value("p99_ms")];
    return {
      name: name.slice(5), level: lost ? "unknown" : wrong.length ? "warn" : "ok",
      text: lost && !model.ended() ? "not known" : wrong.length ? `${wrong.join(", ")}${requests ? ` of ${requests}` : ""}` : requests ? `none in ${requests}` : "none",
      fast: half == null ? format.DASH : `${format.significant(half, 2)} / ${format.significant(most, 2)} ms`,
    };
  });
}

/** Ages in steps, so that the table is not made anew every second. */
function ago(seconds) {
  return seconds < 5 ? "now" : seconds < 60 ? `${Math.floor(seconds / 10) * 10} s` : format.duration(seconds);
}
