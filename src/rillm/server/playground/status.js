// The line that says how the server is, asked now and then while somebody looks.

import { byId } from "./dom.js";
import { readHealth, readMetrics } from "./server.js";

const EVERY_MS = 3000;
const WORDS = {
  loading: "The model is loading",
  dead: "The engine has stopped",
  gone: "No server",
};

let last = null;

async function look() {
  if (document.hidden) return;
  const health = await readHealth();
  const element = byId("status");
  element.dataset.health = health;
  const text = health === "ok" ? describe(await readMetrics().catch(() => ({}))) : WORDS[health];
  byId("status-text").textContent = text;
}

function describe(metrics) {
  const now = performance.now();
  const made = metrics.generation_tokens_total ?? 0;
  const rate = last ? Math.max(0, (made - last.made) / ((now - last.now) / 1000)) : 0;
  last = { made, now };
  const running = metrics.num_requests_running ?? 0;
  const waiting = metrics.num_requests_waiting ?? 0;
  const parts = [running ? `${running} running` : "idle"];
  if (waiting) parts.push(`${waiting} waiting`);
  if (rate >= 1) parts.push(`${Math.round(rate)} tok/s`);
  parts.push(`KV cache ${Math.round(100 * (metrics.kv_cache_usage_perc ?? 0))} %`);
  return parts.join(" · ");
}

export function watchServer() {
  look();
  setInterval(look, EVERY_MS);
  document.addEventListener("visibilitychange", look);
}
