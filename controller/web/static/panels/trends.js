// Temperature with its target and the guard's limits, voltage, current, charge; the switch to constant voltage marked.

import { byId, setAttr, setText } from "../dom.js";
import * as format from "../format.js";
import { Plot, spanned } from "../plot.js";
import { together } from "../series.js";
import { asTable, table } from "./table.js";

const ROOM = 0.12;
const UNITS = { "heater/temperature": "K", "heater/target": "K", "cell/voltage": "V", "cell/current": "A", "cell/charge": "C" };
const LEAST = { "heater/temperature": 1, "cell/voltage": 0.02, "cell/current": 0.5, "cell/charge": 0.05 };

export function trends(model) {
  const root = byId("trends");
  const span = byId("trends-span");
  let began = 0;
  const from = () => (span.value === "run" ? 0 : (model.ended()?.t ?? model.now()) - Number(span.value));
  const range = (name) => (_u, low, high) => {
    if (low == null) return [0, 1];
    const room = Math.max((high - low) * ROOM, (LEAST[name] - (high - low)) / 2, LEAST[name] * 0.05);
    return [low - room, high + room];
  };
  const say = (unit, scale) => (value, sigma) => (sigma > 0 ? `${format.text(value * scale, unit)} ± ${format.text(sigma * scale, unit)}` : format.text(value * scale, unit));
  const limits = (name, scale) => () => (model.last("guard/rules") ?? []).filter((rule) => rule.channel === name).flatMap((rule) => (
    [["low", "trips below"], ["high", "trips above"]].filter(([edge]) => rule[edge] != null).map(([edge, text]) => (
      { y: rule[edge] * scale, colour: "--alarm", text: `${text} ${format.text(rule[edge], rule.unit)}` }))));
  const switched = () => model.events.filter((event) => event.kind === "cell" && /\bcv\b|constant voltage/i.test(`${event.what ?? ""} ${event.text}`))
    .map((event) => ({ x: event.t, colour: "--c4", text: "CC → CV" }));
  const tripped = () => model.events.filter((event) => event.kind === "trip").slice(-3)
    .map((event) => ({ x: event.t, colour: "--alarm", text: "trip" }));
  const guardBand = (scale) => () => {
    const rules = (model.last("guard/rules") ?? []).filter((rule) => rule.channel === "heater/temperature");
    const high = Math.min(...rules.map((rule) => rule.high ?? Infinity));
    const low = Math.max(...rules.map((rule) => rule.low ?? -Infinity));
    return Number.isFinite(high) && Number.isFinite(low) ? [{ y: [low * scale, high * scale], colour: "--c3", strength: 0.06 }] : [];
  };

  const plots = [
    { names: ["heater/temperature", "heater/target"], name: "Temperature, K", scale: 1, labels: ["temperature", "target"], kinds: ["line", "dash"], colours: ["--c2", "--c6"], areas: guardBand(1) },
    { names: ["cell/voltage"], name: "Cell voltage, V", scale: 1, labels: ["voltage"], kinds: ["line"], colours: ["--c1"] },
    { names: ["cell/current"], name: "Current, µA", scale: 1e6, labels: ["current"], kinds: ["line"], colours: ["--c3"] },
    { names: ["cell/charge"], name: "Charge passed, µAh", scale: 1 / 3.6e-3, labels: ["charge"], kinds: ["line"], colours: ["--c4"], error: true },
  ].map((what) => {
    const main = what.names[0];
    const marks = () => [...limits(main, what.scale)(), ...tripped(), ...(main.startsWith("cell/") ? switched() : [])];
    const plot = new Plot({
      name: what.name, height: 160, sync: "trends", x: { time: true, range: (_u, low, high) => (span.value === "run" ? spanned(low, high) : [from(), Math.max(high, low + 1)]) },
      y: { range: range(main), size: 54 }, marks, areas: what.areas ?? (() => []),
      series: what.names.map((name, i) => ({ label: what.labels[i], colour: what.colours[i], kind: what.kinds[i], error: Boolean(what.error), tell: say(UNITS[name], 1 / what.scale) })),
    });
    root.append(plot.root);
    what.names.forEach((name) => model.seriesOf(name));
    return { ...what, plot };
  });

  const draw = () => {
    began = from();
    const lost = model.old();
    for (const { names, scale, plot } of plots) {
      const data = together(names.map((name) => model.seriesOf(name)), began);
      for (const part of data.series) for (const key of ["v", "low", "high"]) part[key] = part[key].map((value) => (value == null ? null : value * scale));
      plot.show(data);
    }
    const last = Math.max(...plots.map(({ names }) => model.seriesOf(names[0]).last?.t ?? 0));
    setText(byId("trends-age"), last ? `${lost ? "OLD: " : ""}last sample ${format.clock(last)}` : "no sample yet");
    setAttr(byId("trends-age"), "data-stale", lost || (!model.ended() && last > 0 && model.now() - last > 15));
    fill();
  };

  const fill = asTable(byId("trends-table"), () => {
    const names = ["heater/temperature", "heater/target", "cell/voltage", "cell/current", "cell/charge"];
    const { x, series } = together(names.map((name) => model.seriesOf(name)), from());
    const step = Math.max(1, Math.ceil(x.length / 60));
    const rows = [];
    for (let i = x.length - 1; i >= 0; i -= step) rows.push([format.clock(x[i]), ...series.map((part, k) => format.text(part.v[i], UNITS[names[k]]))]);
    return [table("About sixty moments, newest first",
      [{ title: "time" }, ...["temperature", "target", "voltage", "current", "charge"].map((title) => ({ title, n: true }))], rows)];
  });
  span.addEventListener("change", draw);
  model.when(["series:heater/*", "series:cell/*", "state:guard/rules", "events", "link", "host"], draw);
  return () => plots.forEach(({ plot }) => plot.rebuild());
}
