// Responses and conversations of OpenAI's package for JavaScript, on the server at argv[2]: one JSON object on stdout.
import OpenAI from "openai";
import { zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const client = new OpenAI({ baseURL: `${process.argv[2]}/v1`, apiKey: "unused", maxRetries: 0 });
const weather = {
  type: "function",
  name: "get_weather",
  strict: false,
  parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
};

async function all(pages) {
  const items = [];
  for await (const item of pages) items.push(item);
  return items;
}

async function failure(promise) {
  try {
    await promise;
    return null;
  } catch (error) {
    return { class: error.constructor.name, status: error.status, code: error.code, param: error.param };
  }
}

const results = {
  async create() {
    const response = await client.responses.create({ model: "tiny", input: "Hi" });
    return [response.output_text, response.status];
  },
  async stream() {
    const stream = await client.responses.create({ model: "tiny", input: "Hi", stream: true });
    let text = "";
    for await (const event of stream) if (event.type === "response.output_text.delta") text += event.delta;
    return text;
  },
  async accumulated() {
    const runner = client.responses.stream({ model: "tools", input: "CALL TWO", tools: [weather] });
    const whole = await runner.finalResponse();
    return whole.output.map((item) => [item.type, item.arguments]);
  },
  async parsed() {
    const format = zodTextFormat(z.object({ ok: z.boolean() }), "answer");
    const response = await client.responses.parse({ model: "tiny", input: "JSON", text: { format } });
    return response.output_parsed;
  },
  async loop() {
    const first = await client.responses.create({ model: "tools", input: "CALL", tools: [weather] });
    const input = first.output.map((call) => ({ type: "function_call_output", call_id: call.call_id, output: "RESULT" }));
    const last = await client.responses.create({
      model: "tools", input, tools: [weather], previous_response_id: first.id,
    });
    return last.output_text;
  },
  async stored() {
    const input = ["0", "1", "2"].map((content) => ({ role: "user", content }));
    const made = await client.responses.create({ model: "tiny", input });
    const same = (await client.responses.retrieve(made.id)).output_text === made.output_text;
    const items = await all(client.responses.inputItems.list(made.id, { limit: 2, order: "asc" }));
    await client.responses.delete(made.id);
    const gone = await failure(client.responses.retrieve(made.id));
    return { same, items: items.map((item) => item.content[0].text), gone };
  },
  async background() {
    const made = await client.responses.create({ model: "tiny", input: "Hi", background: true });
    const events = await all(await client.responses.retrieve(made.id, { stream: true, starting_after: 2 }));
    const endless = await client.responses.create({ model: "tiny", input: "FOREVER", background: true });
    const cancelled = await client.responses.cancel(endless.id);
    return [made.status, events[0].sequence_number, events.at(-1).type, cancelled.status];
  },
  async counted() {
    const { input_tokens } = await client.responses.inputTokens.count({ model: "tiny", input: "Hi" });
    const short = await client.responses.compact({ model: "tiny", input: "Hi" });
    return [input_tokens, short.output.map((item) => item.type)];
  },
  async conversation() {
    const made = await client.conversations.create({ metadata: { a: "b" }, items: [{ role: "user", content: "Once" }] });
    await client.conversations.update(made.id, { metadata: { c: "d" } });
    const response = await client.responses.create({ model: "tiny", input: "PROMPT", conversation: made.id });
    await client.conversations.items.create(made.id, { items: [{ role: "user", content: "More" }] });
    const items = await all(client.conversations.items.list(made.id, { limit: 2, order: "asc" }));
    const one = await client.conversations.items.retrieve(items[0].id, { conversation_id: made.id });
    await client.conversations.items.delete(items[0].id, { conversation_id: made.id });
    const { metadata } = await client.conversations.retrieve(made.id);
    const { deleted } = await client.conversations.delete(made.id);
    return {
      knows: response.output_text.includes("Once"), roles: items.map((item) => item.role),
      same: one.id === items[0].id, metadata, deleted,
    };
  },
  async errors() {
    return {
      missing: await failure(client.responses.create({ model: "nope", input: "Hi" })),
      previous: await failure(client.responses.create({ model: "tiny", input: "Hi", previous_response_id: "resp_x" })),
    };
  },
};

const seen = {};
for (const [name, run] of Object.entries(results)) seen[name] = await run();
console.log(JSON.stringify(seen));
