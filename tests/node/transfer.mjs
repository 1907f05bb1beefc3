// Push and pull by Ollama's package for JavaScript: the server at argv[2], the model argv[3]; what it saw on stdout.
import { Ollama } from "ollama";

const [, , host, model] = process.argv;
const client = new Ollama({ host });
const seen = { push: [], pull: [] };
for (const way of ["push", "pull"])
  for await (const part of await client[way]({ model, insecure: true, stream: true })) seen[way].push(part);
console.log(JSON.stringify(seen));
