// The band at the top: is it safe, is it running, is lithium moving? And what is said aloud when that changes.

import { byId, h, keyed, setAttr, setIcon, setText } from "../dom.js";
import * as format from "../format.js";
import * as words from "../words.js";
import { gauge } from "./gauge.js";

export function answers(model) {
  let said = {};
  const draw = () => {
    const told = { safe: words.safe(model), running: words.running(model), lithium: words.lithium(model) };
    for (const [name, answer] of Object.entries(told)) show(name, answer);
    latches(told.safe);
    outputs(model);
    limits(model);
    time(told.running);
    gauge(byId("gauge"), told.lithium, model.old());
    said = speak(said, told);
    tab(model, told);
  };
  model.when(["state:*", "alarms", "host", "link", "passes", "events", "snapshot", "states"], draw);
  setInterval(draw, 5000); // times go on while nothing comes
  draw();
}

/** What a tab in the background says: the answers and how far the run is, in words and as a ring in its icon. */
function tab(model, { safe, running }) {
  const part = safe.level === "unknown" || running.part == null ? null : Math.min(1, running.part);
  const far = part == null ? "" : ` ${Math.floor(part * 100)} %`;
  document.title = `${safe.level === "alarm" ? "⚠ " : ""}${safe.word} · ${running.word}${far} · ${model.station || "operando"}`;
  const href = icon(safe.level === "alarm" ? "alarm" : running.level, part);
  const link = document.querySelector('link[rel="icon"]');
  if (link.getAttribute("href") !== href) link.setAttribute("href", href);
}

const COLOURS = { ok: "#1a8f5a", info: "#2f7fd6", warn: "#c98500", alarm: "#d3302f", unknown: "#7d8894" };
const ROUND = 2 * Math.PI * 13;

/** A full disc after a trip, a ring that closes with the run, an empty one where nothing is known. */
function icon(level, part) {
  const colour = COLOURS[level] ?? COLOURS.unknown;
  const disc = level === "alarm" ? `<circle cx="16" cy="16" r="15" fill="${colour}"/><path d="M16 7v11M16 22v3" stroke="#fff" stroke-width="4"/>` : "";
  const ring = disc ? "" : `<circle cx="16" cy="16" r="13" fill="none" stroke="${colour}" stroke-opacity=".3" stroke-width="6"/>`;
  const done = disc || part == null ? "" : `<circle cx="16" cy="16" r="13" fill="none" stroke="${colour}" stroke-width="6" `
    + `stroke-dasharray="${(Math.round(part * 50) / 50 * ROUND).toFixed(1)} 99" transform="rotate(-90 16 16)"/>`;
  return `data:image/svg+xml,${encodeURIComponent(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">${disc}${ring}${done}</svg>`)}`;
}

function show(name, { level, icon, word, text }) {
  const card = byId(name);
  setAttr(card, "data-level", level);
  setIcon(card.querySelector(".verdict .icon"), icon);
  setText(byId(`${name}-word`), word);
  setText(byId(`${name}-text`), text);
}

function latches({ alarms = [] }) {
  const list = byId("latches");
  list.hidden = alarms.length === 0;
  keyed(list, alarms, (alarm) => alarm.id, (alarm) => {
    const { say, command } = words.advice(alarm);
    return h("li", {},
      h("p", {}, h("strong", {}, words.sentence(alarm.text)), ` At ${format.clock(alarm.t)}; done: ${alarm.action}.`),
      h("p.todo", {}, `${say} `, h("code", {}, command)));
  });
}

function outputs(model) {
  keyed(byId("outputs"), words.outputs(model), (output) => output.name,
    (output) => h("li", {}, h("span", {}, output.name), h("b", {})),
    (element, output) => {
      setAttr(element, "data-on", output.on == null ? "unknown" : String(output.on));
      setText(element.querySelector("b"), output.text);
    });
}

/** Where each reading stands between the limits at which the guard acts. */
function limits(model) {
  keyed(byId("limits"), model.lost() ? [] : words.margins(model), ({ channel }) => channel,
    ({ name }) => h("li", {}, h("span.name", {}, name), h("span.low", {}), h("span.room", { role: "img" }, h("i", {})), h("span.high", {})),
    (element, { name, part, near, low, high }) => {
      setAttr(element, "data-near", near);
      setText(element.querySelector(".low"), low);
      setText(element.querySelector(".high"), high);
      element.querySelector("i").style.left = `${(part * 100).toFixed(1)}%`;
      setAttr(element.querySelector(".room"), "aria-label", `${name} at ${Math.round(part * 100)} % of the way from ${low} to ${high}`);
    });
}

function time({ left_s, ends_s, part, speed = 1, lab_left_s, level }) {
  const known = left_s != null && level !== "unknown";
  setText(byId("time-left"), known ? `${format.duration(left_s)} left` : "");
  const lab = speed > 1 ? ` (${format.duration(lab_left_s)} of lab time)` : "";
  setText(byId("time-ends"), known ? `ends about ${format.clock(ends_s, { seconds: false })}${lab}` : "");
  const bar = byId("progress");
  bar.hidden = part == null;
  if (part != null) {
    bar.value = Math.min(1, part);
    setText(bar, `${Math.round(part * 100)} %`);
  }
}

/** Say what changed: trips and losses at once, the rest when there is a pause. */
function speak(before, told) {
  const now = { safe: told.safe.word, running: `${told.running.word}. ${told.running.text}`, lithium: told.lithium.word };
  if (before.safe !== undefined) {
    if (now.safe !== before.safe) {
      const urgent = told.safe.level === "alarm" || told.safe.level === "unknown";
      setText(byId(urgent ? "speak-now" : "speak"), `${told.safe.word}. ${told.safe.alarms?.[0]?.text ?? told.safe.text}`);
      if (!urgent) setText(byId("speak-now"), "");
    } else if (now.running !== before.running) setText(byId("speak"), now.running);
    else if (now.lithium !== before.lithium) setText(byId("speak"), `Lithium: ${now.lithium}`);
  }
  return now;
}
