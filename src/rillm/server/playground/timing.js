// What the times of chunks say, in the words of the field.

/**
 * @param {import("./answer.js").Arrival[]} arrivals of one choice
 * @returns {number[]} milliseconds between each chunk and the one before
 */
export function gapsOf(arrivals) {
  return arrivals.slice(1).map(([ms], index) => ms - arrivals[index][0]);
}

/** The smallest value that at least this share of the values do not exceed. */
export function quantile(values, share) {
  if (!values.length) return null;
  const sorted = Float64Array.from(values).sort();
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)];
}

/** @param {import("./answer.js").Answer} answer */
export function summarize(answer) {
  const starts = answer.choices.flatMap(({ arrivals }) => arrivals.slice(0, 1).map(([ms]) => ms));
  const ends = answer.choices.flatMap(({ arrivals }) => arrivals.slice(-1).map(([ms]) => ms));
  const gaps = answer.choices.flatMap(({ arrivals }) => gapsOf(arrivals));
  const firstMs = starts.length ? Math.min(...starts) : null;
  const lastMs = ends.length ? Math.max(...ends) : null;
  const numTokens = answer.usage?.completion_tokens ?? null;
  const seconds = firstMs === null ? 0 : (lastMs - firstMs) / 1000;
  return {
    firstMs,
    lastMs,
    numTokens,
    numPromptTokens: answer.usage?.prompt_tokens ?? null,
    numCachedTokens: answer.usage?.prompt_tokens_details?.cached_tokens ?? 0,
    tokensPerSecond: numTokens > 1 && seconds > 0 ? (numTokens - 1) / seconds : null,
    gapP50: quantile(gaps, 0.5),
    gapP99: quantile(gaps, 0.99),
    gapMax: gaps.length ? gaps.reduce((most, gap) => Math.max(most, gap), 0) : null,
  };
}

/** Three digits at most, with the unit that suits. */
export function formatMs(ms) {
  if (ms === null) return "–";
  if (ms === 0) return "0";
  if (ms >= 10000) return `${(ms / 1000).toFixed(1)}\u00a0s`;
  if (ms >= 1000) return `${(ms / 1000).toFixed(2)}\u00a0s`;
  return `${ms >= 10 ? Math.round(ms) : ms.toFixed(1)}\u00a0ms`;
}
