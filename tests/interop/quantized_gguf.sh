#!/usr/bin/env bash
# Files that llama.cpp quantized: what the blocks stand for is the same bits as what llama.cpp makes of them; the logits on those
# weights are llama.cpp's, and on the blocks as they lie in the file they are close to them.
source "$(dirname "$0")/support.bash" "$@"
models=$shared/data/models
[ -d "$models" ] || skip "no models at $models"
install_peer llama-cpp
peer=$peers/llama-cpp/llama-peer
hashes() { grep -E '"(name|xxh3_128)":' "$1" | tr -d ' ,' | paste - - | sort; }

ids=1,403,407,261,378,4016,383,286,261,376,445,395,317,4010
echo "[[$ids]]" > row.json
checked=0
for model in "$models"/stories3M-*.gguf; do
  name=$(basename "$model" .gguf)
  "$peer" quantize "$model" theirs.gguf 0 > log 2>&1 || complain "$name: llama.cpp: $(tail -n 1 log)"
  "$qkv" convert "$model" ours.gguf --dtype f32 --manifest ours.json > log 2>&1 || complain "$name: $(cat log)"
  "$qkv" convert theirs.gguf again.gguf --manifest theirs.json > log 2>&1 || complain "$name: $(cat log)"
  [ -n "$(hashes ours.json)" ] && [ "$(hashes ours.json)" = "$(hashes theirs.json)" ] ||
    complain "$name: dequantized tensors: $(diff <(hashes ours.json) <(hashes theirs.json) | head -n 4)"
  "$peer" logits theirs.gguf --ids $ids --out raw > /dev/null 2> err || complain "$name: $(head -n 2 err)"
  raw_to_safetensors raw 14 4096 logits peer.safetensors
  "$qkv" eval logits ours.gguf --ids-file row.json --compare peer.safetensors --tolerance 1e-3 > table 2> err ||
    complain "$name: logits of the dequantized file: $(cat table err)"
  "$qkv" eval logits "$model" --ids-file row.json --compare peer.safetensors > blocks 2> err || complain "$name: $(cat err)"
  printf '%-18s dequantized: the same bits, logits differ by %s; blocks as they are: KL %s\n' "$name" \
    "$(awk 'NR == 2 { print $3 }' table)" "$(awk 'NR == 2 { print $6 }' blocks)"
  awk 'NR == 2 { exit !($6 < 1e-2) }' blocks || complain "$name: logits of the file as it is: $(cat blocks)"
  checked=$((checked + 1))
  rm -f ours.gguf theirs.gguf again.gguf
done
[ $checked -gt 0 ] || complain "no model was compared"
finish
