// The features of OpenAI's library for JavaScript, as client_features.py: node client_features.mjs BASE MODEL
import { createRequire } from "node:module";

const OpenAI = createRequire(`${process.env.CLIENTS_NPM}/`)("openai");
const [base, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL: base, apiKey: process.env.DECKARD_KEY, maxRetries: 0, timeout: 300_000 });
const messages = [{ role: "user", content: "Hello?" }];
const text = "Hello, this is a rehearsal.";
const schema = {
  type: "object",
  properties: { days: { type: "integer", minimum: 0, maximum: 9 } },
  required: ["days"],
  additionalProperties: false,
};
const tools = [{ type: "function", function: { name: "get_weather", parameters: schema } }];
const same = (found, wanted) => {
  if (found !== wanted) throw new Error(`${found}, not ${wanted}`);
};
const chat = async (more) =>
  (await client.chat.completions.create({ model, messages, temperature: 0, max_tokens: 64, ...more })).choices[0].message;

const features = {
  chat: async () => same((await chat()).content, text),
  "chat, streamed": async () => {
    let said = "";
    const stream = await client.chat.completions.create({ model, messages, temperature: 0, max_tokens: 64, stream: true });
    for await (const chunk of stream) said += chunk.choices[0]?.delta.content ?? "";
    same(said, text);
  },
  "tools: auto": async () => same(JSON.parse((await chat({ tools })).tool_calls[0].function.arguments).days, 3),
  "json_schema, thinking off": async () => {
    const format = { type: "json_schema", json_schema: { name: "weather", schema, strict: true } };
    same(typeof JSON.parse((await chat({ response_format: format })).content).days, "number");
  },
  responses: async () =>
    same((await client.responses.create({ model, input: "Hello?", temperature: 0, max_output_tokens: 64 })).output_text, text),
  "models.list": async () => same((await client.models.list()).data.some((each) => each.id === model), true),
};
for (const [feature, run] of Object.entries(features)) {
  let result = "ok", detail = "";
  try {
    await run();
  } catch (error) {
    result = error.status ? "refused" : "wrong";
    detail = String(error.message).slice(0, 300);
  }
  console.log(JSON.stringify({ client: "openai (JavaScript)", feature, result, detail }));
}
