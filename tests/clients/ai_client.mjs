// The npm client `ai` with `@ai-sdk/openai-compatible`; the server's URL is the first argument.
import assert from "node:assert/strict";
import { createRequire } from "node:module";

const require = createRequire(process.cwd() + "/");
const { APICallError, generateText, jsonSchema, stepCountIs, streamText, tool } = require("ai");
const { createOpenAICompatible } = require("@ai-sdk/openai-compatible");

const provider = createOpenAICompatible({
  name: "rillm",
  baseURL: process.argv[2] + "/v1",
  apiKey: "any",
  includeUsage: true,
});
const base = { model: provider("bundled"), temperature: 0, maxOutputTokens: 200, maxRetries: 0 };

const whole = await generateText({ ...base, prompt: "Hello!" });
const streamed = streamText({ ...base, prompt: "Hello!" });
let text = "";
for await (const piece of streamed.textStream) text += piece;
assert.notEqual(text, "");
assert.equal(text, whole.text);
assert.equal(await streamed.finishReason, "stop");
assert.equal((await streamed.usage).totalTokens, whole.usage.totalTokens);

const cities = [];
const steps = streamText({
  ...base,
  prompt: "What is the weather in Oslo?",
  stopWhen: stepCountIs(2),
  tools: {
    get_weather: tool({
      description: "Get the weather in a city.",
      inputSchema: jsonSchema({
        type: "object",
        properties: { city: { type: "string", description: "Name of the city." } },
        required: ["city"],
      }),
      execute: async ({ city }) => {
        cities.push(city);
        return { weather: "rain" };
      },
    }),
  },
});
await steps.consumeStream();
assert.deepEqual(cities, ["Oslo"]);
assert.notEqual(await steps.text, "");

const thinking = streamText({
  ...base,
  prompt: "Hello!",
  providerOptions: { rillm: { chat_template_kwargs: { enable_thinking: true } } },
});
await thinking.consumeStream();
assert.notEqual(await thinking.reasoningText, undefined);
assert.ok(!(await thinking.text).includes("think>"));

await assert.rejects(
  generateText({ ...base, prompt: "Hello!", temperature: 5 }),
  (error) => APICallError.isInstance(error) && error.statusCode === 400,
);
