// What Ollama's package for JavaScript makes of the server at argv[2]: one JSON object on stdout. Run by test_node.py.
import { Ollama } from "ollama";

const client = new Ollama({ host: process.argv[2] });
const ask = (content) => [{ role: "user", content }];
const weather = {
  type: "function",
  function: {
    name: "get_weather",
    description: "Weather of a city",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  },
};

async function failure(promise) {
  try {
    await promise;
    return null;
  } catch (error) {
    return { name: error.name, message: error.message, status: error.status_code ?? null };
  }
}

const results = {
  async chat() {
    const answer = await client.chat({ model: "tiny", messages: ask("Hi") });
    return { text: answer.message.content, reason: answer.done_reason };
  },
  async stream() {
    let text = "";
    for await (const part of await client.chat({ model: "tiny", messages: ask("Hi"), stream: true })) text += part.message.content;
    return text;
  },
  async thinking() {
    const answer = await client.chat({ model: "thinker", messages: ask("THINK"), think: true });
    return [answer.message.thinking, answer.message.content];
  },
  async tools() {
    const answer = await client.chat({ model: "tools", messages: ask("CALL TWO"), tools: [weather] });
    return answer.message.tool_calls.map((call) => call.function.arguments.city);
  },
  async generate() {
    let text = "";
    for await (const part of await client.generate({ model: "tiny", prompt: "Hi", stream: true })) text += part.response;
    return text;
  },
  async embed() {
    const answer = await client.embed({ model: "embedder", input: ["a", "b"], dimensions: 4 });
    return answer.embeddings.map((vector) => vector.length);
  },
  async models() {
    return (await client.list()).models.map((model) => model.name);
  },
  async show() {
    return (await client.show({ model: "tiny" })).details.family;
  },
  async ps() {
    return (await client.ps()).models.some((model) => model.name === "tiny:latest");
  },
  async version() {
    return (await client.version()).version;
  },
  async abort() {
    const stream = await client.generate({ model: "tiny", prompt: "FOREVER", stream: true });
    try {
      for await (const part of stream) if (part.response) stream.abort();
    } catch (error) {
      return error.name;
    }
    return "not aborted";
  },
  async errors() {
    return {
      missing: await failure(client.chat({ model: "nope", messages: ask("Hi") })),
      pull: await failure(client.pull({ model: "nope-nope" })),
      late: await failure((async () => {
        for await (const _ of await client.chat({ model: "tiny", messages: ask("DIE LATE"), stream: true }));
      })()),
    };
  },
};

const out = {};
for (const [name, run] of Object.entries(results)) out[name] = await run();
console.log(JSON.stringify(out));
