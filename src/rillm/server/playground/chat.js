// The running conversation: asks, follows the stream, stops, and keeps turns and views in step.

import { addChunk, newAnswer, openCalls } from "./answer.js";
import { Conversation } from "./conversation.js";
import { announce, toast } from "./dom.js";
import { buildRequest } from "./request.js";
import { streamChat } from "./server.js";
import { AnswerTurnView, userTurnView } from "./turn_view.js";

const MAX_ANNOUNCED = 600;
const SAVE_EVERY_MS = 2000;
const MAX_CHOICES = 64;

export class Chat {
  #conversation = Conversation.restore();
  #settings;
  #list;
  #scroller;
  #hooks;
  #views = [];
  #running = null;
  #isPinned = true;
  /** Which views of answers are open; new answers follow. */
  #shown = { tokens: false, timeline: false };

  /**
   * @param {import("./settings.js").Settings} settings
   * @param {HTMLElement} scroller holds `list`, which holds the turns
   * @param {object} hooks
   * @param {() => void} hooks.changed running or empty have changed
   * @param {(text: string) => void} hooks.edit words go back into the message box
   * @param {(error: Error) => void} hooks.refused a request was refused before its answer began
   */
  constructor(settings, scroller, list, hooks) {
    this.#settings = settings;
    this.#scroller = scroller;
    this.#list = list;
    this.#hooks = hooks;
    scroller.addEventListener("scroll", () => {
      const below = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight;
      this.#isPinned = below < 60;
    }, { passive: true });
    addEventListener("pagehide", () => this.#conversation.save());
    this.#showAll();
  }

  get isRunning() {
    return this.#running !== null;
  }

  get isEmpty() {
    return this.#conversation.turns.length === 0;
  }

  /** The body that the next answer would be, or the last one was, asked for with. */
  request() {
    return buildRequest(this.#settings.read(), this.#conversation.asked());
  }

  /** Say something and ask for an answer. */
  send(text) {
    if (this.isRunning) return;
    this.#add({ role: "user", content: text });
    this.ask();
  }

  /** Ask for the next answer. */
  async ask() {
    let body;
    try {
      body = buildRequest(this.#settings.read(), this.#conversation.turns);
    } catch (error) {
      this.#fail(error);
      return;
    }
    const turn = { role: "assistant", answer: newAnswer(Math.min(MAX_CHOICES, Math.max(1, body.n ?? 1))) };
    const view = this.#add(turn);
    const abort = new AbortController();
    this.#running = { abort, turn };
    this.#isPinned = true;
    view.begin();
    announce("Answering");
    this.#hooks.changed();
    try {
      await this.#follow(body, turn.answer, view, abort.signal);
    } catch (error) {
      this.#note(error, turn);
    }
    this.#running = null;
    this.#finish(turn, view);
  }

  /** End the answer that is coming; the server ends it when the connection closes. */
  stop() {
    this.#running?.abort.abort();
  }

  /** Forget everything; what was there comes back on demand. */
  clear() {
    this.stop();
    this.#cutTo(0, "Conversation cleared");
  }

  async #follow(body, answer, view, signal) {
    const startMs = performance.now();
    let savedMs = startMs;
    for await (const { atMs, chunks } of streamChat(body, signal)) {
      for (const chunk of chunks) addChunk(answer, chunk, atMs - startMs);
      view.grow();
      if (atMs - savedMs > SAVE_EVERY_MS && answer.choices[0].arrivals.length < 2000) {
        this.#conversation.save();
        savedMs = atMs;
      }
    }
  }

  #note(error, turn) {
    if (error.name === "AbortError") {
      turn.answer.isStopped = true;
      return;
    }
    turn.answer.error = error.message;
    this.#settings.markError(error.param, error.message);
    this.#hooks.refused(error);
  }

  #finish(turn, view) {
    turn.answer.isComplete = true;
    view.end();
    this.#conversation.save();
    this.#stick();
    announce(spoken(turn.answer));
    this.#hooks.changed();
  }

  /** A request that cannot even be made. */
  #fail(error) {
    this.#settings.markError(error.param, error.message);
    toast(error.message);
    announce(error.message);
  }

  #giveResult(turn, call, result) {
    const { calls } = turn.answer.choices[turn.answer.chosen];
    turn.results ??= calls.map(() => null);
    turn.results[call] = result;
    const index = this.#conversation.turns.indexOf(turn);
    if (index < this.#conversation.turns.length - 1) this.#cutTo(index + 1, "Later turns removed");
    this.#views[index].end();
    this.#conversation.save();
    if (turn.results.every((each) => each !== null)) this.ask();
  }

  #add(turn) {
    this.#conversation.turns.push(turn);
    const view = this.#show(turn);
    this.#conversation.save();
    this.#stick();
    this.#hooks.changed();
    return view;
  }

  #show(turn) {
    const index = () => this.#conversation.turns.indexOf(turn);
    if (turn.role === "user") {
      const element = userTurnView(turn, () => {
        if (this.isRunning) return;
        this.#cutTo(index(), "Taken back to the message box");
        this.#hooks.edit(turn.content);
      });
      this.#list.append(element);
      this.#views.push(element);
      return element;
    }
    const view = new AnswerTurnView(turn, { ...this.#shown }, {
      retry: () => {
        if (this.isRunning) return;
        this.#cutTo(index());
        this.ask();
      },
      giveResult: (call, result) => !this.isRunning && this.#giveResult(turn, call, result),
      toggled: (name, isShown) => { this.#shown[name] = isShown; },
      changed: () => this.#conversation.save(),
      grown: () => this.#stick(),
    });
    this.#list.append(view.element);
    this.#views.push(view);
    return view;
  }

  #showAll() {
    for (const turn of this.#conversation.turns) {
      const view = this.#show(turn);
      if (turn.role !== "assistant") continue;
      // The page was left while this one was on its way.
      if (!turn.answer.isComplete) turn.answer.isStopped = true;
      view.end();
    }
    this.#stick();
  }

  /** Drop the turns from an index on. @param {string} [note] offers to take that back */
  #cutTo(index, note) {
    const before = [...this.#conversation.turns];
    if (before.length === index) return;
    this.#conversation.turns.length = index;
    for (const view of this.#views.splice(index)) view.remove();
    this.#conversation.save();
    this.#hooks.changed();
    if (note) toast(note, { name: "Undo", run: () => this.#bringBack(before) });
  }

  #bringBack(turns) {
    if (this.isRunning) return;
    for (const view of this.#views.splice(0)) view.remove();
    this.#conversation.turns = turns;
    this.#conversation.save();
    this.#showAll();
    this.#hooks.changed();
  }

  /** Keep the end in view, unless the reader has scrolled away from it. */
  #stick() {
    if (this.#isPinned) this.#scroller.scrollTop = this.#scroller.scrollHeight;
  }
}

/** What a screen reader says when an answer is complete. */
function spoken(answer) {
  if (answer.error) return answer.error;
  const choice = answer.choices[answer.chosen];
  const calls = openCalls(choice).map(({ name }) => `The model calls ${name} and waits for a result.`);
  const text = choice.content.slice(0, MAX_ANNOUNCED);
  return [answer.isStopped ? "Stopped." : "Answer:", text, ...calls].join(" ");
}
