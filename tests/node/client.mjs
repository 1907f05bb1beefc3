// What OpenAI's package for JavaScript makes of the server at argv[2]: one JSON object on stdout. Run by test_node.py.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: `${process.argv[2]}/v1`, apiKey: "unused", maxRetries: 0 });
const hi = [{ role: "user", content: "Hi" }];
const ask = (content) => [{ role: "user", content }];
const weather = {
  type: "function",
  function: {
    name: "get_weather",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  },
};

async function failure(promise) {
  try {
    await promise;
    return null;
  } catch (error) {
    return { class: error.constructor.name, status: error.status, code: error.code, param: error.param };
  }
}

const results = {
  async chat() {
    const { data, response } = await client.chat.completions.create({ model: "tiny", messages: hi, seed: 1 }).withResponse();
    return { text: data.choices[0].message.content, id: data._request_id, seed: response.headers.get("x-puna-seed") };
  },
  async stream() {
    const stream = await client.chat.completions.create({ model: "tiny", messages: hi, stream: true });
    let text = "";
    for await (const chunk of stream) text += chunk.choices[0]?.delta?.content ?? "";
    return text;
  },
  async accumulated() {
    const runner = client.chat.completions.stream({
      model: "tiny", messages: hi, n: 10, stream_options: { include_usage: true },
    });
    const whole = await runner.finalChatCompletion();
    return { texts: whole.choices.map((choice) => choice.message.content), usage: whole.usage.completion_tokens };
  },
  async calls() {
    const runner = client.chat.completions.stream({ model: "tools", messages: ask("CALL TWO"), tools: [weather] });
    const whole = await runner.finalChatCompletion();
    const choice = whole.choices[0];
    return { reason: choice.finish_reason, calls: choice.message.tool_calls.map((call) => call.function) };
  },
  async loop() {
    const asked = [];
    const runner = client.chat.completions.runTools({
      model: "tools",
      messages: ask("CALL"),
      tools: [{
        type: "function",
        function: {
          ...weather.function,
          parse: JSON.parse,
          function: ({ city }) => { asked.push(city); return "RESULT sunny"; },
        },
      }],
    });
    return { text: await runner.finalContent(), asked };
  },
  async parsed() {
    const schema = { type: "object", properties: { ok: { type: "boolean" } }, required: ["ok"], additionalProperties: false };
    const answer = await client.chat.completions.create({
      model: "tiny",
      messages: ask("JSON"),
      response_format: { type: "json_schema", json_schema: { name: "answer", strict: true, schema } },
    });
    return JSON.parse(answer.choices[0].message.content);
  },
  async abort() {
    const stream = await client.chat.completions.create({ model: "tiny", messages: ask("FOREVER"), stream: true });
    for await (const chunk of stream) if (chunk.choices[0].delta.content) { stream.controller.abort(); break; }
    return "aborted";
  },
  async completion() {
    const answer = await client.completions.create({ model: "tiny", prompt: ["a", "b"], max_tokens: 2 });
    return answer.choices.map((choice) => choice.text);
  },
  async embeddings() {
    const [packed, plain] = await Promise.all([
      client.embeddings.create({ model: "embedder", input: "a" }),
      client.embeddings.create({ model: "embedder", input: "a", encoding_format: "float" }),
    ]);
    return packed.data[0].embedding.every((value, i) => Math.abs(value - plain.data[0].embedding[i]) < 1e-6);
  },
  async models() {
    const ids = [];
    for await (const model of client.models.list()) ids.push(model.id);
    return { ids, one: (await client.models.retrieve("tiny")).id };
  },
  async errors() {
    return {
      missing: await failure(client.chat.completions.create({ model: "nope", messages: hi })),
      bad: await failure(client.chat.completions.create({ model: "tiny", messages: hi, temperature: 9 })),
    };
  },
};

const out = {};
for (const [name, run] of Object.entries(results)) out[name] = await run();
console.log(JSON.stringify(out));
