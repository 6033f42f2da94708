// What the page knows, and who wants to hear of which part. Nothing here draws.

import { Series } from "./series.js";

const KEEP_EVENTS = 2000;
const KEEP_PASSES = 2000;
export const AT_THE_END = "when the run ended"; // why a value is not of the present
const DRAW_MS = 200; // at most five drawings a second, whatever comes

export class Model {
  constructor() {
    this.station = "";
    this.version = "";
    this.host = null;
    this.describe = { modules: {}, limits: {}, streams: [] };
    this.states = new Map();
    this.alarms = [];
    this.questions = [];
    this.passes = [];
    this.events = [];
    this.series = new Map();
    this.products = new Map(); // stream -> newest
    this.references = new Map(); // stream -> that of the reference scan
    this.link = { up: false, since_s: null, why: "connecting", ever: false };
    this.complete = false;
    this.behind = 0;
    this.offset_s = 0; // server's wall clock less ours
    this.listeners = [];
    this.dirty = new Set();
    this.timer = null;
    this.drawn = 0;
    this.resend = () => {}; // set by whoever has the connection
  }

  /** Call ``draw`` when something whose key begins with one of these changed, and once a second for "tick". */
  when(keys, draw) {
    this.listeners.push({ keys, draw });
  }

  /** Return the server's wall clock, seconds. */
  now() {
    return Date.now() / 1000 + this.offset_s;
  }

  /** Return a state {v, t, e, q, unit, why}; what is not there, or comes over a lost connection, is never good. */
  state(name) {
    const found = this.states.get(name);
    if (!found) return { v: null, t: null, e: null, q: "unknown", unit: "", why: "not heard" };
    const lost = this.lost();
    if (lost?.ended && found.q !== "bad") return { ...found, q: "stale", why: AT_THE_END };
    return lost && found.q !== "stale" ? { ...found, q: "stale", why: lost.text } : found;
  }

  /** Return the value of a state only while it is the present; null otherwise. */
  value(name) {
    const { v, q } = this.state(name);
    return q === "good" || q === "uncertain" ? v : null;
  }

  /** Return why nothing here is the present, {text, since_s}, or null. */
  lost() {
    if (!this.link.up) return { text: this.link.why, since_s: this.link.since_s, link: true };
    if (!this.host) return { text: "nothing has been heard yet", since_s: null, link: true };
    return this.host.away ? { text: this.host.away, since_s: this.host.since, link: false, ended: this.host.ended ?? null } : null;
  }

  /** Whether this station has never been heard of: no run was begun since the page began, and the journal holds none. */
  never() {
    const lost = this.lost();
    return Boolean(lost && !lost.link && !lost.ended && !this.host.boot && !this.host.state && !this.states.size);
  }

  /** Return how the run that is shown has ended, {run, t, outcome, code, text, began}; null while it runs and when that is not known. */
  ended() {
    return this.lost()?.ended ?? null;
  }

  /** Whether results are those of a moment that is past, and newer ones may exist: not after the end of the run. */
  old() {
    const lost = this.lost();
    return Boolean(lost && !lost.ended);
  }

  /** Return a value that is the present or, after the end of the run, its last one; null otherwise. */
  last(name) {
    const known = this.states.get(name);
    return this.ended() && known && known.q !== "bad" ? known.v : this.value(name);
  }

  seriesOf(name) {
    let found = this.series.get(name);
    if (!found) this.series.set(name, (found = new Series()));
    return found;
  }

  // --- what comes --------------------------------------------------------------------------------------

  up() {
    this.link = { up: true, since_s: this.now(), why: "", ever: true };
    this.touch("link");
  }

  down(why) {
    if (this.link.up || !this.link.ever) this.link = { up: false, since_s: this.link.ever ? this.now() : null, why, ever: this.link.ever };
    else this.link.why = why;
    this.complete = false;
    this.touch("link");
  }

  message(told) {
    if (!this.link.up) this.up();
    const take = {
      snapshot: () => this.snapshot(told), states: () => this.take(told.states), tele: () => this.tele(told.series),
      host: () => this.set("host", told.host), alarms: () => this.set("alarms", told.alarms),
      questions: () => this.set("questions", told.questions), describe: () => this.set("describe", told.describe),
      passes: () => this.more("passes", told.passes, KEEP_PASSES), events: () => this.more("events", told.events, KEEP_EVENTS),
      beat: () => this.beat(told), end: () => { this.complete = true; this.touch("link"); },
    }[told.k];
    take?.();
  }

  frame(header, arrays) {
    if (!this.link.up) this.up();
    if (header.k === "series") this.history(header, arrays);
    else if (header.k === "product") this.product(header, arrays);
  }

  snapshot(told) {
    this.clockIs(told.t);
    const other = this.runId() !== (told.states["run/id"]?.v ?? null) || this.station !== told.station;
    if (other) {
      for (const part of [this.series, this.products, this.references]) part.clear();
      this.touch("series:");
      this.touch("product:");
    }
    this.station = told.station;
    this.version = told.version ?? "";
    this.complete = false;
    this.states.clear();
    this.events = [];
    this.passes = [];
    for (const name of ["host", "describe", "alarms", "questions"]) this.set(name, told[name]);
    this.more("passes", told.passes ?? [], KEEP_PASSES);
    this.more("events", told.events ?? [], KEEP_EVENTS);
    this.take(told.states);
    this.touch("states");
    this.touch("link");
    this.ask(told.kept ?? {});
  }

  /** Ask for the maps of the first scan: where it is the reference, changes are shown against it. */
  ask(kept) {
    for (const [stream, list] of Object.entries(kept)) {
      if (!/^map\/([A-Z][a-z]?|charge)$/.test(stream) || !list.length) continue;
      const first = Math.min(...list.map(([scan]) => scan));
      const last = Math.max(...list.filter(([scan]) => scan === first).map(([, n]) => n));
      this.resend(stream, first, last);
    }
  }

  runId() {
    return this.states.get("run/id")?.v ?? null;
  }

  take(states) {
    const before = this.runId();
    for (const [name, state] of Object.entries(states ?? {})) {
      if (state === null) this.states.delete(name);
      else {
        this.states.set(name, state);
        const numeric = typeof state.v === "number" || state.v === null;
        if (numeric && state.t != null && state.q !== "stale" && this.series.has(name)) this.sample(name, state);
      }
      this.touch(`state:${name}`);
    }
    if (before !== null && this.runId() !== null && this.runId() !== before) { // another run: nothing of the old stays
      this.series.clear();
      this.products.clear();
      this.references.clear();
      this.passes = [];
      for (const key of ["series:", "product:", "passes"]) this.touch(key);
    }
  }

  sample(name, { v, t, e }) {
    this.series.get(name).add(t, v, ...around(v, e));
    this.touch(`series:${name}`);
  }

  tele(series) {
    for (const [name, samples] of Object.entries(series)) {
      const mine = this.seriesOf(name);
      for (const [t, v, e] of samples) mine.add(t, v, ...around(v, e ?? this.states.get(name)?.e));
      this.touch(`series:${name}`);
    }
  }

  history({ name }, { t, v, lo, hi, e }) {
    if (!t) return;
    const known = (x) => (Number.isFinite(x) ? x : null);
    const values = Array.from(v.data, known);
    let error = null; // that of the last point which has one
    const errors = e ? Array.from(e.data, (one) => (error = Number.isFinite(one) ? one : error)) : [];
    const edge = (part, sign) => values.map((value, i) => {
      if (value === null) return null;
      return errors[i] != null ? value + sign * errors[i] : part ? known(part.data[i]) : value;
    });
    const mine = this.seriesOf(name);
    const newer = mine.since(t.data.at(-1) ?? 0);
    mine.clear();
    mine.fill(Array.from(t.data), values, edge(lo, -1), edge(hi, 1));
    newer.t.forEach((time, i) => mine.add(time, newer.v[i], newer.low[i], newer.high[i]));
    this.touch(`series:${name}`);
  }

  product(header, arrays) {
    const { stream } = header;
    const product = { ...header, arrays, heard_s: this.now() };
    if (header.reference || header.purpose === "reference") this.references.set(stream, product);
    const have = this.products.get(stream);
    const order = ({ purpose, scan = 0 }) => (purpose === "background" && stream.startsWith("spectrum/") ? -1 : scan); // no lines to see in it
    if (!have || order(header) >= order(have)) this.products.set(stream, product);
    this.touch(`product:${stream}`);
  }

  beat({ t, behind = 0 }) {
    this.clockIs(t);
    this.behind = behind;
  }

  clockIs(t) {
    this.offset_s = t - Date.now() / 1000;
  }

  set(name, value) {
    this[name] = value ?? this[name];
    this.touch(name);
  }

  more(name, list, most) {
    this[name] = this[name].concat(list ?? []).slice(-most);
    this.touch(name);
  }

  // --- who is told -------------------------------------------------------------------------------------

  touch(key) {
    this.dirty.add(key);
    if (this.timer === null) {
      const wait = Math.max(0, this.drawn + DRAW_MS - performance.now());
      this.timer = setTimeout(() => this.draw(), wait);
    }
  }

  draw() {
    this.timer = null;
    this.drawn = performance.now();
    const dirty = [...this.dirty];
    this.dirty.clear();
    for (const { keys, draw } of this.listeners) {
      if (!keys.some((key) => dirty.some((one) => one === key || (key.endsWith("*") && one.startsWith(key.slice(0, -1))) || (one.endsWith(":") && key.startsWith(one))))) continue;
      try {
        draw();
      } catch (error) {
        console.error("a panel could not be drawn", error); // the others go on
      }
    }
  }
}


/** Return the ends of an error bar. */
function around(v, e) {
  return v === null || e == null ? [v, v] : [v - e, v + e];
}
