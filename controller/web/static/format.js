// Numbers, units, times and durations as people read them. A value that is not known is a dash, never a number.

export const DASH = "–";
const MINUS = "−";
const PREFIXES = [
  [1e-15, "f"], [1e-12, "p"], [1e-9, "n"], [1e-6, "µ"], [1e-3, "m"], [1, ""], [1e3, "k"], [1e6, "M"], [1e9, "G"],
];
const COULOMB_PER_UAH = 3.6e-3;
const ZERO_C_K = 273.15;

/** Return a number with a true minus sign and a fixed count of decimals. */
export function fixed(value, digits) {
  if (value == null || !Number.isFinite(value)) return DASH;
  return value.toFixed(digits).replace("-", MINUS).replace(/^−(0(\.0*)?)$/, "$1");
}

/** Return a number with significant digits, without an exponent where that is readable. */
export function significant(value, digits = 3) {
  if (value == null || !Number.isFinite(value)) return DASH;
  if (value === 0) return "0";
  const size = Math.floor(Math.log10(Math.abs(value)));
  if (size > 6 || size < -4) {
    const [mantissa, exponent] = value.toExponential(digits - 1).split("e");
    return `${mantissa} × 10${raised(Number(exponent))}`.replace("-", MINUS);
  }
  return fixed(value, Math.max(0, digits - 1 - size));
}

function raised(number) {
  return String(number).replace(/[-0-9]/g, (c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[Number(c)]));
}

/** Return {text, unit} of a quantity in SI, in the unit that people of this trade use. */
export function quantity(value, unit) {
  const known = value != null && Number.isFinite(value);
  switch (unit) {
    case "K": return { text: known ? fixed(value, 1) : DASH, unit: "K" };
    case "V": return { text: known ? fixed(value, 3) : DASH, unit: "V" };
    case "C": return { text: known ? fixed(value / COULOMB_PER_UAH, 3) : DASH, unit: "µAh" };
    case "1": case "": case null: case undefined: return { text: significant(value, 3), unit: "" };
    case "A": case "W": case "Hz": case "s": case "ohm": {
      if (!known || value === 0) return { text: known ? "0" : DASH, unit: unit === "A" ? "µA" : unit };
      const [scale, prefix] = prefixFor(value);
      return { text: fixed(value / scale, 2), unit: prefix + (unit === "ohm" ? "Ω" : unit) };
    }
    default: return { text: significant(value, 3), unit };
  }
}

/** Return [factor, prefix] so that value / factor lies in 1 to 1000 where there is a prefix. */
export function prefixFor(value) {
  let found = PREFIXES[0];
  for (const entry of PREFIXES) if (Math.abs(value) >= entry[0] * 0.9995) found = entry;
  return found;
}

/** Return a quantity as one text, as "12.02 µA". */
export function text(value, unit) {
  const told = quantity(value, unit);
  return told.unit && told.text !== DASH ? `${told.text} ${told.unit}` : told.text;
}

/** Return a quantity with as few digits as say it: a limit, a mark. */
export function brief(value, unit) {
  const { text: told, unit: shown } = quantity(value, unit);
  const plain = told.includes(".") ? told.replace(/\.?0+$/, "") : told;
  return shown ? `${plain} ${shown}` : plain;
}

/** Return kelvin in degrees Celsius as a text. */
export function celsius(value_k) {
  return value_k == null ? "" : `${fixed(value_k - ZERO_C_K, 1)} °C`;
}

/** Return value ± sigma with as many decimals as the error has meaning (two digits of it). */
export function withError(value, sigma, unit = "", scale = 1) {
  if (value == null || !Number.isFinite(value)) return DASH;
  const tail = unit ? ` ${unit}` : "";
  if (sigma == null || !(sigma > 0)) return significant(value * scale, 4) + tail;
  const digits = Math.min(6, Math.max(0, 1 - Math.floor(Math.log10(sigma * scale))));
  return `${fixed(value * scale, digits)} ± ${fixed(sigma * scale, digits)}${tail}`;
}

/** Return a fraction as per cent with its error, as "31.2 ± 2.1 %". */
export function percent(value, sigma = null) {
  if (value == null || !Number.isFinite(value)) return DASH;
  if (sigma == null) return `${fixed(value * 100, 1)} %`;
  const digits = sigma * 100 >= 9.95 ? 0 : sigma * 100 >= 0.095 ? 1 : 2;
  return `${fixed(value * 100, digits)} ± ${fixed(sigma * 100, digits)} %`;
}

/** Return a duration in words of two parts at the most: "1 h 04 min", "45 s". */
export function duration(seconds) {
  if (seconds == null || !Number.isFinite(seconds)) return DASH;
  const whole = Math.max(0, Math.round(seconds));
  const days = Math.floor(whole / 86400);
  const hours = Math.floor(whole / 3600) % 24;
  const minutes = Math.floor(whole / 60) % 60;
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${String(minutes).padStart(2, "0")} min`;
  if (minutes >= 10) return `${minutes} min`;
  if (minutes) return whole % 60 ? `${minutes} min ${String(whole % 60).padStart(2, "0")} s` : `${minutes} min`;
  return `${whole} s`;
}

/** Return how long ago something was, in words; tenths of a second below three. */
export function age(seconds) {
  if (seconds == null || !Number.isFinite(seconds)) return "never";
  return seconds < 3 ? `${Math.max(0, seconds).toFixed(1)} s` : duration(seconds);
}

/** Return the time of day of wall seconds, with the date when that is not today. */
export function clock(wall_s, { seconds = true } = {}) {
  if (wall_s == null) return DASH;
  const then = new Date(wall_s * 1000);
  const two = (n) => String(n).padStart(2, "0");
  const time = `${two(then.getHours())}:${two(then.getMinutes())}${seconds ? `:${two(then.getSeconds())}` : ""}`;
  if (then.toDateString() === new Date().toDateString()) return time;
  return `${then.getFullYear()}-${two(then.getMonth() + 1)}-${two(then.getDate())} ${time}`;
}

/** Return a count of things in words: plural(3, "pass", "passes") is "3 passes". */
export function plural(count, one, many = `${one}s`) {
  return `${count} ${count === 1 ? one : many}`;
}

const SHORT_PART = 26; // letters: what is longer may wrap anywhere

/** Join short notes with dots so that a line ends between two of them, never between a number and its unit. */
export const notes = (parts) => parts.filter(Boolean)
  .map((part) => (part.length <= SHORT_PART ? part.replaceAll(" ", "\u00a0") : part)).join(" ·\u00a0");
