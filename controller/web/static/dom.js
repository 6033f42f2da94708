// The few words of DOM that the panels need. Text is always set as text: nothing that was received is parsed as HTML.

const SVG = "http://www.w3.org/2000/svg";

/** Return an element: h("p.small", {id: "x", onclick: f}, "text", child). */
export function h(what, attributes = {}, ...children) {
  const [tag, ...classes] = what.split(".");
  const element = document.createElement(tag || "div");
  if (classes.length) element.className = classes.join(" ");
  for (const [name, value] of Object.entries(attributes)) {
    if (value == null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

/** Return an icon of the sheet in index.html; it says nothing to a screen reader, the words beside it do. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/** Change which icon an svg of ``icon`` shows. */
export function setIcon(svg, name) {
  const use = svg.querySelector("use");
  if (use && use.getAttribute("href") !== `#i-${name}`) use.setAttribute("href", `#i-${name}`);
}

/** Set a text only where it changed: a live region speaks every time it is touched. */
export function setText(element, text) {
  const next = text == null ? "" : String(text);
  if (element.textContent !== next) element.textContent = next;
}

/** Set or remove an attribute only where it changed. */
export function setAttr(element, name, value) {
  if (value == null || value === false) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
  } else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, String(value));
}

/** Make the children of a list fit the items, by key, keeping the elements that stay. */
export function keyed(parent, items, key, make, update) {
  const have = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let before = parent.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    let element = have.get(name);
    if (element) have.delete(name);
    else {
      element = make(item);
      element.dataset.key = name;
    }
    if (element === before) before = before.nextElementSibling;
    else parent.insertBefore(element, before);
    update?.(element, item);
  }
  for (const element of have.values()) element.remove();
}

/** Return an element of the page that must be there. */
export function byId(id) {
  const element = document.getElementById(id);
  if (!element) throw new Error(`#${id} is missing in index.html`);
  return element;
}

/** Return what a custom property of the present theme is. */
export function themed(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}
