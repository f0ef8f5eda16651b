// JSON laid out while it arrives: each piece of text becomes pieces with a kind and line breaks.

const INDENT = "  ";

export class JsonLayout {
  #open = [];
  #isKey = false;
  #inString = false;
  #escaped = false;
  #isFresh = false;

  /**
   * @param {string} text any part of a JSON text; what is no JSON comes out as it is
   * @returns {[kind: "key" | "string" | "literal" | "mark", text: string][]}
   */
  push(text) {
    const pieces = [];
    const add = (kind, part) => {
      const last = pieces[pieces.length - 1];
      if (last && last[0] === kind) last[1] += part;
      else pieces.push([kind, part]);
    };
    for (const character of text) {
      if (this.#inString) this.#addInString(character, add);
      else this.#addOutside(character, add);
    }
    return pieces;
  }

  #addInString(character, add) {
    add(this.#isKey ? "key" : "string", character);
    if (this.#escaped) this.#escaped = false;
    else if (character === "\\") this.#escaped = true;
    else if (character === '"') {
      this.#inString = false;
      this.#isKey = false;
    }
  }

  #addOutside(character, add) {
    if (/\s/.test(character)) return;
    if (character === "}" || character === "]") {
      this.#open.pop();
      add("mark", (this.#isFresh ? "" : this.#newLine()) + character);
      this.#isFresh = false;
      return;
    }
    if (this.#isFresh) {
      add("mark", this.#newLine());
      this.#isFresh = false;
    }
    if (character === "{" || character === "[") {
      this.#open.push(character);
      this.#isKey = character === "{";
      this.#isFresh = true;
      add("mark", character);
    } else if (character === ",") {
      this.#isKey = this.#open[this.#open.length - 1] === "{";
      add("mark", character + this.#newLine());
    } else if (character === ":") {
      this.#isKey = false;
      add("mark", ": ");
    } else if (character === '"') {
      this.#inString = true;
      add(this.#isKey ? "key" : "string", character);
    } else {
      add("literal", character);
    }
  }

  #newLine() {
    return `\n${INDENT.repeat(this.#open.length)}`;
  }
}
