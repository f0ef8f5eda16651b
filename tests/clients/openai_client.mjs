// The npm client `openai` against a server, whose URL is the first argument.
import assert from "node:assert/strict";
import { createRequire } from "node:module";

const OpenAI = createRequire(process.cwd() + "/")("openai");
const client = new OpenAI({ baseURL: process.argv[2] + "/v1", apiKey: "any", maxRetries: 0 });
const base = { model: "bundled", temperature: 0, max_tokens: 200 };
const hello = [{ role: "user", content: "Hello!" }];
const think = { chat_template_kwargs: { enable_thinking: true } };
const tools = [
  {
    type: "function",
    function: {
      name: "get_weather",
      description: "Get the weather in a city.",
      parameters: {
        type: "object",
        properties: { city: { type: "string", description: "Name of the city." } },
        required: ["city"],
      },
    },
  },
];

const whole = await client.chat.completions.create({ ...base, messages: hello });
let text = "";
let usage = null;
let reasons = [];
const stream = await client.chat.completions.create({
  ...base,
  messages: hello,
  stream: true,
  stream_options: { include_usage: true },
});
for await (const chunk of stream) {
  text += chunk.choices[0]?.delta.content ?? "";
  usage = chunk.usage ?? usage;
  if (chunk.choices[0]?.finish_reason) reasons.push(chunk.choices[0].finish_reason);
}
assert.notEqual(text, "");
assert.equal(text, whole.choices[0].message.content);
assert.equal(usage.total_tokens, whole.usage.total_tokens);
assert.equal(typeof usage.prompt_tokens_details.cached_tokens, "number");
assert.deepEqual(reasons, ["stop"]);

const runner = client.chat.completions.stream({
  ...base,
  messages: [{ role: "user", content: "What is the weather in Oslo?" }],
  tools,
});
const { choices } = await runner.finalChatCompletion();
const [call] = choices[0].message.tool_calls;
assert.equal(call.function.name, "get_weather");
assert.deepEqual(JSON.parse(call.function.arguments), { city: "Oslo" });
assert.equal(choices[0].finish_reason, "tool_calls");

let reasoning = "";
const thinking = await client.chat.completions.create({
  ...base,
  ...think,
  messages: hello,
  stream: true,
});
for await (const chunk of thinking) reasoning += chunk.choices[0].delta.reasoning_content ?? "";
assert.notEqual(reasoning, "");

const several = { ...base, messages: hello, temperature: 1, seed: 3, n: 2 };
const two = await client.chat.completions.create(several);
const texts = ["", ""];
for await (const chunk of await client.chat.completions.create({ ...several, stream: true })) {
  for (const choice of chunk.choices) texts[choice.index] += choice.delta.content ?? "";
}
assert.deepEqual(texts, two.choices.map((choice) => choice.message.content));

await assert.rejects(
  client.chat.completions.create({ ...base, messages: hello, temperature: 5, stream: true }),
  (error) => error instanceof OpenAI.BadRequestError && error.param === "temperature",
);
