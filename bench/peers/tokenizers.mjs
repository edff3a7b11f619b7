// Encodes a text with a peer's tokenizer, several times, and prints one JSON line: tokens, a hash of the ids, seconds of each run.
//   node tokenizers.mjs PEERS hf FOLDER TEXT ROUNDS         @huggingface/tokenizers on a folder's tokenizer.json
//   node tokenizers.mjs PEERS tiktoken RANKS TEXT ROUNDS    js-tiktoken on lines "base64 rank"
// PEERS is the folder in which npm installed them (scripts/install-peers node prints its parent). One thread, as JavaScript has.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [peers, kind, source, textPath, rounds] = process.argv.slice(2);
const require = createRequire(pathToFileURL(peers + "/package.json"));

function huggingFace(folder) {
  const { Tokenizer } = require("@huggingface/tokenizers");
  const json = JSON.parse(readFileSync(folder + "/tokenizer.json", "utf8"));
  const config = JSON.parse(readFileSync(folder + "/tokenizer_config.json", "utf8"));
  const tokenizer = new Tokenizer(json, config);
  return (text) => tokenizer.encode(text, { add_special_tokens: false }).ids;
}

// The pattern that the vocabulary's own code has; JavaScript has no (?i:...), so both cases are spelled out.
const kLlama3 =
  "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

function tiktoken(ranks) {
  const { Tiktoken } = require("js-tiktoken/lite");
  if (ranks === "gpt2") {
    const encoding = new Tiktoken(require("js-tiktoken/ranks/gpt2").default ?? require("js-tiktoken/ranks/gpt2"));
    return (text) => encoding.encode(text, [], []);
  }
  const tokens = readFileSync(ranks, "utf8").trim().split("\n").map((line) => line.split(" ")[0]);
  const encoding = new Tiktoken({ pat_str: kLlama3, special_tokens: {}, bpe_ranks: "! 0 " + tokens.join(" ") });
  return (text) => encoding.encode(text, [], []);
}

const encode = kind === "hf" ? huggingFace(source) : tiktoken(source);
const text = readFileSync(textPath, "utf8");
let ids;
const seconds = [];
for (let round = 0; round < Number(rounds); ++round) {
  const begin = process.hrtime.bigint();
  ids = encode(text);
  seconds.push(Number(process.hrtime.bigint() - begin) / 1e9);
}
// FNV-1a over the ids as 32-bit words.
let hash = 2166136261;
for (const id of ids) hash = Math.imul(hash ^ Number(id), 16777619) >>> 0;
console.log(JSON.stringify({ tokens: ids.length, hash, seconds }));
