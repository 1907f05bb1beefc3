// Files, uploads and batches of OpenAI's package for JavaScript, on the server at argv[2]: one JSON object on stdout.
import { createHash } from "node:crypto";
import OpenAI, { toFile } from "openai";

const client = new OpenAI({ baseURL: `${process.argv[2]}/v1`, apiKey: "unused", maxRetries: 0 });
const ENDS = ["completed", "failed", "cancelled", "expired"];

async function failure(promise) {
  try {
    await promise;
    return null;
  } catch (error) {
    return { class: error.constructor.name, status: error.status, param: error.param };
  }
}

async function kept(text, purpose, more = {}) {
  return client.files.create({ file: await toFile(Buffer.from(text), "näme.txt"), purpose, ...more });
}

async function ended(batch) {
  while (!ENDS.includes(batch.status)) {
    await new Promise((resolve) => setTimeout(resolve, 20));
    batch = await client.batches.retrieve(batch.id);
  }
  return batch;
}

function lines(count, content) {
  return [...Array(count).keys()]
    .map((number) => ({
      custom_id: `${number}`, method: "POST", url: "/v1/chat/completions",
      body: { model: "tiny", messages: [{ role: "user", content }] },
    }))
    .map((line) => JSON.stringify(line)).join("\n");
}

async function submitted(text) {
  const input = await kept(text, "batch");
  return client.batches.create({ input_file_id: input.id, endpoint: "/v1/chat/completions", completion_window: "24h" });
}

const results = {
  async file() {
    const file = await kept("some text", "user_data", { expires_after: { anchor: "created_at", seconds: 3600 } });
    const waited = await client.files.waitForProcessing(file.id);
    const content = await (await client.files.content(file.id)).text();
    const deleted = await client.files.delete(file.id);
    const gone = await failure(client.files.retrieve(file.id));
    return { file, waited: waited.status, content, deleted: deleted.deleted, gone };
  },
  async pages() {
    const made = [];
    for (let number = 0; number < 5; number++) made.push((await kept(`${number}`, "vision")).id);
    const down = [], up = [];
    for await (const file of client.files.list({ purpose: "vision", limit: 2 })) down.push(file.id);
    for await (const file of client.files.list({ purpose: "vision", limit: 2, order: "asc" })) up.push(file.id);
    return { made, down: down.slice(0, 5), up: up.slice(-5) };
  },
  async upload() {
    const upload = await client.uploads.create({ bytes: 6, filename: "a.txt", mime_type: "text/plain", purpose: "evals" });
    const parts = [];
    for (const text of ["def", "abc"]) {
      parts.push(await client.uploads.parts.create(upload.id, { data: await toFile(Buffer.from(text), "part") }));
    }
    const md5 = createHash("md5").update("abcdef").digest("hex");
    const done = await client.uploads.complete(upload.id, { part_ids: [parts[1].id, parts[0].id], md5 });
    const other = await client.uploads.create({ bytes: 6, filename: "b", mime_type: "text/plain", purpose: "evals" });
    const cancelled = await client.uploads.cancel(other.id);
    const content = await (await client.files.content(done.file.id)).text();
    return { status: done.status, content, cancelled: cancelled.status };
  },
  async batch() {
    const batch = await ended(await submitted(lines(5, "Hi")));
    const rows = (await (await client.files.content(batch.output_file_id)).text()).trim().split("\n").map(JSON.parse);
    const listed = [];
    for await (const one of client.batches.list({ limit: 1 })) {
      listed.push(one.id);
      if (listed.length === 1) break;
    }
    return { status: batch.status, counts: batch.request_counts, ids: rows.map((row) => row.custom_id).sort(), listed: listed[0] === batch.id };
  },
  async cancelled() {
    const batch = await submitted(lines(10, "FOREVER"));
    const answer = await client.batches.cancel(batch.id);
    return { at_once: answer.status, status: (await ended(answer)).status };
  },
};

const seen = {};
for (const [name, run] of Object.entries(results)) seen[name] = await run();
console.log(JSON.stringify(seen));
