// One choice of an answer: reasoning that folds, text, and the calls of functions.

import { icon, make } from "./dom.js";
import { openCalls } from "./answer.js";
import { JsonLayout } from "./json_text.js";
import { MarkdownView } from "./markdown.js";
import { EXAMPLE_RESULT, EXAMPLE_TOOLS } from "./request.js";
import { formatMs } from "./timing.js";
import { TokenView } from "./token_view.js";

const ENDINGS = {
  length: "Cut off: the limit of tokens was reached",
  content_filter: "Ended by a filter",
  repetition: "Ended: it repeated itself",
};

export class ChoiceView {
  #choice;
  #reasoning = null;
  #content = null;
  #cards = [];
  #tokens = null;
  #text = make("div", { class: "text" });
  #ending = make("p", { class: "ending", hidden: true });
  #onResult;

  /**
   * @param {import("./answer.js").Choice} choice
   * @param {(index: number, result: string) => void} onResult called with the result of a call
   */
  constructor(choice, onResult) {
    this.#choice = choice;
    this.#onResult = onResult;
    this.element = make("div", { class: "choice" }, this.#text, this.#ending);
  }

  /** Show what has been added since the last call. */
  update() {
    this.#updateReasoning();
    this.#updateContent();
    this.#choice.calls.forEach((call, index) => {
      this.#cards[index] ??= this.#addCard(call, index);
      this.#cards[index].update();
    });
    this.#tokens?.update();
  }

  /** No more comes. */
  end(results) {
    this.update();
    this.#reasoning?.end(this.#choice.reasoningMs, this.#choice.arrivals);
    this.#content?.view.end();
    const open = openCalls(this.#choice).length;
    this.#cards.forEach((card, index) => card.end(open ? (results?.[index] ?? undefined) : null));
    const ending = ENDINGS[this.#choice.finish];
    this.#ending.hidden = !ending;
    this.#ending.textContent = ending ?? "";
  }

  /** Show tokens in place of the text they make, or the text again. */
  showTokens(isShown) {
    if (isShown && !this.#tokens) {
      this.#tokens = new TokenView(this.#choice.tokens);
      this.element.append(this.#tokens.element);
    }
    if (!isShown && this.#tokens) {
      this.#tokens.element.remove();
      this.#tokens = null;
    }
    this.#text.hidden = isShown;
  }

  #updateReasoning() {
    const { reasoning, reasoningMs } = this.#choice;
    if (!reasoning) return;
    if (!this.#reasoning) {
      this.#reasoning = new ReasoningView();
      this.#text.prepend(this.#reasoning.element);
    }
    this.#reasoning.update(reasoning, reasoningMs !== null);
  }

  #updateContent() {
    const { content } = this.#choice;
    if (!content) return;
    if (!this.#content) {
      const element = make("div", { class: "prose" });
      this.#text.append(element);
      this.#content = { view: new MarkdownView(element), length: 0 };
    }
    this.#content.view.append(content.slice(this.#content.length));
    this.#content.length = content.length;
  }

  #addCard(call, index) {
    const card = new CallCard(call, (result) => this.#onResult(index, result));
    this.#text.append(card.element);
    return card;
  }
}

/** Reasoning: open while it comes, folded when something else begins, unless the reader decides. */
class ReasoningView {
  #text = document.createTextNode("");
  #label = make("span", {}, "Reasoning");
  #isLeftAlone = true;

  constructor() {
    const summary = make("summary", {}, icon("thought"), this.#label);
    const body = make("div", { class: "reasoning-text" }, this.#text);
    this.element = make("details", { class: "reasoning is-live", open: true }, summary, body);
    summary.addEventListener("click", () => { this.#isLeftAlone = false; });
  }

  update(reasoning, isOver) {
    if (reasoning.length > this.#text.length) this.#text.appendData(reasoning.slice(this.#text.length));
    if (isOver && this.#isLeftAlone) this.element.open = false;
    this.element.classList.toggle("is-live", !isOver);
  }

  end(endMs, arrivals) {
    this.element.classList.remove("is-live");
    if (endMs !== null && arrivals.length) {
      this.#label.textContent = `Reasoned for ${formatMs(endMs - arrivals[0][0])}`;
    }
  }
}

/** A call: its arguments fill in as they arrive, then its result can be given by hand. */
class CallCard {
  #call;
  #name = make("code", { class: "call-name" });
  #state = make("span", { class: "call-state" }, "arriving");
  #code = make("code");
  #layout = new JsonLayout();
  #length = 0;
  #onResult;

  constructor(call, onResult) {
    this.#call = call;
    this.#onResult = onResult;
    const header = make("header", {}, icon("tool"), this.#name, this.#state);
    this.element = make("section", { class: "call is-live" }, header, make("pre", {}, this.#code));
  }

  update() {
    if (this.#name.textContent !== this.#call.name) {
      this.#name.textContent = this.#call.name;
      this.element.setAttribute("aria-label", `Call of ${this.#call.name}`);
    }
    const text = this.#call.arguments;
    for (const [kind, piece] of this.#layout.push(text.slice(this.#length))) {
      const last = this.#code.lastElementChild;
      if (last?.className === `json-${kind}`) last.firstChild.appendData(piece);
      else this.#code.append(make("span", { class: `json-${kind}` }, piece));
    }
    this.#length = text.length;
  }

  /** @param {string | null | undefined} result null: it cannot be answered; undefined: not yet */
  end(result) {
    this.element.classList.remove("is-live");
    this.element.querySelector(".call-result")?.remove();
    this.#state.textContent = result === null ? "cut off" : result === undefined ? "waits for a result" : "answered";
    if (result === undefined) this.element.append(this.#form());
    else if (result !== null) this.element.append(shownResult(result));
  }

  #form() {
    const isExample = this.#call.name === EXAMPLE_TOOLS[0].function.name;
    const name = `Result of ${this.#call.name}`;
    const field = make("textarea", { rows: "2", "aria-label": name, spellcheck: "false" });
    field.value = isExample ? EXAMPLE_RESULT : "";
    field.placeholder = "What the function returns, as text or JSON";
    const send = () => this.#onResult(field.value);
    field.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      send();
    });
    const submit = make("button", { type: "button", class: "primary small", onclick: send }, "Send result");
    return make("div", { class: "call-result" }, field, submit);
  }
}

function shownResult(result) {
  const label = make("span", { class: "call-result-label" }, "Result");
  return make("div", { class: "call-result" }, label, make("pre", {}, result));
}
