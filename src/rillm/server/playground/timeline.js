// When the chunks of an answer came: a lane of marks and the gap before each, over time.

import { gapsOf, formatMs, summarize } from "./timing.js";
import { Frame, make } from "./dom.js";

const KINDS = ["text", "reasoning", "function call", "markup"];
const COLOURS = ["--plot-text", "--plot-reasoning", "--plot-call", "--plot-markup"];
const REDRAW_MS = 200;
const PLOT = 92;
const LANE = 16;
const AXIS = 18;
const LEFT = 52;
const RIGHT = 10;
const TOP = 8;

/**
 * A plot on a canvas. Arrow keys or a pointer go from chunk to chunk; a line under it says what is
 * known of the one they are at.
 */
export class Timeline {
  #answer;
  #canvas = make("canvas", {
    tabindex: "0",
    role: "slider",
    "aria-label": "Chunk of the answer, in order of arrival",
    "aria-valuemin": "0",
  });
  #stats = make("dl", { class: "stats" });
  #readout = make("p", { class: "readout" });
  #frame = new Frame(() => this.#draw());
  #chunks = [];
  #at = -1;
  #drawnMs = 0;
  #resized = new ResizeObserver(() => this.#frame.request());
  #listening = new AbortController();

  /** @param {import("./answer.js").Answer} answer more may be added to it */
  constructor(answer) {
    this.#answer = answer;
    const label = "Timeline of the stream";
    this.element = make(
      "section",
      { class: "timeline", "aria-label": label },
      this.#stats,
      this.#canvas,
      this.#readout,
      legend(),
    );
    this.#canvas.addEventListener("keydown", (event) => this.#move(event));
    this.#canvas.addEventListener("pointermove", (event) => this.#point(event));
    this.#resized.observe(this.element);
    const { signal } = this.#listening;
    const isDark = matchMedia("(prefers-color-scheme: dark)");
    isDark.addEventListener("change", () => this.#frame.request(), { signal });
    document.addEventListener("themechange", () => this.#frame.request(), { signal });
    this.update(true);
  }

  remove() {
    this.#resized.disconnect();
    this.#listening.abort();
    this.element.remove();
  }

  /** Draw what has been added; while more comes, a few times a second. */
  update(isOver = false) {
    if (!isOver && performance.now() - this.#drawnMs < REDRAW_MS) return;
    this.#drawnMs = performance.now();
    this.#collect();
    this.#showStats();
    this.#frame.request();
  }

  #collect() {
    this.#chunks = this.#answer.choices.flatMap(({ arrivals }, lane) => {
      const gaps = [null, ...gapsOf(arrivals)];
      return arrivals.map(([ms, kind, text], index) => ({ ms, kind, text, lane, gap: gaps[index] }));
    });
    this.#chunks.sort((a, b) => a.ms - b.ms);
    this.#canvas.setAttribute("aria-valuemax", String(Math.max(0, this.#chunks.length - 1)));
    if (this.#at < 0) this.#describe("Arrow keys or the pointer go from chunk to chunk.", 0);
  }

  #showStats() {
    const said = summarize(this.#answer);
    const rate = said.tokensPerSecond;
    const stats = [
      ["Time to first token", formatMs(said.firstMs)],
      ["Gap, median", formatMs(said.gapP50)],
      ["Gap, p99", formatMs(said.gapP99)],
      ["Longest", formatMs(said.gapMax)],
      ["Tokens / s", rate === null ? "–" : rate.toFixed(rate >= 100 ? 0 : 1)],
      ["Chunks", String(this.#chunks.length)],
    ];
    this.#stats.replaceChildren(
      ...stats.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))),
    );
  }

  #draw() {
    const numLanes = this.#answer.choices.length;
    const width = this.#canvas.clientWidth;
    const height = TOP + PLOT + numLanes * LANE + AXIS;
    if (!width) return;
    const scale = devicePixelRatio;
    this.#canvas.width = Math.round(width * scale);
    this.#canvas.height = Math.round(height * scale);
    this.#canvas.style.height = `${height}px`;
    const context = this.#canvas.getContext("2d");
    context.scale(scale, scale);
    context.font = "11px system-ui, sans-serif";
    const style = getComputedStyle(this.#canvas);
    const colour = (name) => style.getPropertyValue(name);
    const plot = this.#scales(width);
    this.#drawAxes(context, plot, width, height, colour);
    this.#drawChunks(context, plot, colour);
    if (this.#at >= 0) this.#drawCursor(context, plot, height, colour);
  }

  #scales(width) {
    const endMs = Math.max(1, this.#chunks.at(-1)?.ms ?? 1);
    const longest = this.#chunks.reduce((most, { gap }) => Math.max(most, gap ?? 0), 1);
    const steps = niceSteps(longest, 3);
    const most = Math.max(longest, steps.at(-1));
    return {
      endMs,
      steps,
      x: (ms) => LEFT + (ms / endMs) * (width - LEFT - RIGHT),
      y: (gap) => TOP + PLOT * (1 - gap / most),
      lane: (index) => TOP + PLOT + index * LANE + 5,
    };
  }

  #drawAxes(context, plot, width, height, colour) {
    const firstMs = summarize(this.#answer).firstMs;
    if (firstMs !== null) {
      context.fillStyle = colour("--plot-wait");
      context.fillRect(LEFT, TOP, plot.x(firstMs) - LEFT, PLOT);
    }
    context.strokeStyle = colour("--plot-grid");
    context.fillStyle = colour("--muted");
    context.lineWidth = 1;
    context.textBaseline = "middle";
    context.textAlign = "right";
    for (const step of plot.steps) {
      line(context, LEFT, Math.round(plot.y(step)) + 0.5, width - RIGHT, Math.round(plot.y(step)) + 0.5);
      context.fillText(formatMs(step), LEFT - 5, plot.y(step));
    }
    context.textBaseline = "bottom";
    niceSteps(plot.endMs, Math.max(2, Math.floor(width / 130))).forEach((step, index) => {
      context.textAlign = index ? "center" : "left";
      const half = context.measureText(formatMs(step)).width / 2;
      context.fillText(formatMs(step), Math.min(plot.x(step), width - half - 1), height);
    });
    if (this.#answer.choices.length < 2) return;
    context.textAlign = "right";
    context.textBaseline = "middle";
    this.#answer.choices.forEach((_, index) => {
      context.fillText(`#${index + 1}`, LEFT - 5, plot.lane(index) + 4);
    });
  }

  #drawChunks(context, plot, colour) {
    const colours = COLOURS.map(colour);
    for (const { ms, kind, lane, gap } of this.#chunks) {
      context.fillStyle = colours[kind];
      const x = plot.x(ms);
      context.fillRect(x - 0.75, plot.lane(lane), 1.5, 9);
      if (gap === null) continue;
      const y = plot.y(gap);
      context.globalAlpha = 0.35;
      context.fillRect(x - 0.5, y, 1, TOP + PLOT - y);
      context.globalAlpha = 1;
      context.beginPath();
      context.arc(x, y, 2.2, 0, 2 * Math.PI);
      context.fill();
    }
  }

  #drawCursor(context, plot, height, colour) {
    const x = Math.round(plot.x(this.#chunks[this.#at].ms)) + 0.5;
    context.strokeStyle = colour("--text");
    line(context, x, TOP, x, height - AXIS);
  }

  #move(event) {
    const last = this.#chunks.length - 1;
    const to = {
      ArrowRight: this.#at + 1,
      ArrowUp: this.#at + 1,
      ArrowLeft: this.#at - 1,
      ArrowDown: this.#at - 1,
      PageUp: this.#at + 20,
      PageDown: this.#at - 20,
      Home: 0,
      End: last,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.#goTo(to);
  }

  #point(event) {
    const plot = this.#scales(this.#canvas.clientWidth);
    const nearest = this.#chunks.reduce(
      (best, { ms }, index) => {
        const distance = Math.abs(plot.x(ms) - event.offsetX);
        return distance < best.distance ? { distance, index } : best;
      },
      { distance: Infinity, index: -1 },
    );
    this.#goTo(nearest.index);
  }

  #goTo(index) {
    if (!this.#chunks.length) return;
    this.#at = Math.min(this.#chunks.length - 1, Math.max(0, index));
    const { ms, kind, text, lane, gap } = this.#chunks[this.#at];
    const choice = this.#answer.choices.length > 1 ? `answer ${lane + 1}, ` : "";
    const wait = gap === null ? "the first" : `${formatMs(gap)} after the one before`;
    const shown = text ? `: “${text.replace(/\s+/g, " ")}”` : "";
    this.#describe(`${choice}${formatMs(ms)}, ${wait}, ${KINDS[kind]}${shown}`, this.#at);
    this.#frame.request();
  }

  #describe(text, index) {
    this.#readout.textContent = text;
    this.#canvas.setAttribute("aria-valuenow", String(index));
    this.#canvas.setAttribute("aria-valuetext", text);
  }
}

function legend() {
  const used = KINDS.map((name, kind) => make("span", { class: `key key-${kind}` }, name));
  const waits = make("span", { class: "key key-wait" }, "wait for the first");
  return make("p", { class: "legend", "aria-hidden": "true" }, waits, ...used);
}

function line(context, x0, y0, x1, y1) {
  context.beginPath();
  context.moveTo(x0, y0);
  context.lineTo(x1, y1);
  context.stroke();
}

/** About `count` round numbers from 0 on that reach over most of a range. */
function niceSteps(end, count) {
  const rough = end / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough);
  return Array.from({ length: Math.floor(end / step) + 1 }, (_, index) => index * step);
}
