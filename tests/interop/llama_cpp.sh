#!/usr/bin/env bash
# GGUF files written by qkv, read by llama.cpp: for every reference checkpoint whose architecture GGUF has, the same logits to
# float tolerance and the same greedy tokens as the checkpoint's home framework.
source "$(dirname "$0")/support.bash" "$@"
need_python
[ -d "$shared/fixtures/models" ] || skip "no reference checkpoints at $shared/fixtures/models"
install_peer llama-cpp
peer=$peers/llama-cpp/llama-peer

# Logits differ from ours by how llama.cpp sums and, in a bf16 model, by its rounding of activations; ours round GELU as its
# table does. Left out, for reasons on either side:
#   opt, gptj, bert_mlm, falcon_rw_alibi   no GGUF form, or none that llama.cpp loads
#   bert, distilbert                       encoders give no next token
# and with something else in their place, below, since llama.cpp (commit de3ff81) computes another model than they are:
#   mistral_swa        its `llama` architecture has no sliding window
#   gemma2             scores are scaled by the head's size whatever query_pre_attn_scalar is, but in a model of 46 layers
#   deepseek_v2        groups of experts are ranked by their two best, as in DeepSeek V3, not by their best
#   deepseek_v2_lite   q_lora_rank is only left out in models of 26 or 27 layers

# compare NAME IDS LENGTH TOLERANCE: logits of NAME.gguf on both sides; sets $difference.
compare() {
  local vocabulary
  difference=none
  "$peer" logits "$1.gguf" --ids "$2" --out raw > shape 2> err || complain "$1: $(head -n 2 err)"
  vocabulary=$(sed 's/.*"vocabulary":\([0-9]*\).*/\1/' shape)
  raw_to_safetensors raw "$3" "$vocabulary" logits peer.safetensors
  echo "[[$2]]" > row.json
  "$qkv" eval logits "$1.gguf" --ggml-gelu --ids-file row.json --compare peer.safetensors --tolerance "$4" > table 2> err ||
    complain "$1: logits against llama.cpp: $(cat table err)"
  difference=$(awk 'NR == 2 { print $3 }' table)
}

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
  tolerance=2e-3
  [ "$name" = llama_bf16 ] && tolerance=2e-2
  [ "$name" = llama_f16 ] && tolerance=5e-3
  compare "$name" "$row" "$length" $tolerance
  printf '%-22s greedy tokens as the reference, largest logit difference %s\n' "$name" "$difference"
  checked=$((checked + 1))
done
echo "$checked checkpoints"

# The checkpoints that llama.cpp takes for others, without what it does not know: the same weights with the setting changed,
# or random ones of that shape where the weights depend on it.
variant() {  # variant NAME KEY=JSON...: the reference checkpoint with these settings, as NAME.gguf
  mkdir -p variant
  rm -rf variant/*
  cp "$shared/fixtures/models/$1"/*.safetensors variant/
  rm -f variant/expected.safetensors
  python3 - "$shared/fixtures/models/$1/config.json" "${@:2}" > variant/config.json << 'END'
import json, sys
config = json.load(open(sys.argv[1]))
for setting in sys.argv[2:]:
    key, value = setting.split("=", 1)
    config[key] = json.loads(value)
print(json.dumps(config))
END
}
row=$(seq -s , 2 49)
for change in 'mistral_swa sliding_window=null' 'gemma2 query_pre_attn_scalar=24' 'deepseek_v2 n_group=1 topk_group=1 topk_method="greedy"' \
  'deepseek_v2_lite num_hidden_layers=26 initializer_range=0.1'; do
  read -r -a words <<< "$change"
  name=${words[0]}
  variant "${words[@]}"
  verb=convert
  [[ $change == *num_hidden_layers* ]] && verb=init
  if ! "$qkv" $verb variant "$name.gguf" > log 2>&1; then
    complain "$change: $verb: $(tail -n 1 log)"
    continue
  fi
  compare "$name" "$row" 48 1e-3
  printf '%-22s with %s: largest logit difference %s\n' "$name" "${words[*]:1}" "$difference"
done
[ $checked -gt 0 ] || complain "no checkpoint was compared"
finish
