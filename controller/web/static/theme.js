// The two switches of the header: theme (system, light, dark) and view (by screen, page, wall). Kept on this device.

import { byId } from "./dom.js";

const DARK = matchMedia("(prefers-color-scheme: dark)");
const WALL = matchMedia("(min-width: 1800px) and (min-height: 1000px)"); // full screen on a wall, not a window

function kept(name) {
  const asked = new URLSearchParams(location.search).get(name);
  if (asked) return asked;
  try { return localStorage.getItem(`operando.${name}`) ?? "auto"; } catch { return "auto"; }
}

function keep(name, value) {
  try { localStorage.setItem(`operando.${name}`, value); } catch { /* a private window: for this visit only */ }
}

/** Set both switches up; ``changed`` is called when everything must be drawn again. */
export function switches(changed) {
  const root = document.documentElement;
  const [theme, view] = [byId("theme"), byId("view")];
  const apply = () => {
    const dark = theme.value === "dark" || (theme.value === "auto" && DARK.matches);
    const wall = view.value === "wall" || (view.value === "auto" && WALL.matches);
    root.dataset.theme = dark ? "dark" : "light";
    root.dataset.view = wall ? "wall" : "page";
    changed();
  };
  for (const [select, name] of [[theme, "theme"], [view, "view"]]) {
    const value = kept(name);
    if ([...select.options].some((option) => option.value === value)) select.value = value;
    select.addEventListener("change", () => {
      keep(name, select.value);
      apply();
    });
  }
  DARK.addEventListener("change", apply);
  WALL.addEventListener("change", apply);
  apply();
}
