// The tokens of a choice, coloured by how probable the model held each of them.

import { byId, make } from "./dom.js";

const NAMES = { " ": "space", "\n": "line break", "\t": "tab" };
const LEVELS = [0.9, 0.7, 0.5, 0.3, 0.15, 0.05];
let numViews = 0;

/** 0 for a token that was as good as certain, to 6 for one that was a surprise. */
export function levelOf(logprob) {
  const probability = Math.exp(logprob);
  const level = LEVELS.findIndex((least) => probability >= least);
  return level < 0 ? LEVELS.length : level;
}

export const formatProbability = (logprob) => {
  const percent = 100 * Math.exp(logprob);
  if (percent > 0 && percent < 0.1) return "< 0.1 %";
  return `${percent.toFixed(percent >= 99.95 || percent < 0.05 ? 0 : 1)} %`;
};

/** Text with its white space made visible. */
const visible = (text) => text.replaceAll(" ", "␣").replaceAll("\n", "↵").replaceAll("\t", "⇥");

/**
 * A list in which arrow keys move, and over which a pointer does: the token under either is
 * described in a box beside it.
 */
export class TokenView {
  #tokens;
  #list;
  #id;
  #shown = 0;
  #current = -1;

  /** @param {import("./answer.js").Token[]} tokens more may be added to it */
  constructor(tokens) {
    this.#tokens = tokens;
    this.#id = `tokens-${++numViews}`;
    this.#list = make("div", {
      class: "tokens",
      role: "listbox",
      tabindex: "0",
      "aria-label": "Tokens with their probabilities",
      "aria-orientation": "horizontal",
      onkeydown: (event) => this.#move(event),
      onfocus: () => this.#select(Math.max(0, this.#current)),
      onblur: hideDetails,
      onpointerover: (event) => this.#point(event.target),
      onpointerleave: hideDetails,
      onclick: (event) => this.#point(event.target),
    });
    this.element = make("div", { class: "token-view" }, this.#list, legend());
    this.update();
  }

  /** Show what has been added. */
  update() {
    const added = document.createDocumentFragment();
    for (; this.#shown < this.#tokens.length; this.#shown += 1) {
      const [text, logprob] = this.#tokens[this.#shown];
      const attributes = {
        role: "option",
        class: `token level-${levelOf(logprob)}`,
        id: `${this.#id}-${this.#shown}`,
        "aria-selected": "false",
        "aria-label": `${NAMES[text] ?? text}, ${formatProbability(logprob)}`,
      };
      added.append(make("span", attributes, text.replaceAll("\n", "↵\n")));
    }
    this.#list.append(added);
    this.element.classList.toggle("is-empty", this.#tokens.length === 0);
  }

  #move(event) {
    const last = this.#tokens.length - 1;
    const to = {
      ArrowRight: this.#current + 1,
      ArrowLeft: this.#current - 1,
      ArrowDown: this.#current + 10,
      ArrowUp: this.#current - 10,
      Home: 0,
      End: last,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.#select(Math.min(last, Math.max(0, to)));
  }

  #point(target) {
    if (target.getAttribute("role") === "option") this.#select(Number(target.id.split("-")[2]));
  }

  #select(index) {
    const option = this.#list.children[index];
    if (!option) return;
    this.#list.children[this.#current]?.setAttribute("aria-selected", "false");
    this.#current = index;
    option.setAttribute("aria-selected", "true");
    this.#list.setAttribute("aria-activedescendant", option.id);
    showDetails(option, this.#tokens[index]);
  }
}

function legend() {
  const steps = Array.from({ length: LEVELS.length + 1 }, (_, level) =>
    make("span", { class: `token level-${level}` }, "\u00a0"),
  );
  const empty = make(
    "p",
    { class: "no-tokens" },
    "This answer came without probabilities. Switch them on under Settings, Tokens, and ask again.",
  );
  const scale = make("p", { class: "legend", "aria-hidden": "true" }, "certain ", ...steps, " surprising");
  return make("div", {}, empty, scale);
}

function showDetails(option, [text, logprob, top]) {
  const rows = (top.length ? top : [[text, logprob]]).map(([each, its]) => {
    const bar = make("span", { class: "bar" });
    bar.style.setProperty("--share", `${100 * Math.exp(its)}%`);
    const isChosen = each === text && its === logprob;
    return make(
      "li",
      { class: isChosen ? "is-chosen" : null },
      make("code", {}, visible(each)),
      bar,
      make("span", {}, formatProbability(its)),
    );
  });
  const isListed = top.some(([each, its]) => each === text && its === logprob);
  const head = make("p", {}, make("code", {}, visible(text)), ` ${formatProbability(logprob)}`);
  const note = isListed || !top.length ? null : make("p", { class: "note" }, "was not among the likeliest");
  const box = byId("token-details");
  box.replaceChildren(head, ...(note ? [note] : []), make("ul", {}, ...rows));
  box.hidden = false;
  const { left, top: above, bottom } = option.getBoundingClientRect();
  const { width, height } = box.getBoundingClientRect();
  const isBelow = bottom + height + 8 < innerHeight;
  box.style.left = `${Math.max(8, Math.min(left, innerWidth - width - 8))}px`;
  box.style.top = `${Math.max(8, isBelow ? bottom + 4 : above - height - 4)}px`;
}

export function hideDetails() {
  byId("token-details").hidden = true;
}
