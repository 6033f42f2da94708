// A quantity over time: bounded, in order, without repeats, whatever comes late. Long stretches are thinned, not lost:
// where neighbours are merged their lowest and highest stay, and the beginning is drawn as finely as the rest.

const MOST = 6000; // points kept; beyond that neighbours are merged
const GAP_S = 30;

export class Series {
  constructor(gap_s = GAP_S) {
    this.gap_s = gap_s;
    this.t = [];
    this.v = [];
    this.low = [];
    this.high = [];
  }

  get length() { return this.t.length; }

  get last() { return this.t.length ? { t: this.t.at(-1), v: this.v.at(-1) } : null; }

  /** Take one sample; one that is older than the last finds its place, one of the same moment is dropped. */
  add(t, v, low = v, high = v) {
    const end = this.t.length;
    if (!end || t > this.t[end - 1]) {
      this.t.push(t);
      this.v.push(v);
      this.low.push(low);
      this.high.push(high);
      if (this.t.length > MOST) this.thin();
      return;
    }
    const at = this.place(t);
    if (this.t[at] === t) return;
    this.t.splice(at, 0, t);
    this.v.splice(at, 0, v);
    this.low.splice(at, 0, low);
    this.high.splice(at, 0, high);
  }

  /** Take what history says of a stretch: it replaces whatever is known of it. */
  fill(t, v, low = v, high = v) {
    if (!t.length) return;
    const [from, to] = [this.place(t[0]), this.after(t.at(-1))];
    for (const [mine, theirs] of [[this.t, t], [this.v, v], [this.low, low], [this.high, high]]) {
      const tail = mine.splice(from);
      mine.push(...theirs, ...tail.slice(to - from));
    }
    if (this.t.length > MOST) this.thin();
  }

  clear() {
    for (const part of [this.t, this.v, this.low, this.high]) part.length = 0;
  }

  /** Return {t, v, low, high} from a time on, with an empty place wherever nothing came for long. */
  since(from) {
    const found = { t: [], v: [], low: [], high: [] };
    for (let i = this.place(from); i < this.t.length; i += 1) {
      const before = found.t.at(-1);
      if (before != null && this.t[i] - before > Math.max(this.gap_s, 8 * this.usual)) {
        found.t.push((before + this.t[i]) / 2);
        for (const part of [found.v, found.low, found.high]) part.push(null);
      }
      found.t.push(this.t[i]);
      found.v.push(this.v[i]);
      found.low.push(this.low[i]);
      found.high.push(this.high[i]);
    }
    return found;
  }

  /** Return how far apart samples usually are (where they were thinned, further). */
  get usual() {
    return this.t.length < 2 ? 0 : (this.t.at(-1) - this.t[0]) / (this.t.length - 1);
  }

  /** Return the value at a time: that of the last sample before it, null within a gap. */
  at(t) {
    const i = this.after(t) - 1;
    return i < 0 || t - this.t[i] > Math.max(this.gap_s, 8 * this.usual) ? null : this.v[i];
  }

  place(t) {
    let [low, high] = [0, this.t.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.t[middle] < t) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  after(t) {
    const at = this.place(t);
    return this.t[at] === t ? at + 1 : at;
  }

  /** Merge what is closer together than a resolution that the whole stretch is given; the newest tenth stays. */
  thin() {
    const rest = this.t.length - Math.floor(MOST / 10);
    const width = (this.t.at(-1) - this.t[0]) / (MOST / 2);
    const kept = { t: [], v: [], low: [], high: [] };
    for (let i = 0, next; i < rest; i = next) {
      for (next = i + 1; next < rest && this.t[next] - this.t[i] < width; ) next += 1;
      const part = (name) => this[name].slice(i, next);
      const unknown = part("v").includes(null);
      kept.t.push(this.t[next - 1]);
      kept.v.push(unknown ? null : part("v").reduce((sum, v) => sum + v, 0) / (next - i));
      kept.low.push(unknown ? null : Math.min(...part("low")));
      kept.high.push(unknown ? null : Math.max(...part("high")));
    }
    for (const name of ["t", "v", "low", "high"]) this[name] = kept[name].concat(this[name].slice(rest));
  }
}

/** Return series on one common axis of time: {x, series: [{v, low, high}, ...]}, the last value before each time. */
export function together(list, from) {
  const parts = list.map((series) => series.since(from));
  const x = [...new Set(parts.flatMap((part) => part.t))].sort((a, b) => a - b);
  const aligned = parts.map((part, which) => {
    const out = { v: new Array(x.length).fill(null), low: new Array(x.length).fill(null), high: new Array(x.length).fill(null) };
    const hold_s = Math.max(list[which].gap_s, 8 * list[which].usual);
    let i = -1;
    for (let k = 0; k < x.length; k += 1) {
      while (i + 1 < part.t.length && part.t[i + 1] <= x[k]) i += 1;
      if (i < 0 || x[k] - part.t[i] > hold_s) continue;
      out.v[k] = part.v[i];
      out.low[k] = part.low[i];
      out.high[k] = part.high[i];
    }
    return out;
  });
  return { x, series: aligned };
}
