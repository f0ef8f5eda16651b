// Server-sent events, decoded as they arrive.
// Source: HTML standard, section 9.2.6, "Interpreting an event stream".

export class EventDecoder {
  #line = "";
  #data = [];
  #endedWithReturn = false;

  /**
   * @param {string} text any piece of the stream
   * @returns {string[]} the data of each event that it completes; comments and other fields are
   *   dropped
   */
  push(text) {
    const complete = [];
    // A line may end with \r\n, and the piece between the two.
    if (this.#endedWithReturn && text.startsWith("\n")) text = text.slice(1);
    if (text) this.#endedWithReturn = text.endsWith("\r");
    const lines = text.split(/\r\n|\r|\n/);
    lines[0] = this.#line + lines[0];
    this.#line = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (this.#data.length) complete.push(this.#data.join("\n"));
        this.#data = [];
      } else if (line === "data" || line.startsWith("data:")) {
        this.#data.push(line.slice(line[5] === " " ? 6 : 5));
      }
    }
    return complete;
  }
}
