// What zod and OpenAI's package for JavaScript make of each kind at argv[2] (a JSON list of expressions over z): its
// JSON Schema, and the one that the SDK sends; and, for JSON texts by expression at argv[3], those that zod refuses.
import { readFileSync } from "node:fs";
import { zodFunction, zodResponseFormat } from "openai/helpers/zod";
import * as z from "zod";

const read = (path) => JSON.parse(readFileSync(path, "utf8"));
const kind = (code) => new Function("z", `return ${code}`)(z);
const attempt = (make) => { try { return { schema: make() }; } catch (error) { return { refused: error.message }; } };

const schemas = {};
for (const code of read(process.argv[2])) {
  schemas[code] = {
    plain: attempt(() => z.toJSONSchema(kind(code))),
    format: attempt(() => zodResponseFormat(z.object({ value: kind(code) }), "answer").json_schema.schema),
    tool: attempt(() => zodFunction({ name: "f", parameters: z.object({ value: kind(code) }) }).function.parameters),
  };
}
const wrong = {};
for (const [code, texts] of Object.entries(process.argv[3] ? read(process.argv[3]) : {})) {
  const type = kind(code);
  wrong[code] = texts.filter((text) => !type.safeParse(JSON.parse(text)).success);
}
console.log(JSON.stringify({ schemas, wrong }));
