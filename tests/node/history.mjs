// Sends the answers of the server at argv[2] back to it, as the JavaScript packages gather them. argv[3]: the models,
// the tools, how many answers there are and where each is cut. Prints what was refused. Run by test_history.py.
import { Ollama } from "ollama";
import OpenAI from "openai";

const openai = new OpenAI({ baseURL: `${process.argv[2]}/v1`, apiKey: "unused", maxRetries: 0 });
const ollama = new Ollama({ host: process.argv[2] });
const { models, tools, answers, cuts } = JSON.parse(process.argv[3]);
const refused = [];

function ending(results) {
  const turns = results.length ? results : [{ role: "user" }];
  turns.at(-1).content = "TAKEN BACK";
  return turns;
}

async function viaOpenai(model, asked, cut) {
  const runner = openai.chat.completions.stream({ model, messages: asked, tools, max_tokens: cut });
  let message;
  try {
    message = (await runner.finalChatCompletion()).choices[0].message;
  } catch (error) {
    if (error.constructor.name !== "LengthFinishReasonError") throw error;
    message = runner.currentChatCompletionSnapshot?.choices[0].message ?? (await whole(model, asked, cut));
  }
  const calls = message.tool_calls ?? [];
  const results = calls.map((call) => ({ role: "tool", tool_call_id: call.id, content: "sunny" }));
  await openai.chat.completions.create({ model, messages: [...asked, message, ...ending(results)], tools });
}

async function whole(model, messages, cut) {
  return (await openai.chat.completions.create({ model, messages, tools, max_tokens: cut })).choices[0].message;
}

async function viaOllama(model, asked, cut) {
  const { message } = await ollama.chat({ model, messages: asked, tools, options: cut ? { num_predict: cut } : {} });
  const calls = message.tool_calls ?? [];
  const results = calls.map((call) => ({ role: "tool", tool_name: call.function.name, content: "sunny" }));
  await ollama.chat({ model, messages: [...asked, message, ...ending(results)], tools });
}

for (const model of models) {
  for (let answer = 0; answer < answers; answer++) {
    const asked = [{ role: "user", content: `ANSWER ${answer};` }];
    const attempts = cuts.flatMap((cut) => [viaOpenai, viaOllama].map(async (way) => {
      try {
        await way(model, asked, cut ?? undefined);
      } catch (error) {
        refused.push({ model, answer, cut, way: way.name, why: String(error) });
      }
    }));
    await Promise.all(attempts);
  }
}
console.log(JSON.stringify(refused));
process.exit(0);
