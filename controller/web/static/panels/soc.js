// The state of charge over time: by coulombs as a line, from the beam as points, both with their errors.

import { byId, setAttr, setText } from "../dom.js";
import * as format from "../format.js";
import { Plot, spanned } from "../plot.js";
import { asTable, table } from "./table.js";

const [BEAM, CHARGE] = ["soc/beam", "soc/charge"];

export function soc(model) {
  const percent = (value, sigma) => format.percent(value / 100, sigma == null ? null : sigma / 100);
  const plot = new Plot({
    name: "State of charge, %", height: 300, sync: "trends", x: { time: true, range: (_u, low, high) => spanned(low, high) }, y: { label: "state of charge, %", size: 46 },
    series: [
      { label: "from charge", colour: "--c2", error: true, tell: percent, spanGaps: true },
      { label: "from the beam", colour: "--c1", kind: "points", error: true, tell: percent },
    ],
  });
  byId("soc").append(plot.root);
  for (const name of [BEAM, CHARGE]) model.seriesOf(name);

  const draw = () => {
    const beam = scaled(model.seriesOf(BEAM).since(0));
    const charge = scaled(model.seriesOf(CHARGE).since(0));
    const x = [...new Set([...charge.t, ...beam.t])].sort((a, b) => a - b);
    const has = beam.v.some((value) => value != null) || charge.v.some((value) => value != null);
    byId("soc-empty").hidden = has;
    plot.root.hidden = !has;
    if (has) plot.show({ x, series: [on(x, charge), on(x, beam)] });
    const lost = model.old();
    const newest = beam.t.at(-1);
    setText(byId("soc-age"), newest ? `${lost ? "OLD: " : ""}beam as of ${format.clock(newest)}` : "");
    setAttr(byId("soc-age"), "data-stale", lost);
    fill();
  };

  const fill = asTable(byId("soc-table"), () => {
    const beam = scaled(model.seriesOf(BEAM).since(0));
    const charge = model.seriesOf(CHARGE);
    const rows = beam.t.map((t, i) => [format.clock(t), beam.v[i] == null ? format.DASH : percent(beam.v[i], (beam.high[i] - beam.low[i]) / 2),
      format.percent(charge.at(t))]).reverse().slice(0, 200);
    return [table("State of charge, newest first", [{ title: "time" }, { title: "from the beam", n: true }, { title: "from charge", n: true }], rows)];
  });
  model.when([`series:${BEAM}`, `series:${CHARGE}`, "series:", "link", "host"], draw);
  return () => plot.rebuild();
}

function scaled(part) {
  const times = (values) => values.map((value) => (value == null ? null : value * 100));
  return { t: part.t, v: times(part.v), low: times(part.low), high: times(part.high) };
}

function on(x, part) {
  const at = new Map(part.t.map((t, i) => [t, i]));
  const place = (values) => x.map((t) => (at.has(t) ? values[at.get(t)] : null));
  return { v: place(part.v), low: place(part.low), high: place(part.high) };
}
