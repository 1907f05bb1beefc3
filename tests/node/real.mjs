// OpenAI's package for JavaScript against a real model. Arguments: the server's URL, the model's name, what to do.
import OpenAI from "openai";

const [url, model, what] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "unused", maxRetries: 0 });
const ask = (content) => [{ role: "user", content }];
const object = (properties) => ({
  type: "object", properties, required: Object.keys(properties), additionalProperties: false,
});

const results = {
  async tools() {
    const asked = [];
    const weather = {
      name: "get_weather",
      parameters: object({ city: { type: "string", minLength: 1, maxLength: 16 } }),
      parse: JSON.parse,
      function: ({ city }) => { asked.push(city); return "17 degrees, sunny"; },
    };
    const loop = client.chat.completions.runTools({
      model, messages: ask("What is the weather in Paris?"), seed: 1, max_tokens: 120,
      tools: [{ type: "function", function: weather }],
      tool_choice: { type: "function", function: { name: "get_weather" } },
    });
    await loop.done();
    const stream = client.chat.completions.stream({
      model, messages: ask("It is dark."), seed: 1, max_tokens: 120, tool_choice: "required", parallel_tool_calls: false,
      tools: [{ type: "function", function: { name: "set_light", parameters: object({ on: { type: "boolean" } }) } }],
    });
    const [choice] = (await stream.finalChatCompletion()).choices;
    return { asked, calls: choice.message.tool_calls.map((call) => call.function), reason: choice.finish_reason };
  },
  async choices() {
    const fields = { model, messages: ask("Say hello."), n: 10, seed: 5, temperature: 1, guided_regex: "[A-Z][a-z ]{3,12}[.!]" };
    const whole = await client.chat.completions.create(fields);
    const stream = client.chat.completions.stream({ ...fields, stream_options: { include_usage: true } });
    const streamed = await stream.finalChatCompletion();
    const shown = ({ choices, usage }) => ({
      indexes: choices.map((choice) => choice.index),
      texts: choices.map((choice) => choice.message.content),
      usage: [usage.prompt_tokens, usage.completion_tokens],
    });
    return { whole: shown(whole), streamed: shown(streamed) };
  },
};
console.log(JSON.stringify(await results[what]()));
