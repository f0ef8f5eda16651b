// Small helpers over the DOM. Nothing in this folder parses markup: text becomes text nodes.

const SVG = "http://www.w3.org/2000/svg";

/**
 * Make an element.
 * @param {string} tag
 * @param {Record<string, unknown>} attributes `onclick` and the like are listeners; null, undefined
 *   and false leave an attribute out, true sets it empty.
 * @param {...(Node|string|null|undefined)} children
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** One of the symbols at the end of index.html, for a control that has a name besides it. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

/** A button with a symbol and a visible name. */
export function button(name, symbol, onclick, attributes = {}) {
  return make(
    "button",
    { type: "button", class: "quiet", onclick, ...attributes },
    icon(symbol),
    make("span", {}, name),
  );
}

export const byId = (id) => document.getElementById(id);

/** Runs `work` once before the next paint, however often it was asked for. */
export class Frame {
  #work;
  #id = 0;

  constructor(work) {
    this.#work = work;
  }

  request() {
    if (!this.#id) this.#id = requestAnimationFrame(() => this.flush());
  }

  /** Do it now; a hidden page is never painted. */
  flush() {
    cancelAnimationFrame(this.#id);
    this.#id = 0;
    this.#work();
  }
}

/** Tell a screen reader, without moving anything. */
export function announce(text) {
  byId("announcer").textContent = text;
}

let toastTimer = 0;

/** A short message at the edge, with at most one thing to do about it. */
export function toast(text, action = null) {
  const box = byId("toast");
  const undo =
    action &&
    make("button", { type: "button", onclick: () => { box.hidden = true; action.run(); } }, action.name);
  box.replaceChildren(make("span", {}, text), ...(undo ? [undo] : []));
  box.hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => { box.hidden = true; }, action ? 8000 : 3000);
}

export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    toast("Copied");
  } catch {
    toast("The browser did not allow copying; select the text instead");
  }
}
