// What happened, newest first: steps, trips, gaps, faults, commands.

import { byId, h, icon, keyed, setAttr } from "../dom.js";
import * as format from "../format.js";

const LEVELS = { trip: "alarm", fault: "warn", gap: "warn", action: "info", command: "info", step: "info", cell: "info", log: "info" };
const ICONS = { alarm: "alarm", warn: "warn", info: "none" };
const PAGE = 60;

export function events(model) {
  const list = byId("events");
  const what = byId("events-what");
  const more = byId("events-more");
  let shown = PAGE;
  const draw = () => {
    const wanted = model.events.filter((event) => what.value === "all" || level(event) !== "info");
    const newest = wanted.slice(-shown).reverse();
    more.hidden = wanted.length <= shown;
    keyed(list, newest, (event) => event.seq ?? `${event.t} ${event.text}`, (event) => {
      const time = h("time", { datetime: new Date(event.t * 1000).toISOString() }, format.clock(event.t).slice(-8));
      const mark = icon(ICONS[level(event)]);
      return h("li", { "data-level": level(event) }, time, mark, h("span", {}, spoken(event)));
    });
    setAttr(list, "data-count", newest.length);
  };
  what.addEventListener("change", draw);
  more.addEventListener("click", () => {
    shown += 4 * PAGE;
    draw();
  });
  model.when(["events"], draw);
}

function level(event) {
  return event.level ?? LEVELS[event.kind] ?? "info";
}

function spoken({ kind, text }) {
  const words = { trip: "Trip: ", gap: "Gap: ", fault: "Fault: ", command: "Command: " }[kind] ?? "";
  return words && text?.toLowerCase().startsWith(words.toLowerCase().trim().slice(0, -1)) ? text : words + (text ?? kind);
}
