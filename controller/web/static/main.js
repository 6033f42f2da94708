// The page: feed to model, model to panels; and what is said when the connection goes.

import { byId, h, setAttr, setText } from "./dom.js";
import { Feed } from "./feed.js";
import * as format from "./format.js";
import { Model } from "./model.js";
import { switches } from "./theme.js";
import { answers } from "./panels/answers.js";
import { counts } from "./panels/counts.js";
import { events } from "./panels/events.js";
import { health } from "./panels/health.js";
import { maps } from "./panels/maps.js";
import { numbers } from "./panels/numbers.js";
import { profiles } from "./panels/profiles.js";
import { question } from "./panels/question.js";
import { soc } from "./panels/soc.js";
import { spectra } from "./panels/spectra.js";
import { steps } from "./panels/steps.js";
import { trends } from "./panels/trends.js";

const model = new Model();
const redraws = [];
switches(() => redraws.forEach((redraw) => redraw()));
for (const panel of [answers, steps, numbers, question, maps, soc, profiles, spectra, trends, counts, health, events]) {
  const redraw = panel(model);
  if (redraw) redraws.push(redraw);
}
connection();
about();
const feed = new Feed({
  message: (told) => model.message(told), frame: (header, arrays) => model.frame(header, arrays), down: (why) => model.down(why),
});
model.resend = (stream, scan, pass) => feed.resend(stream, scan, pass);
globalThis.operando = { model, feed }; // for tests and for the curious; nothing here can command anything

function about() {
  const draw = () => {
    const plan = model.state("run/plan").v;
    setText(byId("run-title"), plan?.title || model.state("run/id").v || model.station || "operando");
    const speed = model.state("run/speed").v;
    const parts = [model.station && `station ${model.station}`, model.state("run/id").v, speed > 1 ? `virtual bench, lab time runs ${format.significant(speed, 3)} times faster` : ""];
    setText(byId("run-about"), parts.filter(Boolean).join(" · "));
    const version = model.host?.version ? ` Host version ${model.host.version}.` : "";
    setText(byId("colophon"), `operando ${model.version || ""}. This page only looks: it cannot command anything.${version}`);
  };
  model.when(["state:run/*", "states", "host", "link"], draw);
}

/** Say whether what is shown is the present, in the header; and all over the page when it is not. */
function connection() {
  const banner = byId("lost");
  const [what, since] = [h("p", {}), h("p", { "aria-hidden": "true" })];
  banner.append(what, since);
  const draw = () => {
    const lost = model.lost();
    const begins = lost && !model.link.ever && !model.host;
    const closed = model.ended();
    const ended = lost && (closed || model.state("run/state").v === "ended");
    const never = model.never();
    const kind = !lost ? "live" : begins || never ? "waiting" : closed ? "ended" : "lost";
    setAttr(document.documentElement, "data-link", kind);
    setAttr(byId("link"), "data-state", kind);
    const late = model.host?.hist ? ", filling in what was missed" : model.complete ? "" : ", loading";
    setText(byId("link-text"), !lost ? `live${late}` : begins ? "connecting" : never ? "waiting for a first run" : closed ? "run ended" : "not live");
    banner.hidden = !lost || begins;
    if (banner.hidden) return;
    setAttr(banner, "data-calm", Boolean(ended || never));
    if (never) {
      setText(what, "No run has been begun at this station yet.");
      setText(since, "The first one appears here by itself: operando run EXPERIMENT --station STATION");
      return;
    }
    if (closed) {
      setText(what, `This run ended at ${format.clock(closed.t)}. Below is its last state.`);
      setText(since, `${capital(format.age(Math.max(3, 10 * Math.floor((model.now() - closed.t) / 10))))} ago. The next run appears here by itself.`);
      return;
    }
    setText(what, `${capital(lost.text)}${lost.since_s ? ` (since ${format.clock(lost.since_s)})` : ""}. Nothing below is the present.`);
    const tail = ended ? "The run had ended before." : lost.link ? "The page tries again by itself. At the station: operando status" : "At the station: operando status";
    setText(since, `${lost.since_s ? `For ${format.age(Math.floor(model.now() - lost.since_s))}. ` : ""}${tail}`);
  };
  model.when(["link", "host", "state:run/state"], draw);
  setInterval(draw, 1000);
}

function capital(text) {
  return text ? text[0].toUpperCase() + text.slice(1) : "";
}
