// Markdown, rendered while it arrives, as far as models use it: headings, lists, quotes, tables,
// rules, fenced code, and what inline.js knows. No markup passes, no picture is loaded.
//
// A line is held back only while its beginning may still mean several things ("-", "12", "``").
// Everything before it is written once, so the work is linear.

import { button, copyText, make } from "./dom.js";
import { InlineWriter } from "./inline.js";

const UNDECIDED = /^\s*(#{0,6}|[-*_][-*_ \t]*|[-*+]|\d{1,9}[.)]?|`{0,2}|~{0,2}|>)\s*$/;
const HEADING = /^ {0,3}(#{1,6})[ \t]+/;
const RULE = /^ {0,3}([-*_])([ \t]*\1){2,}[ \t]*$/;
const ITEM = /^([ \t]*)([-*+]|\d{1,9}[.)])[ \t]+(?=\S)/;
const FENCE = /^([ \t]*)(`{3,}|~{3,})/;
const DELIMITERS = /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/;
const MAX_DEPTH = 6;

/** Renders into an element. */
export class MarkdownView {
  #root;
  #depth;
  #line = "";
  #isInLine = false;
  #leaf = null;
  #lists = [];
  #quote = null;
  #fence = null;
  #table = null;
  #isAfterBlank = false;

  /**
   * @param {HTMLElement} root
   * @param {number} depth of quotes around it
   */
  constructor(root, depth = 0) {
    this.#root = root;
    this.#depth = depth;
  }

  /** More text, cut anywhere. */
  append(text) {
    let from = 0;
    while (from < text.length) {
      const end = text.indexOf("\n", from);
      this.#take(text.slice(from, end < 0 ? text.length : end));
      if (end < 0) return;
      this.#endLine();
      from = end + 1;
    }
  }

  /** No more comes: what was held back is shown. */
  end() {
    if (this.#line || this.#isInLine) this.#endLine();
    this.#closeAll();
  }

  /** Text of one line, perhaps not the end of it. */
  #take(text) {
    if (this.#isInLine) {
      this.#continueLine(text);
      return;
    }
    this.#line += text;
    if (this.#line && this.#isDecided()) this.#beginLine(this.#line);
  }

  #isDecided() {
    if (this.#fence) return !this.#fence.mayClose(this.#line);
    if (FENCE.test(this.#line) || /^\s*\|/.test(this.#line)) return false;
    return !UNDECIDED.test(this.#line);
  }

  #endLine() {
    if (!this.#isInLine) this.#takeWholeLine(this.#line);
    if (this.#isInLine) this.#finishLine();
    this.#line = "";
    this.#isInLine = false;
  }

  #continueLine(text) {
    if (this.#fence) this.#fence.write(text);
    else if (this.#quote) this.#quote.append(text);
    else this.#leaf.write(text);
  }

  #finishLine() {
    if (this.#fence) this.#fence.write("\n");
    else if (this.#quote) this.#quote.append("\n");
    else if (this.#leaf.isHeading) this.#closeLeaf();
    else this.#leaf.write("\n");
  }

  /** A line that needed its end to be understood. */
  #takeWholeLine(line) {
    if (this.#fence) {
      if (this.#fence.closes(line)) this.#fence = null;
      else this.#beginLine(line);
    } else if (line.trim() === "") {
      this.#blank();
    } else if (FENCE.test(line)) {
      this.#openFence(line);
    } else if (RULE.test(line)) {
      this.#closeAll();
      this.#root.append(make("hr"));
    } else if (/^\s*\|/.test(line)) {
      this.#row(line);
    } else {
      this.#beginLine(line);
    }
  }

  /** A line whose kind is known, from its start to as far as it has come. */
  #beginLine(line) {
    this.#isInLine = true;
    if (this.#fence) {
      this.#fence.write(this.#fence.unindent(line));
      return;
    }
    this.#closeTable();
    const quoted = /^ {0,3}> ?/.exec(line);
    if (quoted && this.#depth < MAX_DEPTH) {
      this.#openQuote();
      this.#quote.append(line.slice(quoted[0].length));
      return;
    }
    this.#closeQuote();
    const heading = HEADING.exec(line);
    const item = ITEM.exec(line);
    if (heading) this.#openHeading(heading);
    else if (item) this.#openItem(item);
    else this.#openParagraph(line);
    this.#leaf.write(heading || item ? line.slice((heading || item)[0].length) : line.trimStart());
    this.#isAfterBlank = false;
  }

  #blank() {
    this.#closeLeaf();
    this.#closeQuote();
    this.#closeTable();
    this.#isAfterBlank = true;
  }

  #closeLeaf() {
    this.#leaf?.end();
    this.#leaf = null;
  }

  #closeQuote() {
    this.#quote?.end();
    this.#quote = null;
  }

  #closeTable() {
    this.#table?.end();
    this.#table = null;
  }

  #closeAll() {
    this.#blank();
    this.#fence = null;
    this.#lists = [];
    this.#isAfterBlank = false;
  }

  /** Where a block that is indented so far belongs: the innermost item that holds it. */
  #container(indent) {
    while (this.#lists.length && indent < this.#lists.at(-1).content) this.#lists.pop();
    return this.#lists.at(-1)?.item ?? this.#root;
  }

  #openLeaf(element, parent, isHeading = false) {
    this.#closeLeaf();
    parent.append(element);
    this.#leaf = new Leaf(element, isHeading);
  }

  #openHeading([, marks]) {
    this.#closeAll();
    // The page has a first and a second level of its own.
    this.#openLeaf(make(`h${Math.min(6, marks.length + 2)}`), this.#root, true);
  }

  #openParagraph(line) {
    if (this.#leaf) return;
    const parent = this.#isAfterBlank || !this.#lists.length
      ? this.#container(indentOf(line))
      : this.#lists.at(-1).item;
    this.#openLeaf(make("p"), parent);
  }

  #openItem([whole, space, mark]) {
    this.#closeLeaf();
    const indent = indentOf(space + "x");
    while (this.#lists.length && indent < this.#lists.at(-1).indent) this.#lists.pop();
    const inside = this.#lists.at(-1);
    const tag = /\d/.test(mark) ? "ol" : "ul";
    const isDeeper = inside && indent >= inside.content && this.#lists.length < MAX_DEPTH;
    if (!inside || isDeeper || inside.list.localName !== tag) {
      if (inside && !isDeeper) this.#lists.pop();
      const parent = isDeeper ? inside.item : (this.#lists.at(-1)?.item ?? this.#root);
      const start = tag === "ol" && parseInt(mark) !== 1 ? parseInt(mark) : null;
      const list = make(tag, { start });
      parent.append(list);
      this.#lists.push({ list });
    }
    const item = make("li");
    const current = this.#lists.at(-1);
    current.list.append(item);
    Object.assign(current, { item, indent, content: indent + Math.min(mark.length + 1, whole.length) });
    this.#openLeaf(make("p"), item);
  }

  #openQuote() {
    if (this.#quote) return;
    this.#closeAll();
    const element = make("blockquote");
    this.#root.append(element);
    this.#quote = new MarkdownView(element, this.#depth + 1);
  }

  #openFence(line) {
    this.#closeLeaf();
    this.#closeQuote();
    this.#closeTable();
    const [, space, marks] = FENCE.exec(line);
    const parent = this.#container(indentOf(space + "x"));
    this.#fence = new Fence(parent, marks, line.slice(space.length + marks.length), space.length);
  }

  #row(line) {
    if (this.#table) {
      this.#table.add(line);
      return;
    }
    this.#closeLeaf();
    this.#closeQuote();
    this.#table = new Table(this.#container(indentOf(line)));
    this.#table.add(line);
  }
}

/** A paragraph, an item's text or a heading. Line ends at its end are not written. */
class Leaf {
  #writer;
  #held = "";

  constructor(element, isHeading) {
    this.isHeading = isHeading;
    this.#writer = new InlineWriter(element);
  }

  write(text) {
    const kept = (this.#held + text).trimEnd();
    this.#held = (this.#held + text).slice(kept.length);
    if (kept) this.#writer.write(kept);
  }

  end() {
    this.#writer.end();
  }
}

/** A block of code: shown as it comes, with a button that copies it. */
class Fence {
  #mark;
  #size;
  #indent;
  #text = document.createTextNode("");

  constructor(parent, marks, info, indent) {
    this.#mark = marks[0];
    this.#size = marks.length;
    this.#indent = indent;
    const language = info.trim().split(/\s/)[0];
    const copy = button("Copy", "copy", () => copyText(this.#text.data), { "aria-label": "Copy code" });
    const code = make("pre", { tabindex: "0", "aria-label": "Code" }, make("code", {}, this.#text));
    parent.append(
      make("figure", { class: "code" }, make("figcaption", {}, make("span", {}, language), copy), code),
    );
  }

  /** Whether the beginning of a line may become the end of the block. */
  mayClose(line) {
    const rest = line.trim();
    return rest === "" || [...rest].every((character) => character === this.#mark);
  }

  closes(line) {
    return line.trim().length >= this.#size && this.mayClose(line);
  }

  unindent(line) {
    return line.slice(Math.min(indentOf(line), this.#indent, line.length));
  }

  write(text) {
    this.#text.appendData(text);
  }
}

/** Rows between bars; without a line of dashes under the first they are text. */
class Table {
  #parent;
  #head = null;
  #body = null;
  #lines = [];

  constructor(parent) {
    this.#parent = parent;
  }

  add(line) {
    if (this.#body) {
      this.#body.append(this.#makeRow(line, "td"));
    } else if (this.#head !== null && DELIMITERS.test(line)) {
      this.#body = make("tbody");
      const head = make("thead", {}, this.#makeRow(this.#head, "th"));
      const table = make("table", {}, head, this.#body);
      const attributes = { class: "table", tabindex: "0", role: "region", "aria-label": "Table" };
      this.#parent.append(make("div", attributes, table));
      this.#lines = [];
    } else {
      this.#head = line;
      this.#lines.push(line);
    }
  }

  end() {
    if (!this.#lines.length) return;
    const paragraph = make("p");
    this.#parent.append(paragraph);
    const leaf = new Leaf(paragraph, false);
    leaf.write(this.#lines.map((line) => line.trim()).join("\n"));
    leaf.end();
    this.#lines = [];
  }

  #makeRow(line, tag) {
    const text = line.trim().replace(/^\|/, "").replace(/\|$/, "");
    const cells = text.split(/(?<!\\)\|/).map((each) => {
      const cell = make(tag, tag === "th" ? { scope: "col" } : {});
      const writer = new InlineWriter(cell);
      writer.write(each.trim().replaceAll("\\|", "|"));
      writer.end();
      return cell;
    });
    return make("tr", {}, ...cells);
  }
}

function indentOf(line) {
  let columns = 0;
  for (const character of line) {
    if (character === "\t") columns += 4 - (columns % 4);
    else if (character === " ") columns += 1;
    else break;
  }
  return columns;
}
