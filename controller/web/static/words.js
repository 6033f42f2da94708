// The three answers in plain words. Pure: from the model to {level, icon, word, text, ...}; nothing here draws.
// A level is "ok", "info", "warn", "alarm" or "unknown". What is not known is never "ok".

import * as format from "./format.js";

export const RESOLVED_SIGMA = 3; // as edge/soc.py: a change is called resolved from here
export const AGREE_Z = 2; // beam and charge are said to agree up to here

const CHANNELS = { // what a person calls them
  "heater/temperature": "temperature", "cell/voltage": "cell voltage", "cell/current": "cell current", "cell/charge": "charge",
};

/** Return what each output does: [{name, text, on: true | false | null}]. */
export function outputs(model) {
  const told = [];
  const value = (name) => model.last(name); // after the end: as they were left
  const add = (name, on, text) => told.push({ name, on, text: on == null ? "not known" : text });
  if (model.states.has("beam/relay") || model.states.has("heater/output")) {
    const relay = value("beam/relay");
    const output = value("heater/output");
    const on = model.states.has("beam/relay") ? relay : output == null ? null : output > 0;
    add("Heater", on, on ? `on${output == null ? "" : `, ${format.fixed(output * 100, 0)} %`}` : "off");
  }
  if (model.states.has("cell/phase")) {
    const phase = value("cell/phase");
    const open = phase === "open circuit" || phase === "ocv";
    add("Cell", phase == null ? null : !open, open ? "open circuit" : String(phase).toUpperCase());
  }
  if (model.states.has("beam/blanked")) {
    const blanked = value("beam/blanked");
    add("Beam", blanked == null ? null : !blanked, blanked ? "blanked" : "on sample");
  }
  if (model.states.has("beam/shutter")) {
    const open = value("beam/shutter");
    add("Shutter", open, open ? "open" : "closed");
  }
  return told;
}

/** Return the limit that is nearest, in words, with the room that is left; null where none can be told. */
export function nearestLimit(model) {
  let best = null;
  for (const rule of model.value("guard/rules") ?? []) {
    if (!rule.channel) continue;
    const value = model.value(rule.channel);
    if (typeof value !== "number") continue;
    const span = rule.low != null && rule.high != null ? rule.high - rule.low : Math.abs(rule.high ?? rule.low) || 1;
    for (const [limit, room] of [[rule.high, rule.high - value], [rule.low, value - rule.low]]) {
      if (limit == null || !Number.isFinite(room)) continue;
      const share = room / span;
      if (!best || share < best.share) best = { share, rule, limit, value, room };
    }
  }
  if (!best) return null;
  const { rule, limit, value } = best;
  const name = CHANNELS[rule.channel] ?? rule.channel;
  return { share: best.share, text: `Nearest limit: ${name} ${format.text(value, rule.unit)}, trips at ${format.text(limit, rule.unit)}.` };
}

/** Is it safe? */
export function safe(model) {
  const lost = model.lost();
  const latched = model.alarms.filter((alarm) => alarm.latch !== false);
  const held = model.alarms.filter((alarm) => alarm.latch === false);
  if (lost?.ended) return after(model, lost.ended, latched);
  if (model.never())
    return { level: "unknown", icon: "unknown", word: "Not known", alarms: [], text: "Nothing is measured or watched here before a first run. What the instruments say now: operando check STATION" };
  if (lost) {
    const last = latched.length ? `Tripped when last heard: ${latched[0].text}.` : "";
    return {
      level: "unknown", icon: "unknown", word: "Not known", alarms: latched,
      text: `${sentence(lost.text)} ${last} Look at the station: operando status. If nobody answers there: operando safe.`.replace("  ", " "),
    };
  }
  if (latched.length) {
    const on = outputs(model).filter((output) => output.on !== false);
    const off = on.length === 0;
    const text = off ? "Everything is off, read back." : `Not off, or not known: ${on.map((o) => `${o.name.toLowerCase()} ${o.text}`).join(", ")}.`;
    return { level: "alarm", icon: "alarm", word: "Tripped", text, alarms: latched };
  }
  if (held.length)
    return { level: "warn", icon: "warn", word: "Held by an interlock", text: sentence(held[0].text), alarms: held };
  const bad = blind(model);
  if (bad.length)
    return { level: "warn", icon: "warn", word: "Watched, but not all is known", text: `Not known: ${bad.join(", ")}. The guard acts by itself when that lasts.`, alarms: [] };
  if (!model.states.has("run/state"))
    return { level: "unknown", icon: "unknown", word: "Not known", text: "The host has not said anything about a run yet.", alarms: [] };
  const met = (model.value("guard/inputs") ?? []).filter((row) => row.met === null);
  if (met.length)
    return { level: "warn", icon: "warn", word: "An interlock cannot be read", text: sentence(met.map((row) => row.text || row.name).join(", ")), alarms: [] };
  const near = nearestLimit(model);
  return { level: "ok", icon: "ok", word: "Safe", text: `Nothing has tripped. ${near?.text ?? ""}`.trim(), alarms: [] };
}

/** Is it safe, after the end of the run? Nobody has looked since: never "ok". */
function after(model, { t }, latched) {
  const known = outputs(model);
  const on = known.filter((output) => output.on !== false);
  const when = `when the run ended at ${format.clock(t)}`;
  const off = known.length > 0 && on.length === 0;
  const text = off
    ? `Everything was off, read back, ${when}. Nothing is measured or watched since.`
    : `Not off, or not known, ${when}: ${on.map((o) => `${o.name.toLowerCase()} ${o.text}`).join(", ") || "every output"}. Make sure of it, at the station: operando off`;
  if (latched.length) return { level: "alarm", icon: "alarm", word: "Tripped", text, alarms: latched };
  return off ? { level: "info", icon: "done", word: "Everything off", text, alarms: [] } : { level: "warn", icon: "warn", word: "Not known to be off", text, alarms: [] };
}

/** Return the readings about safety that are there and not good. */
function blind(model) {
  return [["heater/temperature", "temperature"], ["cell/voltage", "cell voltage"], ["beam/permit", "permit"]]
    .filter(([name]) => model.states.has(name) && !["good", "uncertain"].includes(model.state(name).q))
    .filter(([name]) => !(name === "cell/voltage" && model.value("cell/phase") === "open circuit"))
    .map(([name, text]) => `${text} (${model.state(name).why || model.state(name).q})`);
}

/** Return where the readings stand between their limits: [{name, value, low, high, part: 0 to 1, near}]. */
export function margins(model) {
  const found = new Map();
  for (const { channel, low, high, unit } of model.value("guard/rules") ?? []) {
    if (!CHANNELS[channel] || typeof model.value(channel) !== "number") continue;
    const have = found.get(channel) ?? { low: -Infinity, high: Infinity, unit };
    found.set(channel, { unit, low: Math.max(have.low, low ?? -Infinity), high: Math.min(have.high, high ?? Infinity) });
  }
  return [...found].filter(([, { low, high }]) => Number.isFinite(low) && Number.isFinite(high) && high > low).map(([channel, { low, high, unit }]) => {
    const value = model.value(channel);
    const part = Math.min(1, Math.max(0, (value - low) / (high - low)));
    return { channel, name: CHANNELS[channel], value, low: format.brief(low, unit), high: format.brief(high, unit), part, near: Math.min(part, 1 - part) < 0.05 };
  });
}

/** Return what comes after the step that runs, in words. */
export function next(model) {
  const steps = model.state("run/plan").v?.steps ?? [];
  const top = steps.filter((step) => !step.depth);
  const coming = top[top.findIndex((step) => step.state === "running") + 1];
  if (!coming || !top.some((step) => step.state === "running")) return "";
  const inside = steps.filter((step) => step.depth === 1 && step.path.startsWith(`${coming.path}.`));
  return `Then: ${inside.map((step) => step.title).join(" + ") || coming.title}.`;
}

/** Is it running? Also {left_s, ends_s, part} in wall seconds. */
export function running(model) {
  const lost = model.lost();
  const state = model.state("run/state").v;
  const title = model.state("run/title").v?.replaceAll(" | ", " + ");
  const plan = model.state("run/plan").v;
  const number = model.state("run/step").v;
  const top = (plan?.steps ?? []).filter((step) => !step.depth);
  const where = number != null && top.length ? `Step ${number} of ${top.length}${title ? `: ${title}` : ""}` : title ?? "";
  if (lost) {
    if (lost.ended) return closed(lost.ended, top, model);
    if (model.never()) return { level: "unknown", icon: "none", word: "No run yet", text: "Nothing has been begun at this station." };
    if (state === "ended") return { ...ended(model, top), level: "unknown" };
    const heard = state ? `When last heard: ${state}. ${where}` : "Nothing has been heard yet.";
    return { level: "unknown", icon: "unknown", word: "Not known", text: heard.trim() };
  }
  const speed = model.value("run/speed") || 1;
  const left = model.value("run/left");
  const elapsed = model.value("run/elapsed");
  const time = {
    left_s: left == null ? null : left / speed, lab_left_s: left, speed,
    ends_s: left == null ? null : model.now() + left / speed,
    part: left == null || elapsed == null ? null : elapsed / Math.max(elapsed + left, 1),
  };
  switch (state) {
    case "starting": return { level: "info", icon: "run", word: "Starting", text: "Instruments are being looked at.", ...time };
    case "running": return { level: "ok", icon: "run", word: "Running", text: `${where}. ${next(model)}`.trim(), ...time };
    case "paused": return { level: "warn", icon: "pause", word: "Paused", text: `${where}. ${paused(model)}`, ...time };
    case "ended": return ended(model, top);
    default: return { level: "unknown", icon: "none", word: "No run", text: "Nothing is running at this station." };
  }
}

function paused(model) {
  const why = [...model.events].reverse().find((event) => /^pause/.test(event.text ?? ""));
  return why ? `${sentence(why.text.replace(/^pause: */, ""))} Go on with: operando proceed` : "Go on with: operando proceed";
}

const ENDINGS = { // by exit code
  0: ["ok", "Finished"], 2: ["warn", "Refused"], 3: ["alarm", "Ended by an instrument"], 4: ["alarm", "Ended by the guard"], 5: ["warn", "Aborted"], 6: ["warn", "Finished, with gaps"],
};

/** How a run has ended, when the journal says so. */
function closed({ t, began, code, text }, top, model) {
  const [level, word] = ENDINGS[code] ?? ["warn", "Ended"];
  const done = top.filter((step) => step.state === "done").length;
  const steps = !top.length ? "" : done === top.length ? ` All ${format.plural(done, "step")} are done.` : ` ${done} of ${format.plural(top.length, "step")} are done.`;
  const [speed, elapsed] = [model.last("run/speed") ?? 1, model.last("run/elapsed")];
  const lab = speed > 1 && elapsed != null ? ` (${format.duration(elapsed)} of lab time)` : "";
  const took = began ? `, after ${format.duration(t - began)}${lab}` : "";
  const said = text && !/^(done|finished)\b/i.test(text) ? `${sentence(text)} ` : "";
  return { level, icon: "done", word, text: `${said}Ended at ${format.clock(t)}${took}.${steps}` };
}

function ended(model, top) {
  const undone = top.filter((step) => step.state !== "done");
  if (model.alarms.length) return { level: "alarm", icon: "done", word: "Ended by a trip", text: `${top.length - undone.length} of ${format.plural(top.length, "step")} are done. When the trip is cleared, another run can begin.` };
  if (!undone.length && top.length) return { level: "ok", icon: "done", word: "Finished", text: `All ${format.plural(top.length, "step")} are done.` };
  return { level: "warn", icon: "done", word: "Ended early", text: `${top.length - undone.length} of ${format.plural(top.length, "step")} are done.` };
}

/** Is lithium moving? Also {beam, charge: {value, sigma, stat}, z, layer}. */
export function lithium(model) {
  const { v: quantities, t } = model.state("result/quantities");
  const lost = model.lost();
  const found = change(quantities ?? {});
  const beam = estimate(quantities?.[`${found?.layer}.soc_beam`]);
  const charge = fromState(model.state("soc/charge")) ?? estimate(quantities?.[`${found?.layer}.soc_charge`]);
  const more = { beam, charge, layer: found?.layer ?? null, t, z: model.state("soc/z").v, found };
  const there = appeared(model.state("result/appeared").v);
  if (!found && model.never())
    return { level: "unknown", icon: "none", word: "No measurement yet", text: "The first scan is its own reference; from the second on this is answered.", ...more };
  if (!found && there && !(lost && !lost.ended)) return { level: "warn", icon: "move", word: there.word, text: there.text, ...more };
  if (!found) {
    const text = model.passes.length
      ? (lost ? "No pass could be compared with the reference scan." : "Passes come, but none can be compared with the reference scan yet.") : "No pass of the beam has ended yet.";
    return { level: "unknown", icon: lost ? "unknown" : "none", word: lost && !lost.ended ? "Not known" : lost ? "No measurement" : "No measurement yet", text: lost && !lost.ended ? sentence(lost.text) : text, ...more };
  }
  const amount = `its signal in the ${found.layer} changed by ${format.percent(found.value - 1, found.total).replace(/^(\d)/, "+$1")} since the reference`;
  const of_it = there ? `Lithium of the ${found.layer}: ${format.fixed(Math.abs(found.z), 1)} σ` : `${format.fixed(Math.abs(found.z), 1)} σ`;
  const text = `${there ? `${there.text} ` : ""}${of_it}${odds(found.z)}: ${amount}. ${agreement(more)}`.trim();
  if (lost && !lost.ended) return { level: "unknown", icon: "unknown", word: "Not known now", text: `When last heard: ${text}`, ...more };
  if (there) return { level: "warn", icon: "move", word: there.word, text, ...more };
  const size = Math.abs(found.z);
  if (size >= RESOLVED_SIGMA)
    return { level: "info", icon: "move", word: found.value < 1 ? `Leaving the ${found.layer}` : `Entering the ${found.layer}`, text, ...more };
  if (size >= AGREE_Z) return { level: "info", icon: "move", word: "Perhaps: not certain", text, ...more };
  return { level: "info", icon: "none", word: "No change seen yet", text, ...more };
}

/** Lithium where the reference had none: plated, or astray. Nothing to divide by, so it has counts and no state of charge. */
function appeared(told) {
  const layers = Object.entries(told ?? {});
  if (!layers.length) return null;
  const counts = ({ counts: c }) => `${format.fixed(c.value, 0)} ± ${format.fixed(Math.hypot(c.sigma_stat, c.sigma_sys), 0)} counts`;
  const each = layers.map(([layer, one]) => `${counts(one)} of lithium in the ${layer}, where the reference had ${one.none_before === false ? counts({ counts: one.reference }) : "none"} (${format.fixed(one.sigmas, 1)} σ).`);
  return { word: layers.length > 1 ? `In ${layers.length} more layers` : `In the ${layers[0][0]}`, text: each.join(" ") };
}

/** Return the change of the layer that speaks most clearly: a host layer before others. */
function change(quantities) {
  let best = null;
  for (const [name, told] of Object.entries(quantities)) {
    const dot = name.lastIndexOf(".");
    const [layer, what] = [name.slice(0, dot), name.slice(dot + 1)];
    if (what !== "li_relative" && what !== "li_relative_charge") continue;
    const one = estimate(told);
    if (!one || !(one.total > 0)) continue;
    const host = `${layer}.x` in quantities || `${layer}.soc_beam` in quantities;
    const rank = (host ? 2 : 0) + (what === "li_relative" ? 1 : 0);
    const z = (one.value - 1) / one.total;
    if (!best || rank > best.rank || (rank === best.rank && Math.abs(z) > Math.abs(best.z))) best = { ...one, layer, rank, z };
  }
  return best;
}

/** Return {value, stat, sys, total} of a quantity, null where there is none. */
export function estimate(told) {
  if (!told || !Number.isFinite(told.value)) return null;
  const [stat, sys] = [told.sigma_stat ?? 0, told.sigma_sys ?? 0];
  return { value: told.value, stat, sys, total: Math.hypot(stat, sys), unit: told.unit ?? "1" };
}

function fromState({ v, e }) {
  return typeof v === "number" ? { value: v, stat: null, sys: null, total: e } : null;
}

function odds(z) {
  const size = Math.abs(z);
  if (size >= 5) return ", beyond doubt";
  if (size >= RESOLVED_SIGMA) return ", one in 370 or less by chance";
  if (size >= AGREE_Z) return ", may still be chance";
  return ", within what chance does";
}

function agreement({ beam, charge, z }) {
  if (!beam || !charge || !charge.total) return "";
  const apart = typeof z === "number" ? Math.abs(z) : Math.abs(beam.value - charge.value) / Math.hypot(beam.total, charge.total);
  return apart <= AGREE_Z ? `Beam and charge agree (${format.fixed(apart, 1)} σ apart).` : `Beam and charge disagree (${format.fixed(apart, 1)} σ apart).`;
}

/** Return a text as a sentence. */
export function sentence(text) {
  if (!text) return "";
  const trimmed = text.trim().replace(/[.;]$/, "");
  return `${trimmed[0].toUpperCase()}${trimmed.slice(1)}.`;
}

/** Return what a person can do about an alarm: {say, command}. */
export function advice(alarm) {
  if (alarm.latch === false) return { say: "It goes on when the cause has gone:", command: "operando proceed" };
  if (alarm.asks) return { say: `${sentence(alarm.asks)} Then, at the station:`, command: `operando clear ${alarm.id} --acknowledge "what I found"` };
  return { say: "Find the cause. When it is mended, at the station:", command: `operando clear ${alarm.id}` };
}
