// The page's JavaScript snippet, and the same streamed. Arguments: the server's URL, the model's name.
import OpenAI from "openai";

const [url, model] = process.argv.slice(2);
const openai = new OpenAI({ baseURL: `${url}/v1/`, apiKey: "ollama" });

const chatCompletion = await openai.chat.completions.create({
  model,
  messages: [{ role: "user", content: "Say this is a test" }],
});

const stream = await openai.chat.completions.create({
  model,
  messages: [{ role: "user", content: "Say this is a test" }],
  stream: true,
  stream_options: { include_usage: true },
});
let streamed = "";
let usage = null;
for await (const chunk of stream) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
  usage = chunk.usage ?? usage;
}

console.log(JSON.stringify({ answer: chatCompletion.choices[0].message.content, streamed, usage }));
