// The settings form: what it holds is kept in the browser, and becomes part of a request.

import { byId } from "./dom.js";
import { BASE, keepKey, readKey } from "./server.js";
import { EXAMPLE_TOOLS } from "./request.js";

const KEY = `rillm:${BASE.pathname}:settings`;
const NUMBERS = [
  "temperature", "top_p", "top_k", "min_p", "max_completion_tokens", "n", "seed",
  "presence_penalty", "frequency_penalty", "repetition_penalty",
];

/** Names of the server's fields for what the form calls otherwise. */
const ALIASES = { max_tokens: "max_completion_tokens" };

export class SettingsError extends Error {
  constructor(message, param) {
    super(message);
    this.param = param;
  }
}

export class Settings {
  #form = byId("settings-form");
  #defaults;

  constructor() {
    this.#form.elements.tools.value = JSON.stringify(EXAMPLE_TOOLS, null, 2);
    this.#defaults = this.#values();
    this.#restore();
    this.#form.elements.key.value = readKey();
    this.#form.addEventListener("input", (event) => this.#changed(event.target));
    this.#form.addEventListener("submit", (event) => event.preventDefault());
    byId("reset-settings").addEventListener("click", () => this.change(this.#defaults));
    byId("example-tools").addEventListener("click", () =>
      this.change({ tools: JSON.stringify(EXAMPLE_TOOLS, null, 2), offer_tools: true }),
    );
    byId("tidy-tools").addEventListener("click", () => this.#tidy("tools"));
  }

  /** Set some fields, by name, as a person would. */
  change(values) {
    this.#fill(values);
    this.#save();
    for (const field of this.#form.elements) this.#clearError(field);
  }

  get(name) {
    const field = this.#form.elements[name];
    return field.type === "checkbox" ? field.checked : field.value;
  }

  /**
   * What a request takes from the form.
   * @throws {SettingsError} a field holds what cannot be sent
   */
  read() {
    const sampling = {};
    for (const name of NUMBERS) {
      const field = this.#form.elements[name];
      if (field.validity.badInput) throw new SettingsError(`${name} is not a number`, name);
      if (field.value !== "") sampling[name] = Number(field.value);
    }
    const stop = this.get("stop").split("\n").filter((text) => text !== "");
    if (stop.length) sampling.stop = stop;
    if (this.get("reasoning_effort")) sampling.reasoning_effort = this.get("reasoning_effort");
    return {
      model: byId("model").value || undefined,
      system: this.get("system"),
      sampling,
      tools: this.get("offer_tools") ? this.#json("tools", Array.isArray, "a list of tools") : null,
      toolChoice: this.get("tool_choice"),
      topLogprobs: this.get("logprobs") ? Number(this.get("top_logprobs") || 0) : null,
      more: this.get("more").trim() ? this.#json("more", isObject, "an object") : {},
    };
  }

  /** Mark the field that an error is about, if there is one, and show it. */
  markError(param, message) {
    const name = (param ?? "").split(/[.[]/)[0];
    const field = this.#form.elements[ALIASES[name] ?? name];
    if (!field?.name) return;
    field.setAttribute("aria-invalid", "true");
    const note = byId(`${field.id}-error`) ?? byId("settings-error");
    note.textContent = message;
    field.setAttribute("aria-describedby", note.id);
    const group = field.closest("details");
    if (group) group.open = true;
  }

  #json(name, isRight, what) {
    let value;
    try {
      value = JSON.parse(this.get(name));
    } catch (error) {
      throw new SettingsError(`${name}: ${error.message}`, name);
    }
    if (!isRight(value)) throw new SettingsError(`${name} must be ${what}`, name);
    return value;
  }

  #tidy(name) {
    try {
      this.change({ [name]: JSON.stringify(this.#json(name, () => true), null, 2) });
    } catch (error) {
      this.markError(name, error.message);
    }
  }

  #changed(field) {
    this.#clearError(field);
    if (field.name === "key") keepKey(field.value.trim());
    if (field.name === "tools" || field.name === "more") this.#check(field);
    this.#save();
  }

  #check(field) {
    if (!field.value.trim()) return;
    try {
      this.#json(field.name, () => true);
    } catch (error) {
      this.markError(field.name, error.message);
    }
  }

  #clearError(field) {
    if (!field.hasAttribute("aria-invalid")) return;
    field.removeAttribute("aria-invalid");
    byId(field.getAttribute("aria-describedby")).textContent = "";
    field.removeAttribute("aria-describedby");
  }

  #values() {
    const fields = [...this.#form.elements].filter((field) => field.name && field.name !== "key");
    return Object.fromEntries(fields.map((field) => [field.name, this.get(field.name)]));
  }

  #fill(values) {
    for (const [name, value] of Object.entries(values)) {
      const field = this.#form.elements[name];
      if (!field) continue;
      if (field.type === "checkbox") field.checked = value;
      else field.value = value;
    }
  }

  /** What cannot be read is forgotten. */
  #restore() {
    try {
      this.#fill(JSON.parse(localStorage.getItem(KEY) ?? "{}"));
    } catch {
      localStorage.removeItem(KEY);
    }
  }

  #save() {
    localStorage.setItem(KEY, JSON.stringify(this.#values()));
    document.dispatchEvent(new CustomEvent("settingschange"));
  }
}

const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
