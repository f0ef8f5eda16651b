// An answer as data: what the chunks of a stream add up to, and when they came. Plain objects, so
// that the browser can keep them.

/** What a chunk brought. */
export const CONTENT = 0;
export const REASONING = 1;
export const TOOL = 2;
export const MARKUP = 3;

/**
 * @typedef {[text: string, logprob: number, top: [string, number][]]} Token
 * @typedef {[ms: number, kind: number, text: string]} Arrival text: of a chunk, cut to a few words
 * @typedef {{id: string, name: string, arguments: string}} Call
 * @typedef {{reasoning: string, content: string, calls: Call[], tokens: Token[],
 *   arrivals: Arrival[], reasoningMs: number | null, finish: string | null}} Choice
 * @typedef {{choices: Choice[], chosen: number, usage: object | null, error: string | null,
 *   isStopped: boolean, isComplete: boolean}} Answer
 */

const MAX_SHOWN = 40;

/** @returns {Answer} */
export function newAnswer(numChoices) {
  return {
    choices: Array.from({ length: numChoices }, () => ({
      reasoning: "",
      content: "",
      calls: [],
      tokens: [],
      arrivals: [],
      reasoningMs: null,
      finish: null,
    })),
    chosen: 0,
    usage: null,
    error: null,
    isStopped: false,
    isComplete: false,
  };
}

/**
 * @param {Answer} answer
 * @param {object} chunk of `chat.completion.chunk`
 * @param {number} ms since the request was sent
 */
export function addChunk(answer, chunk, ms) {
  if (chunk.usage) answer.usage = chunk.usage;
  for (const part of chunk.choices) {
    const choice = answer.choices[part.index];
    if (!choice) continue;
    const [kind, text] = addDelta(choice, part.delta);
    for (const entry of part.logprobs?.content ?? []) choice.tokens.push(toToken(entry));
    if (part.finish_reason) choice.finish = part.finish_reason;
    if (kind !== REASONING && kind !== null && choice.reasoning && choice.reasoningMs === null) {
      choice.reasoningMs = ms;
    }
    const hasTokens = (part.logprobs?.content ?? []).length > 0;
    if (kind !== null || hasTokens) {
      choice.arrivals.push([Math.round(ms * 10) / 10, kind ?? MARKUP, text.slice(0, MAX_SHOWN)]);
    }
  }
}

function addDelta(choice, delta) {
  const reasoning = delta.reasoning_content ?? delta.reasoning;
  if (reasoning) {
    choice.reasoning += reasoning;
    return [REASONING, reasoning];
  }
  if (delta.content) {
    choice.content += delta.content;
    return [CONTENT, delta.content];
  }
  if (!delta.tool_calls?.length) return [null, ""];
  let text = "";
  for (const { index, id, function: said } of delta.tool_calls) {
    choice.calls[index] ??= { id, name: "", arguments: "" };
    choice.calls[index].name += said.name ?? "";
    choice.calls[index].arguments += said.arguments ?? "";
    text += (said.name ?? "") + (said.arguments ?? "");
  }
  return [TOOL, text];
}

function toToken({ token, bytes, logprob, top_logprobs: top }) {
  return [
    tokenText(token, bytes),
    rounded(logprob),
    top.map((each) => [tokenText(each.token, each.bytes), rounded(each.logprob)]),
  ];
}

/** A token that is no whole character is shown by its bytes. */
function tokenText(token, bytes) {
  if (!token.includes("\ufffd") || !bytes) return token;
  return `⟨${bytes.map((byte) => byte.toString(16).padStart(2, "0")).join(" ")}⟩`;
}

const rounded = (logprob) => Math.round(logprob * 1e4) / 1e4;

/** Calls that a person or a program can answer: the model finished them. */
export function openCalls(choice) {
  return choice.finish === "tool_calls" ? choice.calls : [];
}
