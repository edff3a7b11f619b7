#!/usr/bin/env bash
# GGUF files written by qkv, read by llama.cpp: for every reference checkpoint whose architecture GGUF has, the same logits to
# float tolerance and the same greedy tokens as the checkpoint's home framework.
source "$(dirname "$0")/support.bash" "$@"
need_python
[ -d "$shared/fixtures/models" ] || skip "no reference checkpoints at $shared/fixtures/models"
install_peer llama-cpp
peer=$peers/llama-cpp/llama-peer

# Logits differ from ours by how llama.cpp sums and by its tables (f16 GELU, activations rounded to a bf16 model's type): the
# tolerance is on that side. Left out, for reasons on either side:
#   opt, gptj, bert_mlm, falcon_rw_alibi   no GGUF form, or none that llama.cpp loads
#   bert, distilbert                       encoders give no next token
#   mistral_swa                            llama.cpp reads no sliding window for the llama architecture
#   gemma2                                 llama.cpp takes the scale of scores from the number of layers
#   deepseek_v2_lite                       llama.cpp knows a model without q_lora_rank by its 27 layers
#   deepseek_v2                            llama.cpp has no groups of experts that are ranked by their best
checked=0
for model in "$shared"/fixtures/models/*/; do
  name=$(basename "$model")
  case $name in
    opt | gptj | bert_mlm | falcon_rw_alibi | bert | distilbert | mistral_swa | gemma2 | deepseek_v2_lite | deepseek_v2) continue ;;
  esac
  python3 - "$model" > ids << 'END' || complain "$name: expected.json cannot be read"
import json, sys
expected = json.load(open(sys.argv[1] + "/expected.json"))
greedy = expected["greedy"]
row = expected["input_ids"][0]
print(",".join(map(str, row)))
print(len(row))
print(",".join(map(str, greedy["tokens"][0][: greedy["prompt_len"]])))
print(",".join(map(str, greedy["tokens"][0][greedy["prompt_len"] :])))
END
  { read -r row; read -r length; read -r prompt; read -r greedy; } < ids
  if ! "$qkv" convert "$model" "$name.gguf" > log 2>&1; then
    complain "$name: convert: $(tail -n 1 log)"
    continue
  fi
  if ! "$peer" generate "$name.gguf" --ids "$prompt" --tokens 16 > generated 2> err; then
    complain "$name: llama.cpp refuses the file: $(head -n 2 err)"
    continue
  fi
  found=$(sed 's/.*"tokens":\[\([0-9,]*\)\].*/\1/' generated)
  [ "$found" = "$greedy" ] || complain "$name: greedy tokens: expected $greedy, found $found"
  "$peer" logits "$name.gguf" --ids "$row" --out raw > shape 2> err || complain "$name: $(head -n 2 err)"
  vocabulary=$(sed 's/.*"vocabulary":\([0-9]*\).*/\1/' shape)
  raw_to_safetensors raw "$length" "$vocabulary" logits peer.safetensors
  echo "[[$row]]" > row.json
  "$qkv" eval logits "$name.gguf" --ids-file row.json --compare peer.safetensors --tolerance 2e-2 > table 2> err ||
    complain "$name: logits against llama.cpp: $(cat table err)"
  printf '%-22s greedy tokens as the reference, largest logit difference %s\n' "$name" "$(awk 'NR == 2 { print $3 }' table)"
  checked=$((checked + 1))
done
echo "$checked checkpoints"
[ $checked -gt 0 ] || complain "no checkpoint was compared"
finish
