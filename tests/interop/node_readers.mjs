// node node_readers.mjs MODEL.gguf INFO.json GREEDY.json: exit code 1 and a sentence where a reader disagrees.
import { readFileSync } from "node:fs";
import { gguf } from "@huggingface/gguf";
import { getLlama } from "node-llama-cpp";

const [modelPath, infoPath, greedyPath] = process.argv.slice(2);
const info = JSON.parse(readFileSync(infoPath, "utf8"));
const greedy = JSON.parse(readFileSync(greedyPath, "utf8"));
const fail = (sentence) => {
  console.error(sentence);
  process.exit(1);
};

const parsed = await gguf(modelPath, { allowLocalFile: true });
const architecture = parsed.metadata["general.architecture"];
if (!architecture) fail("@huggingface/gguf finds no general.architecture");
const elements = parsed.tensorInfos.reduce((sum, tensor) => sum + tensor.shape.reduce((n, d) => n * Number(d), 1), 0);
if (elements !== info.parameters && elements !== info.elements) {
  fail(`@huggingface/gguf counts ${elements} elements, qkv ${info.parameters ?? info.elements}`);
}

const llama = await getLlama({ gpu: false, build: "never", skipDownload: true, maxThreads: 2, logLevel: "error" });
const model = await llama.loadModel({ modelPath });
const context = await model.createContext({ contextSize: 64, flashAttention: false });
const sequence = context.getSequence();
const prompt = greedy.tokens[0].slice(0, greedy.prompt_len);
const wanted = greedy.tokens[0].slice(greedy.prompt_len);
const found = [];
for await (const token of sequence.evaluate(prompt, { temperature: 0, yieldEogToken: true })) {
  found.push(Number(token));
  if (found.length === wanted.length) break;
}
if (JSON.stringify(found) !== JSON.stringify(wanted)) fail(`node-llama-cpp: expected ${wanted}, found ${found}`);
console.log(`${architecture}: ${parsed.tensorInfos.length} tensors, ${Object.keys(parsed.metadata).length} keys; greedy tokens agree`);
process.exit(0);
