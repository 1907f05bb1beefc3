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
  async stored() {
    const chats = client.chat.completions;
    const metadata = { made: "by node" };
    const made = [];
    for (let i = 0; i < 5; i++) {
      made.push((await chats.create({ model: "tiny", messages: ask(`number ${i}`), store: true, metadata })).id);
    }
    const ids = async (pages) => { const found = []; for await (const one of pages) found.push(one.id); return found; };
    const forwards = await ids(chats.list({ metadata, limit: 2 }));
    const backwards = await ids(chats.list({ metadata, limit: 2, order: "desc" }));
    const messages = [];
    for await (const message of chats.messages.list(made[0], { limit: 1 })) messages.push(message.content);
    const changed = await chats.update(made[0], { metadata: { made: "anew" } });
    for (const id of made) await chats.delete(id);
    return {
      forwards: forwards.join() === made.join(),
      backwards: backwards.join() === made.toReversed().join(),
      messages,
      changed: changed.metadata,
      left: await ids(chats.list({ metadata })),
      gone: await failure(chats.retrieve(made[0])),
    };
  },
  async decision() {
    const questions = [
      { type: "predicate", name: "sure", instructions: "Is it?" },
      { type: "choice", instructions: "Which?", choices: [{ value: "a" }, { value: true }] },
    ];
    const { answers } = await client.decisions.create({ model: "tiny", input: "x", questions });
    return answers.map((answer) => ({ type: answer.type, name: answer.name, of: answer.probabilities?.length ?? null }));
  },
  async transcription() {
    const rate = 8000, samples = 8000;
    const sound = Buffer.alloc(44 + 2 * samples);
    sound.write("RIFF", 0); sound.writeUInt32LE(36 + 2 * samples, 4); sound.write("WAVEfmt ", 8);
    sound.writeUInt32LE(16, 16); sound.writeUInt16LE(1, 20); sound.writeUInt16LE(1, 22);
    sound.writeUInt32LE(rate, 24); sound.writeUInt32LE(2 * rate, 28); sound.writeUInt16LE(2, 32);
    sound.writeUInt16LE(16, 34); sound.write("data", 36); sound.writeUInt32LE(2 * samples, 40);
    const file = async () => OpenAI.toFile(sound, "sound.wav");
    const whole = await client.audio.transcriptions.create({ model: "listener", file: await file() });
    const stream = await client.audio.transcriptions.create({ model: "listener", file: await file(), stream: true });
    let text = "";
    for await (const event of stream) if (event.type === "transcript.text.delta") text += event.delta;
    return [whole.text, text];
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
