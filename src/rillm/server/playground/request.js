// What is sent: a conversation and settings as the body of a request, and as programs.

export const EXAMPLE_TOOLS = [
  {
    type: "function",
    function: {
      name: "get_weather",
      description: "Get the current weather in a city.",
      parameters: {
        type: "object",
        properties: { city: { type: "string", description: "Name of the city" } },
        required: ["city"],
      },
    },
  },
];

/** What the example's function could answer; a start for who answers by hand. */
export const EXAMPLE_RESULT = '{"temperature": 3, "condition": "snow"}';

/**
 * @param {object[]} turns of a conversation
 * @returns {object[]} messages of the API
 */
export function toMessages(turns, system) {
  const messages = system ? [{ role: "system", content: system }] : [];
  for (const turn of turns) {
    if (turn.role === "user") {
      messages.push({ role: "user", content: turn.content });
      continue;
    }
    const choice = turn.answer.choices[turn.answer.chosen];
    // What was refused, or stopped before it began, has not been said.
    if (!choice.content && !choice.reasoning && !choice.calls.length && !choice.finish) continue;
    messages.push(assistantMessage(choice));
    choice.calls.forEach((call, index) => {
      const result = turn.results?.[index];
      if (typeof result === "string") {
        messages.push({ role: "tool", tool_call_id: call.id, content: result });
      }
    });
  }
  return messages;
}

function assistantMessage({ reasoning, content, calls, finish }) {
  const message = { role: "assistant", content: content || null };
  if (reasoning) message.reasoning_content = reasoning;
  // A call that was cut off is no call: its arguments are no JSON.
  if (finish === "tool_calls") {
    message.tool_calls = calls.map(({ id, name, arguments: text }) => ({
      id,
      type: "function",
      function: { name, arguments: text },
    }));
  }
  if (message.content === null && !message.tool_calls) message.content = "";
  return message;
}

/**
 * @param {object} settings as settings.js reads them
 * @param {object[]} turns up to what is to be answered
 */
export function buildRequest(settings, turns) {
  const { model, system, sampling, tools, toolChoice, topLogprobs, more } = settings;
  const body = { model, messages: toMessages(turns, system), ...sampling };
  if (tools) {
    body.tools = tools;
    if (toolChoice !== "auto") body.tool_choice = toolChoice;
  }
  if (topLogprobs !== null) {
    body.logprobs = true;
    body.top_logprobs = topLogprobs;
  }
  return { ...body, stream: true, stream_options: { include_usage: true }, ...more };
}

/** A command for a shell; the key stays in the environment. */
export function toCurl(body, base, hasKey) {
  const quoted = JSON.stringify(body, null, 2).replaceAll("'", "'\\''");
  const key = hasKey ? ' \\\n  -H "Authorization: Bearer $RILLM_API_KEY"' : "";
  return (
    `curl -N '${base}v1/chat/completions' \\\n` +
    `  -H 'Content-Type: application/json'${key} \\\n  -d '${quoted}'\n`
  );
}

/** What `create` of OpenAI's client takes by name; the rest goes into `extra_body`. */
const OPENAI_FIELDS = new Set([
  ..."model messages temperature top_p max_completion_tokens n seed stop presence_penalty".split(" "),
  ..."frequency_penalty reasoning_effort tools tool_choice parallel_tool_calls logprobs".split(" "),
  ..."top_logprobs logit_bias stream stream_options response_format max_tokens user".split(" "),
]);

/** A program over OpenAI's client. */
export function toPython(body, base, hasKey) {
  const known = Object.entries(body).filter(([name]) => OPENAI_FIELDS.has(name));
  const extra = Object.entries(body).filter(([name]) => !OPENAI_FIELDS.has(name));
  const named = known.map(([name, value]) => `    ${name}=${toPythonValue(value, "    ")},\n`);
  if (extra.length) {
    named.push(`    extra_body=${toPythonValue(Object.fromEntries(extra), "    ")},\n`);
  }
  const key = hasKey ? 'os.environ["RILLM_API_KEY"]' : '"none"';
  return `${hasKey ? "import os\n\n" : ""}from openai import OpenAI

client = OpenAI(base_url=${JSON.stringify(`${base}v1`)}, api_key=${key})
stream = client.chat.completions.create(
${named.join("")})
for chunk in stream:
    for choice in chunk.choices:
        delta = choice.delta
        print(getattr(delta, "reasoning_content", None) or "", end="")
        print(delta.content or "", end="", flush=True)
        for call in delta.tool_calls or []:
            print(call.function.name or "", call.function.arguments or "", sep="", end="")
print()
`;
}

function toPythonValue(value, indent) {
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (typeof value !== "object") return toPythonLiteral(value);
  const inner = `${indent}    `;
  const items = Array.isArray(value)
    ? value.map((each) => toPythonValue(each, inner))
    : Object.entries(value).map(
        ([name, each]) => `${toPythonLiteral(name)}: ${toPythonValue(each, inner)}`,
      );
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  if (!items.length) return open + close;
  return `${open}\n${items.map((item) => `${inner}${item},\n`).join("")}${indent}${close}`;
}

/** Numbers and strings of JSON are Python's, too. */
const toPythonLiteral = (value) => JSON.stringify(value);
