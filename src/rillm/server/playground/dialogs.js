// The two dialogs: the request as a program, and the API key.

import { byId, copyText } from "./dom.js";
import { toCurl, toPython } from "./request.js";
import { BASE, keepKey, readKey } from "./server.js";

const WRITERS = {
  curl: toCurl,
  python: toPython,
  json: (body) => `${JSON.stringify(body, null, 2)}\n`,
};

/** @param {() => object} makeBody of the request to show; may throw */
export function setUpExport(makeBody) {
  const dialog = byId("export-dialog");
  const code = byId("export-code");
  const show = (kind) => {
    for (const tab of dialog.querySelectorAll("[role=tab]")) {
      const isShown = tab.dataset.kind === kind;
      tab.setAttribute("aria-selected", String(isShown));
      tab.tabIndex = isShown ? 0 : -1;
      if (isShown) byId("export-panel").setAttribute("aria-labelledby", tab.id);
    }
    try {
      code.textContent = WRITERS[kind](makeBody(), BASE.href, readKey() !== "");
    } catch (error) {
      code.textContent = error.message;
    }
  };
  const tabs = [...dialog.querySelectorAll("[role=tab]")];
  tabs.forEach((tab, index) => {
    tab.addEventListener("click", () => show(tab.dataset.kind));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = tabs[(index + step + tabs.length) % tabs.length];
      show(next.dataset.kind);
      next.focus();
    });
  });
  byId("export").addEventListener("click", () => {
    show("curl");
    dialog.showModal();
  });
  byId("export-copy").addEventListener("click", () => copyText(code.textContent));
  byId("export-close").addEventListener("click", () => dialog.close());
}

/**
 * Ask for an API key.
 * @param {() => void} onKey called when one was given
 */
export function askForKey(onKey) {
  const dialog = byId("key-dialog");
  if (dialog.open) return;
  const field = byId("key-field");
  field.value = "";
  byId("key-form").onsubmit = (event) => {
    event.preventDefault();
    keepKey(field.value.trim());
    byId("settings-form").elements.key.value = field.value.trim();
    dialog.close();
    onKey();
  };
  byId("key-cancel").onclick = () => dialog.close();
  dialog.showModal();
}
