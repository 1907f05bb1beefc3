// What Anthropic's package for JavaScript makes of the server at argv[2]: one JSON object on stdout. Run by test_node.py.
import Anthropic from "@anthropic-ai/sdk";

const client = new Anthropic({ baseURL: process.argv[2], apiKey: "unused", maxRetries: 0 });
const ask = (content, more = {}) => ({ model: "tiny", max_tokens: 500, messages: [{ role: "user", content }], ...more });
const weather = {
  name: "get_weather",
  input_schema: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
};

async function failure(promise) {
  try {
    await promise;
    return null;
  } catch (error) {
    return { class: error.constructor.name, status: error.status, type: error.error?.error?.type, id: error.requestID };
  }
}

const results = {
  async message() {
    const { data, response } = await client.messages.create(ask("Hi")).withResponse();
    const { content, stop_reason, usage } = data;
    return { content, stop_reason, tokens: usage.output_tokens, id: data._request_id === response.headers.get("request-id") };
  },
  async events() {
    const names = [];
    for await (const event of await client.messages.create(ask("THINK", { model: "thinker", stream: true }))) names.push(event.type);
    return names;
  },
  async stream() {
    const heard = { text: "", thinking: "", signature: "" };
    const stream = client.messages
      .stream(ask("THINK", { model: "thinker" }))
      .on("text", (text) => (heard.text += text))
      .on("thinking", (text) => (heard.thinking += text))
      .on("signature", (text) => (heard.signature = text));
    return { heard, final: (await stream.finalMessage()).content };
  },
  async calls() {
    const stream = client.messages.stream(ask("CALL TWO", { model: "tools", tools: [weather] }));
    const { content, stop_reason } = await stream.finalMessage();
    return { stop_reason, calls: content.map(({ type, name, input }) => ({ type, name, input })) };
  },
  async loop() {
    const asked = [];
    const tool = {
      ...weather,
      run: ({ city }) => {
        asked.push(city);
        return "RESULT: sun";
      },
    };
    const runner = client.beta.messages.toolRunner(ask("CALL", { model: "tools", tools: [tool] }));
    return { text: (await runner.runUntilDone()).content[0].text, asked };
  },
  async counted() {
    const { model, messages } = ask("Hi");
    return client.messages.countTokens({ model, messages });
  },
  async models() {
    const ids = [];
    for await (const model of client.models.list({ limit: 2 })) ids.push(model.id);
    return { ids, one: (await client.models.retrieve("tiny")).type };
  },
  async batch() {
    const params = ask("Hi");
    let batch = await client.messages.batches.create({ requests: [{ custom_id: "a", params }] });
    while (batch.processing_status !== "ended") batch = await client.messages.batches.retrieve(batch.id);
    const texts = [];
    for await (const { result } of await client.messages.batches.results(batch.id)) texts.push(result.message.content[0].text);
    return { counts: batch.request_counts, texts, deleted: (await client.messages.batches.delete(batch.id)).type };
  },
  async missing() {
    return failure(client.messages.create(ask("Hi", { model: "nope" })));
  },
  async invalid() {
    return failure(client.messages.create(ask("Hi", { max_tokens: -1 })));
  },
  async broken() {
    return failure(client.messages.stream(ask("DIE LATE")).finalMessage());
  },
  async abort() {
    const stream = client.messages.stream(ask("FOREVER", { max_tokens: 4000 }));
    stream.once("text", () => stream.abort());
    return (await failure(stream.finalMessage())).class;
  },
};

const found = {};
for (const [name, run] of Object.entries(results)) found[name] = await run();
console.log(JSON.stringify(found));
