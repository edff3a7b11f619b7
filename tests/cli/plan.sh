#!/usr/bin/env bash
# plan serve: what it predicts is what a run takes; and runs that cannot fit are refused before they begin.
source "$(dirname "$0")/support.bash" "$@"
make_model model
cat > shape.json << END
{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 262, "hidden_size": 768, "intermediate_size": 2048,
 "num_hidden_layers": 6, "num_attention_heads": 12, "num_key_value_heads": 4, "max_position_embeddings": 4096,
 "rms_norm_eps": 1e-5, "tie_word_embeddings": true, "initializer_range": 0.02}
END
accepted "$qkv" init shape.json big.gguf --dtype f16 --tokenizer model
accepted "$qkv" quantize big.gguf q8.gguf --type Q8_0
number() { grep -o "\"$1\": *[0-9]*" out | grep -o '[0-9]*$'; }

# What a run at its full context has in memory at most, within 5 %: two whole passes of prompt, and an answer.
for flags in "" "--cache-type-k q8_0 --cache-type-v q4_0"; do
  # shellcheck disable=SC2086
  accepted "$qkv" plan serve q8.gguf --context 1032 --json $flags
  planned=$(number total_bytes)
  for _ in $(seq 128); do printf 'the cat sat '; done > prompt
  # shellcheck disable=SC2086
  accepted "$qkv" generate q8.gguf --prompt-file prompt --max-tokens 8 --context 1032 --ignore-eos --temperature 0 --json $flags
  taken=$(number peak_process_bytes)
  awk -v a="$planned" -v b="$taken" 'BEGIN { exit !(a / b > 0.95 && a / b < 1.05) }' ||
    complain "planned $planned bytes with '$flags', and $taken were taken"
done

accepted "$qkv" plan serve q8.gguf --context 1000 --parallel 8
out_has "2 x 6 layers x 4 heads x 64 dimensions x 4 bytes = 12288 bytes per token"
out_has "8 together"
accepted "$qkv" plan serve q8.gguf --cache-type-k q8_0 --cache-type-v q8_0
out_has "2 x 6 layers x 4 heads x 64 dimensions x 1.0625 bytes = 3264 bytes per token"
refused "--context: expected at most 4096 tokens" "$qkv" plan serve q8.gguf --context 5000
refused "--parallel: expected at least 1" "$qkv" plan serve q8.gguf --parallel 0
refused "expected one of its commands" "$qkv" plan

# A context that needs more memory than any machine has.
sed -e 's/4096/1000000000/' -e 's/"hidden_size": 768/"hidden_size": 64/; s/2048/128/; s/"num_attention_heads": 12/"num_attention_heads": 4/' \
  shape.json > long.json
accepted "$qkv" init long.json long.gguf --dtype f16 --tokenizer model
refused "context: 1000000000 tokens need" "$qkv" generate long.gguf --prompt "the cat" --context 1000000000
err_has "tokens would fit"
refused "context: 1000000000 tokens need" "$qkv" chat long.gguf --context 1000000000
accepted "$qkv" generate long.gguf --prompt "the cat" --max-tokens 3
echo hello > question
stdin=question accepted "$qkv" chat long.gguf --max-tokens 3
err_has "note: the memory that is left holds a context of"
finish
