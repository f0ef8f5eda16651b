// The turns of a conversation: what a person said, and an answer with its views and its figures.

import { button, copyText, Frame, make } from "./dom.js";
import { ChoiceView } from "./choice_view.js";
import { formatMs, summarize } from "./timing.js";
import { Timeline } from "./timeline.js";

let numViews = 0;

/** @param {() => void} onEdit takes the words back into the message box */
export function userTurnView(turn, onEdit) {
  const text = make("div", { class: "user-text" }, turn.content);
  const edit = button("Edit", "edit", onEdit, { class: "quiet edit", "aria-label": "Edit this message" });
  return make("article", { class: "turn user", "aria-label": "You" }, text, edit);
}

export class AnswerTurnView {
  #id = ++numViews;
  #turn;
  #views;
  #actions;
  #choices;
  #timeline = null;
  #frame = new Frame(() => this.#update());
  #error = make("p", { class: "error", role: "alert", hidden: true });
  #figures = make("span", { class: "figures" });
  #toolbar;

  /**
   * @param {import("./conversation.js").AssistantTurn} turn
   * @param {{tokens: boolean, timeline: boolean}} views which are shown; changed by the reader
   * @param {object} actions
   * @param {() => void} actions.retry
   * @param {(index: number, result: string) => void} actions.giveResult
   * @param {(name: string, isShown: boolean) => void} actions.toggled a view was opened or closed
   * @param {() => void} actions.changed what is to be kept has changed
   * @param {() => void} actions.grown it has become longer
   */
  constructor(turn, views, actions) {
    this.#turn = turn;
    this.#views = views;
    this.#actions = actions;
    this.#choices = turn.answer.choices.map(
      (choice, index) => new ChoiceView(choice, (call, result) => this.#giveResult(index, call, result)),
    );
    const isMany = this.#choices.length > 1;
    const columns = this.#choices.map((view, index) => (isMany ? this.#column(view, index) : view.element));
    this.#toolbar = this.#makeToolbar();
    this.element = make(
      "article",
      { class: "turn answer", "aria-label": "Answer" },
      make("div", { class: isMany ? "choices is-many" : "choices" }, ...columns),
      this.#error,
      this.#toolbar,
    );
    for (const [name, isShown] of Object.entries(views)) if (isShown) this.#show(name, true);
  }

  /** The answer is on its way. */
  begin() {
    this.element.classList.add("is-live");
    this.element.setAttribute("aria-busy", "true");
    this.#toolbar.hidden = true;
  }

  /** Something was added to the answer; shown with the next picture. */
  grow() {
    this.#frame.request();
  }

  /** The answer is complete, stopped or failed. */
  end() {
    this.element.classList.remove("is-live");
    this.element.removeAttribute("aria-busy");
    this.#toolbar.hidden = false;
    this.#frame.flush();
    const { answer, results } = this.#turn;
    this.#choices.forEach((view, index) =>
      view.end(index === answer.chosen ? results : undefined),
    );
    this.#timeline?.update(true);
    this.#error.hidden = !answer.error;
    this.#error.textContent = answer.error ?? "";
    this.#figures.textContent = figuresOf(answer);
  }

  remove() {
    this.#timeline?.remove();
    this.element.remove();
  }

  #update() {
    for (const view of this.#choices) view.update();
    this.#timeline?.update();
    this.#actions.grown();
  }

  #column(view, index) {
    const input = make("input", {
      type: "radio",
      name: `chosen-${this.#id}`,
      checked: index === this.#turn.answer.chosen,
      onchange: () => {
        this.#turn.answer.chosen = index;
        this.#actions.changed();
      },
    });
    const label = make("label", { class: "choice-head" }, input, `Answer ${index + 1}`);
    return make("section", { class: "column", "aria-label": `Answer ${index + 1}` }, label, view.element);
  }

  #giveResult(index, call, result) {
    const { answer } = this.#turn;
    if (answer.chosen !== index) {
      answer.chosen = index;
      this.#turn.results = undefined;
      this.element.querySelectorAll(".choice-head input")[index].checked = true;
    }
    this.#actions.giveResult(call, result);
  }

  #makeToolbar() {
    const toggle = (name, title, symbol) =>
      button(title, symbol, (event) => this.#toggle(name, event.currentTarget), {
        "aria-pressed": String(this.#views[name]),
      });
    return make(
      "footer",
      { class: "toolbar" },
      this.#figures,
      toggle("tokens", "Tokens", "tokens"),
      toggle("timeline", "Timeline", "timeline"),
      button("Copy", "copy", () => copyText(this.#chosen().content), { "aria-label": "Copy answer" }),
      button("Again", "retry", () => this.#actions.retry(), { "aria-label": "Answer again" }),
    );
  }

  #chosen() {
    return this.#turn.answer.choices[this.#turn.answer.chosen];
  }

  #toggle(name, control) {
    const isShown = control.getAttribute("aria-pressed") !== "true";
    control.setAttribute("aria-pressed", String(isShown));
    this.#views[name] = isShown;
    this.#show(name, isShown);
    this.#actions.toggled(name, isShown);
  }

  #show(name, isShown) {
    if (name === "tokens") {
      for (const view of this.#choices) view.showTokens(isShown);
    } else if (isShown) {
      this.#timeline = new Timeline(this.#turn.answer);
      this.#toolbar.before(this.#timeline.element);
      if (this.element.isConnected) this.#toolbar.scrollIntoView({ block: "nearest" });
    } else {
      this.#timeline?.remove();
      this.#timeline = null;
    }
  }
}

function figuresOf(answer) {
  const { firstMs, numTokens, numPromptTokens, numCachedTokens, tokensPerSecond } = summarize(answer);
  const figures = [];
  if (answer.isStopped) figures.push("stopped");
  if (numPromptTokens !== null) {
    const cached = numCachedTokens ? ` (${numCachedTokens} cached)` : "";
    figures.push(`${numPromptTokens}${cached} → ${numTokens} tokens`);
  }
  if (tokensPerSecond !== null) figures.push(`${tokensPerSecond.toFixed(0)} tok/s`);
  if (firstMs !== null) figures.push(`first after ${formatMs(firstMs)}`);
  return figures.join(" · ");
}
