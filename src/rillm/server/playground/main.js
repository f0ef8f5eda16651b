// Puts the page together.

import { Chat } from "./chat.js";
import { askForKey, setUpExport } from "./dialogs.js";
import { byId, make, toast } from "./dom.js";
import { listModels } from "./server.js";
import { Settings } from "./settings.js";
import { watchServer } from "./status.js";
import { hideDetails } from "./token_view.js";

const PANEL = "rillm:panel";
const WIDE = matchMedia("(min-width: 62rem)");
const THEMES = { auto: "light", light: "dark", dark: "auto" };
const THEME_NAMES = { auto: "as the system", light: "light", dark: "dark" };

const settings = new Settings();
const message = byId("message");
const chat = new Chat(settings, byId("scroller"), byId("turns"), {
  changed: showState,
  edit: (text) => {
    message.value = text;
    fitMessage();
    message.focus();
  },
  refused: (error) => {
    if (error.status === 401) askForKey(loadModels);
  },
});

function showState() {
  byId("welcome").hidden = !chat.isEmpty;
  byId("send").hidden = chat.isRunning;
  byId("stop").hidden = !chat.isRunning;
  byId("new").disabled = chat.isEmpty;
}

function send() {
  const text = message.value.trim();
  if (!text || chat.isRunning) return;
  message.value = "";
  fitMessage();
  chat.send(text);
}

function fitMessage() {
  message.style.height = "auto";
  message.style.height = `${Math.min(message.scrollHeight + 2, innerHeight * 0.4)}px`;
}

async function loadModels() {
  try {
    const models = await listModels();
    const options = models.map(({ id, max_model_len: length }) =>
      make("option", { value: id, title: `${length} tokens of context` }, id),
    );
    byId("model").replaceChildren(...options);
    document.title = `${models[0].id} · rillm`;
  } catch (error) {
    if (error.status === 401) askForKey(loadModels);
    else toast(error.message);
  }
}

function setUpComposer() {
  message.addEventListener("input", fitMessage);
  message.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  });
  byId("send").addEventListener("click", send);
  byId("stop").addEventListener("click", () => {
    chat.stop();
    message.focus();
  });
  byId("new").addEventListener("click", () => {
    chat.clear();
    message.focus();
  });
  byId("offer-tools").addEventListener("click", () => {
    settings.change({ offer_tools: !settings.get("offer_tools") });
  });
  byId("think").addEventListener("click", () => {
    settings.change({ reasoning_effort: isThinking() ? "" : "medium" });
  });
  for (const starter of document.querySelectorAll(".starter")) {
    starter.addEventListener("click", () => {
      settings.change({ n: "", offer_tools: false, reasoning_effort: "", ...JSON.parse(starter.dataset.settings) });
      chat.send(starter.dataset.text);
    });
  }
  document.addEventListener("settingschange", showChips);
  showChips();
}

const isThinking = () => !["", "none"].includes(settings.get("reasoning_effort"));

function showChips() {
  byId("offer-tools").setAttribute("aria-pressed", String(settings.get("offer_tools")));
  byId("think").setAttribute("aria-pressed", String(isThinking()));
}

function setUpPanel() {
  const toggle = byId("toggle-settings");
  const show = (isOpen) => {
    document.body.classList.toggle("has-panel", isOpen);
    toggle.setAttribute("aria-expanded", String(isOpen));
    // On a narrow screen the panel covers the rest, which must not take the focus then.
    byId("chat").inert = isOpen && !WIDE.matches;
  };
  const choose = (isOpen) => {
    show(isOpen);
    if (WIDE.matches) localStorage.setItem(PANEL, isOpen ? "open" : "closed");
    if (!isOpen) toggle.focus();
    else if (!WIDE.matches) byId("close-settings").focus();
  };
  const asKept = () => show(WIDE.matches && localStorage.getItem(PANEL) !== "closed");
  toggle.addEventListener("click", () => choose(!document.body.classList.contains("has-panel")));
  byId("close-settings").addEventListener("click", () => choose(false));
  WIDE.addEventListener("change", asKept);
  asKept();
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || document.querySelector("dialog[open]")) return;
    hideDetails();
    if (chat.isRunning) chat.stop();
    else if (!WIDE.matches && document.body.classList.contains("has-panel")) choose(false);
  });
}

function setUpTheme() {
  const control = byId("theme");
  const show = (theme) => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    control.setAttribute("aria-label", `Theme: ${THEME_NAMES[theme]}`);
    control.title = `Theme: ${THEME_NAMES[theme]}`;
    document.dispatchEvent(new CustomEvent("themechange"));
  };
  let theme = document.documentElement.dataset.theme ?? "auto";
  show(theme);
  control.addEventListener("click", () => {
    theme = THEMES[theme];
    localStorage.setItem("rillm:theme", theme);
    show(theme);
  });
}

setUpComposer();
setUpPanel();
setUpTheme();
setUpExport(() => chat.request());
showState();
loadModels();
watchServer();
if (WIDE.matches) message.focus();
