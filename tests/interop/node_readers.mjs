// node node_readers.mjs MODEL.gguf TEXT INFO.json ENCODED.json GENERATED.json: exit code 1 and a sentence where a reader of
// npm finds another thing in the file than qkv did: `info --json`, `tokenizer encode TEXT --json`, `generate --json`.
import { readFileSync } from "node:fs";
import { gguf } from "@huggingface/gguf";
import { getLlama } from "node-llama-cpp";

const [modelPath, text, ...outputs] = process.argv.slice(2);
const [info, encoded, generated] = outputs.map((path) => JSON.parse(readFileSync(path, "utf8")));
const fail = (sentence) => {
  console.error(sentence);
  process.exit(1);
};
const expect = (what, found, wanted) => {
  if (JSON.stringify(found) !== JSON.stringify(wanted)) fail(`${what}: expected ${JSON.stringify(wanted)}, found ${JSON.stringify(found)}`);
};
const plain = (value) => (typeof value === "bigint" ? Number(value) : value);

// @huggingface/gguf: every key with its value (of long lists `info` gives the length and how they begin), every tensor.
const parsed = await gguf(modelPath, { allowLocalFile: true });
for (const [key, wanted] of Object.entries(info.metadata)) {
  const value = parsed.metadata[key];
  if (value === undefined) fail(`@huggingface/gguf finds no key ${key}`);
  if (wanted !== null && typeof wanted === "object" && "list_of" in wanted) {
    expect(`length of ${key}`, value.length, wanted.length);
    expect(key, value.slice(0, wanted.first.length).map(plain), wanted.first);
  } else {
    expect(key, Array.isArray(value) ? value.map(plain) : plain(value), wanted);
  }
}
const elements = parsed.tensorInfos.map((tensor) => tensor.shape.reduce((n, d) => n * Number(d), 1));
expect("@huggingface/gguf: tensors", elements.length, info.tensor_count);
expect("@huggingface/gguf: parameters", elements.reduce((sum, n) => sum + n, 0), info.parameters);

// node-llama-cpp: the same ids of the text, the same greedy answer.
const llama = await getLlama({ gpu: false, build: "never", skipDownload: true, maxThreads: 2, logLevel: "error" });
const model = await llama.loadModel({ modelPath });
expect("node-llama-cpp: ids of the text", model.tokenize(text).map(Number), encoded.ids);
// Keys and values in f32 as qkv has them: its default, f16, decides between tokens that are about as likely.
const cache = { experimentalKvCacheKeyType: "F32", experimentalKvCacheValueType: "F32" };
const context = await model.createContext({ contextSize: 64, flashAttention: false, ...cache });
const found = [];
for await (const token of context.getSequence().evaluate(encoded.ids, { temperature: 0, yieldEogToken: true })) {
  found.push(Number(token));
  if (found.length === generated.tokens.length) break;
}
expect("node-llama-cpp: greedy ids", found, generated.tokens);
console.log(`${parsed.metadata["general.architecture"]}: ${info.tensor_count} tensors, ${Object.keys(info.metadata).length} keys, ${found.length} greedy tokens`);
process.exit(0);
