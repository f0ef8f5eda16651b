// The conversation, and how the browser keeps it.

import { BASE } from "./server.js";

const KEY = `rillm:${BASE.pathname}:conversation`;

/**
 * @typedef {{role: "user", content: string}} UserTurn
 * @typedef {{role: "assistant", answer: import("./answer.js").Answer,
 *   results?: (string | undefined)[]}} AssistantTurn results of its calls, by index
 */

export class Conversation {
  /** @type {(UserTurn | AssistantTurn)[]} */
  turns = [];

  /** Read what was kept; what cannot be read is forgotten. */
  static restore() {
    const conversation = new Conversation();
    try {
      const kept = JSON.parse(localStorage.getItem(KEY) ?? "null");
      if (kept?.version === 1) conversation.turns = kept.turns;
    } catch {
      localStorage.removeItem(KEY);
    }
    return conversation;
  }

  /** Keep it. Where there is no room, the details of the oldest answers go first. */
  save() {
    const turns = [...this.turns];
    const answered = turns.flatMap((turn, index) => (turn.role === "assistant" ? [index] : []));
    for (;;) {
      try {
        localStorage.setItem(KEY, JSON.stringify({ version: 1, turns }));
        return;
      } catch {
        const index = answered.shift();
        if (index === undefined) return;
        turns[index] = withoutDetails(turns[index]);
      }
    }
  }

  /** The turns that a request for an answer would contain: all before the last answer, if it is last. */
  asked() {
    const last = this.turns.at(-1);
    if (last?.role !== "assistant" || last.results) return this.turns;
    return this.turns.slice(0, -1);
  }
}

function withoutDetails(turn) {
  const choices = turn.answer.choices.map((choice) => ({ ...choice, tokens: [], arrivals: [] }));
  return { ...turn, answer: { ...turn.answer, choices } };
}
