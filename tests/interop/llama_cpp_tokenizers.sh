#!/usr/bin/env bash
# Vocabularies that qkv writes into GGUF, tokenized by llama.cpp: the ids that the vocabulary's own files give here. Special
# tokens are recognized and put around the text on both sides.
source "$(dirname "$0")/support.bash" "$@"
program=$2/tests/interop_tokenizers
[ -x "$program" ] || skip "there is no program $program"
[ -d "$shared/data/tokenizers" ] || skip "no vocabularies at $shared/data/tokenizers"
install_peer llama-cpp
peer=$peers/llama-cpp/llama-peer

# Prose, code and many scripts, with and without special tokens.
{
  head -c 30000 "$shared/data/text/calibration_datav3.txt" | iconv -c -f utf-8 -t utf-8
  cat "$shared/data/vocab/ggml-vocab-gpt-2.gguf.inp"
  printf '<s> x</s><|im_start|>user\n<|endoftext|> [INST] a [/INST]<|eot_id|>\n\n\nend  '
} > text

# Qwen's ranks have "</s>" as an ordinary piece, which llama.cpp takes for a control token by its spelling whatever the file
# says: there the text does without it.
sed 's|</s>||g' text > text.without

checked=0
for name in gpt2 llama3 qwen gpt-neox-20b llama2/tokenizer.model mistral/tokenizer.model.v1 \
  mistral/mistral_instruct_tokenizer_240323.model.v3 all-MiniLM-L6-v2; do
  tokenizer=$shared/data/tokenizers/$name
  text=text
  [ "$name" = qwen ] && text=text.without
  "$program" write "$tokenizer" v.gguf 2> err || complain "$name: $(cat err)"
  if ! "$peer" tokenize v.gguf --text "$text" > theirs 2> err; then
    complain "$name: llama.cpp refuses the vocabulary: $(head -n 3 err)"
    continue
  fi
  "$qkv" tokenizer encode "$tokenizer" --file "$text" --json > ours 2> err || complain "$name: $(cat err)"
  "$qkv" tokenizer encode v.gguf --file "$text" --json > read 2> err || complain "$name: $(cat err)"
  sed 's/.*"tokens":\[\([0-9,]*\)\].*/\1/' theirs > theirs.ids
  sed 's/.*"ids":\[\([0-9,]*\)\].*/\1/' ours > ours.ids
  sed 's/.*"ids":\[\([0-9,]*\)\].*/\1/' read > read.ids
  cmp -s ours.ids read.ids || complain "$name: qkv reads its own file differently"
  cmp -s ours.ids theirs.ids ||
    complain "$name: llama.cpp: $(diff <(tr , '\n' < ours.ids) <(tr , '\n' < theirs.ids) | head -n 8 | tr '\n' ' ')"
  printf '%-50s %s ids\n' "$name" "$(tr , '\n' < ours.ids | wc -l)"
  checked=$((checked + 1))
done
[ $checked -gt 0 ] || complain "no vocabulary was compared"
finish
