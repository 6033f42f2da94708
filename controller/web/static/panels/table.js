// Tables: what a plot shows, for whoever does not look at plots. Filled only while somebody has them open.

import { h } from "../dom.js";

/** Return a table: columns [{title, n: numeric}], rows of texts, the first of each row its header. */
export function table(caption, columns, rows) {
  return h("table", {}, h("caption", {}, caption),
    h("thead", {}, h("tr", {}, ...columns.map(({ title, n }) => h(n ? "th.n" : "th", { scope: "col" }, title)))),
    h("tbody", {}, ...rows.map((row) => h("tr", {}, ...row.map((cell, i) => (
      i === 0 ? h("th", { scope: "row" }, cell) : h(columns[i].n ? "td.n" : "td", {}, cell)))))));
}

/** The name of the panel, so that no two regions are called the same. */
function named(details) {
  const title = details.closest("section")?.querySelector("h2")?.textContent ?? "";
  return `${title}: ${details.querySelector("summary").textContent}`.trim();
}

/** Keep a table below a <details>: ``make`` returns tables; it is asked while open, at most once in 2 s. */
export function asTable(details, make) {
  const room = h("div.scroll", { tabindex: "0", role: "region", "aria-label": named(details) });
  details.append(room);
  let last = 0;
  const fill = (now = false) => {
    if (!details.open || (!now && performance.now() - last < 2000)) return;
    last = performance.now();
    const at = room.scrollTop;
    room.replaceChildren(...make());
    room.scrollTop = at;
  };
  details.addEventListener("toggle", () => fill(true));
  return fill;
}
