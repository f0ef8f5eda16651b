// The server that sent this page: its address, its API key, its answers and its refusals.

import { EventDecoder } from "./sse.js";

/** Where the API is: one up from this file, whatever path a proxy shows it under. */
export const BASE = new URL("../", import.meta.url);

const KEY = `rillm:${BASE.pathname}:key`;

export const readKey = () => localStorage.getItem(KEY) ?? "";
export const keepKey = (key) => (key ? localStorage.setItem(KEY, key) : localStorage.removeItem(KEY));

export class ServerError extends Error {
  /**
   * @param {string} message in words, for the reader
   * @param {number} status of HTTP; 0: there was no answer
   * @param {string | null} param path of the field at fault
   */
  constructor(message, status = 0, param = null) {
    super(message);
    this.status = status;
    this.param = param;
  }
}

async function ask(path, init = {}) {
  const key = readKey();
  const headers = { ...init.headers, ...(key && { Authorization: `Bearer ${key}` }) };
  let response;
  try {
    response = await fetch(new URL(path, BASE), { ...init, headers, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("The server cannot be reached. Is it still running?");
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  const body = await response.json().catch(() => null);
  const said = body?.error?.message ?? `The server answered ${response.status} ${response.statusText}`;
  return new ServerError(said, response.status, body?.error?.param ?? null);
}

/** @returns {Promise<{id: string, max_model_len: number}[]>} */
export async function listModels() {
  return (await (await ask("v1/models")).json()).data;
}

/** Whether requests are served: "ok", "loading", "dead", or "gone" when there is no answer. */
export async function readHealth() {
  try {
    const response = await fetch(new URL("health", BASE), { cache: "no-store" });
    return (await response.json()).status ?? "gone";
  } catch {
    return "gone";
  }
}

/** Sums of the server's metrics by name, without `rillm:`. */
export async function readMetrics() {
  const text = await (await ask("metrics", { headers: { Accept: "text/plain" } })).text();
  const sums = {};
  for (const [, name, value] of text.matchAll(/^rillm:(\w+)(?:\{[^}]*\})? (\S+)$/gm)) {
    sums[name] = (sums[name] ?? 0) + Number(value);
  }
  return sums;
}

/**
 * Ask for an answer and follow its stream.
 * @param {object} body of the request, with `stream: true`
 * @param {AbortSignal} signal closes the connection, which ends the request on the server
 * @returns {AsyncGenerator<{atMs: number, chunks: object[]}>} what each read of the network brought
 * @throws {ServerError} it is refused, or fails on the way
 */
export async function* streamChat(body, signal) {
  const response = await ask("v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const decoder = new EventDecoder();
  for (;;) {
    const { value, done } = await reader.read().catch((error) => {
      if (error.name === "AbortError") throw error;
      throw new ServerError("The connection broke before the answer was complete.");
    });
    if (done) throw new ServerError("The stream ended before the answer was complete.");
    const atMs = performance.now();
    const events = decoder.push(value);
    const isLast = events.includes("[DONE]");
    const chunks = events.filter((data) => data !== "[DONE]").map((data) => JSON.parse(data));
    const failed = chunks.find((chunk) => chunk.error);
    yield { atMs, chunks: chunks.filter((chunk) => !chunk.error) };
    if (failed) throw new ServerError(failed.error.message, failed.error.code);
    if (isLast) return;
  }
}
