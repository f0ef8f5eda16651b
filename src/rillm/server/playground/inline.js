// Text with emphasis, code and links, written while it arrives.
//
// What stands before a space outside of any mark can no longer change, so it is written once; only
// what follows is written again when more comes. A mark whose partner is not found within LIMIT
// characters is text. Both depend on positions alone, so the result is the same however the text
// was cut, and the work is linear.

import { make } from "./dom.js";

const LIMIT = 2000;
const MAX_OPEN = 16;
const MARKS = { "**": "strong", __: "strong", "*": "em", _: "em", "~~": "del" };
const ESCAPABLE = /[!-/:-@[-`{-~]/;
const SPACE = /\s/;
const WORD = /[\p{L}\p{N}]/u;
const LINK_TARGET = /\]\(\s*<?([^\s<>()]*(?:\([^\s<>()]*\)[^\s<>()]*)*)>?(?:\s+"[^"]*")?\s*\)/y;
const BARE_LINK = /https?:\/\/[^\s<>"'`*]*[^\s<>"'`*.,:;!?)\]}]/y;

/** Writes into an element what a paragraph, a heading or the like says. */
export class InlineWriter {
  #element;
  #pending = "";
  #tail = [];

  constructor(element) {
    this.#element = element;
  }

  write(text) {
    this.#pending += text;
    const reading = new Reading(this.#pending, false);
    this.#replaceTail(reading.nodes);
    this.#pending = this.#pending.slice(reading.settled);
    this.#tail = reading.nodes.slice(reading.settledNodes);
  }

  /** No more comes: what looked like a beginning is text. */
  end() {
    this.#replaceTail(new Reading(this.#pending, true).nodes);
    this.#tail = [];
    this.#pending = "";
    this.#element.normalize();
  }

  #replaceTail(nodes) {
    for (const node of this.#tail) node.remove();
    this.#element.append(...nodes);
    this.#tail = nodes;
  }
}

/** One pass over a text: its nodes, and how much of it means the same whatever follows. */
class Reading {
  nodes = [];
  settled = 0;
  settledNodes = 0;
  #text;
  #isWhole;
  #open = [];
  #plain = "";
  #settledPlain = 0;
  #mayBeCode = false;
  #noCode = new Set();

  constructor(text, isWhole) {
    this.#text = text;
    this.#isWhole = isWhole;
    for (let at = 0; at < text.length; ) at += this.#step(at);
    this.#flush();
    this.#splitAtSettled();
  }

  /** Read what is at a position; the number of characters read. */
  #step(at) {
    while (this.#open.length && at - this.#open[0].at > LIMIT) this.#open.shift();
    const character = this.#text[at];
    let length = 0;
    if (character === "\\") length = this.#escape(at);
    else if (character === "`") length = this.#code(at);
    else if (character === "[") length = this.#openMark("[", at);
    else if (character === "]") length = this.#closeLink(at);
    else if (character === "h") length = this.#bareLink(at);
    else if (character in MARKS || character === "~") length = this.#mark(at);
    if (length) return length;
    this.#plain += character;
    if (SPACE.test(character) && !this.#open.length && !this.#mayBeCode) {
      this.settled = at + 1;
      this.settledNodes = this.nodes.length;
      this.#settledPlain = this.#plain.length;
    }
    return 1;
  }

  #flush() {
    if (this.#plain) this.nodes.push(document.createTextNode(this.#plain));
    this.#plain = "";
  }

  #splitAtSettled() {
    if (!this.#settledPlain) return;
    const node = this.nodes[this.settledNodes];
    this.settledNodes += 1;
    if (this.#settledPlain === node.length) return;
    const rest = document.createTextNode(node.data.slice(this.#settledPlain));
    node.data = node.data.slice(0, this.#settledPlain);
    this.nodes.splice(this.settledNodes, 0, rest);
  }

  #isUndecided(at) {
    return !this.#isWhole && this.#text.length - at <= LIMIT;
  }

  #escape(at) {
    const next = this.#text[at + 1];
    if (next === undefined || !ESCAPABLE.test(next)) return 0;
    this.#plain += next;
    return 2;
  }

  #code(at) {
    const size = runLength(this.#text, at);
    const end = this.#endOfCode(at + size, size);
    if (end < 0) {
      this.#mayBeCode ||= this.#isUndecided(at);
      this.#plain += this.#text.slice(at, at + size);
      return size;
    }
    const code = this.#text.slice(at + size, end);
    const isPadded = code.startsWith(" ") && code.endsWith(" ") && code.trim() !== "";
    this.#flush();
    this.nodes.push(make("code", {}, isPadded ? code.slice(1, -1) : code));
    return end + size - at;
  }

  #endOfCode(from, size) {
    if (this.#noCode.has(size)) return -1;
    const limit = from + LIMIT;
    for (let at = this.#text.indexOf("`", from); at >= 0 && at < limit; ) {
      const length = runLength(this.#text, at);
      if (length === size) return at;
      at = this.#text.indexOf("`", at + length);
    }
    if (limit >= this.#text.length) this.#noCode.add(size);
    return -1;
  }

  #openMark(mark, at) {
    if (this.#open.length >= MAX_OPEN) return 0;
    this.#flush();
    this.#open.push({ mark, at, node: this.nodes.length });
    this.nodes.push(document.createTextNode(mark));
    return mark.length;
  }

  /** Take away what stands since an opening mark, without the mark. */
  #takeSince(index) {
    this.#flush();
    const [{ node }] = this.#open.splice(index);
    return this.nodes.splice(node).slice(1);
  }

  #closeLink(at) {
    const index = this.#open.findLastIndex(({ mark }) => mark === "[");
    if (index < 0) return 0;
    const after = this.#text.slice(at + 1, at + LIMIT);
    const mayFollow = after === "" || (after[0] === "(" && !after.includes(")"));
    if (mayFollow && this.#isUndecided(at)) return 0;
    LINK_TARGET.lastIndex = at;
    const found = mayFollow ? null : LINK_TARGET.exec(this.#text);
    const url = found && found[0].length < LIMIT && safeUrl(found[1]);
    if (!url) {
      this.#open.splice(index);
      return 0;
    }
    const children = this.#takeSince(index);
    this.nodes.push(link(url, children));
    return found[0].length;
  }

  #bareLink(at) {
    const isInWord = at > 0 && WORD.test(this.#text[at - 1]);
    if (isInWord || this.#open.some(({ mark }) => mark === "[")) return 0;
    BARE_LINK.lastIndex = at;
    const found = BARE_LINK.exec(this.#text);
    const url = found && safeUrl(found[0]);
    if (!url) return 0;
    this.#flush();
    this.nodes.push(link(url, [found[0]]));
    return found[0].length;
  }

  #mark(at) {
    const text = this.#text;
    const closesSingle = text.startsWith("***", at) && this.#open.at(-1)?.mark === "*";
    const double = text.slice(at, at + 2);
    const mark = double in MARKS && !closesSingle ? double : text[at];
    if (!(mark in MARKS)) return 0;
    const before = text[at - 1] ?? " ";
    const after = text[at + mark.length] ?? (this.#isWhole ? " " : "");
    if (mark[0] === "_" && WORD.test(before) && WORD.test(after)) return this.#literal(mark);
    const index = this.#open.findLastIndex((each) => each.mark === mark);
    if (index >= 0 && !SPACE.test(before) && at > this.#open[index].at + mark.length) {
      const children = this.#takeSince(index);
      this.nodes.push(make(MARKS[mark], {}, ...children));
      return mark.length;
    }
    return (!SPACE.test(after) && this.#openMark(mark, at)) || this.#literal(mark);
  }

  #literal(mark) {
    this.#plain += mark;
    return mark.length;
  }
}

function runLength(text, at) {
  let end = at + 1;
  while (text[end] === text[at]) end += 1;
  return end - at;
}

/** An address that a click may lead to, or null: no scripts, nothing relative to this page. */
function safeUrl(text) {
  if (!/^(https?:\/\/|mailto:)/i.test(text)) return null;
  try {
    return new URL(text);
  } catch {
    return null;
  }
}

function link(url, children) {
  const attributes = { href: url.href, target: "_blank", rel: "noopener noreferrer", title: url.href };
  return make("a", attributes, ...children);
}
