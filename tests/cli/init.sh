#!/usr/bin/env bash
# init: random weights of a configuration in every container, with or without a tokenizer, and what is refused.
source "$(dirname "$0")/support.bash" "$@"
make_model model

# The same seed gives the same weights in every container; another seed others; the tokenizer comes along.
hashes() { grep -E '"(name|xxh3_128)":' "$1" | tr -d ' ,' | paste - - | sort; }
rm -rf shape && mkdir shape && cp model/config.json shape.json && cp model/config.json shape/
accepted "$qkv" init shape.json one --manifest one.manifest --tokenizer model
out_has "one: a Hugging Face directory, 11 tensors"
for file in config.json tokenizer.json tokenizer_config.json model.safetensors; do
  [ -f one/$file ] || complain "init wrote no $file"
done
accepted "$qkv" init shape two.qkv --manifest two.manifest
accepted "$qkv" init shape.json three.safetensors --manifest three.manifest --seed 7
accepted "$qkv" init shape.json four.pt
[ -n "$(hashes one.manifest)" ] || complain "the manifest has no hashes: $(head -c 300 one.manifest)"
[ "$(hashes one.manifest)" = "$(hashes two.manifest)" ] || complain "the same seed gave other weights"
[ "$(hashes one.manifest)" != "$(hashes three.manifest)" ] || complain "another seed gave the same weights"
accepted "$qkv" generate one --prompt "the cat" --max-tokens 3

# GGUF of the given type, whose vocabulary is the tokenizer's; the shape of a checkpoint that is there, with its tokenizer.
accepted "$qkv" init shape.json five.gguf --dtype f16 --tokenizer model --json
out_has '"tensors":11'
accepted "$qkv" info five.gguf --tensors
out_has "f16"
accepted "$qkv" generate five.gguf --prompt "the cat" --max-tokens 3
accepted "$qkv" init five.gguf six --dtype bf16
[ -f six/tokenizer.json ] || complain "init left the shape's tokenizer behind"
grep -q '"torch_dtype": "bfloat16"' six/config.json || complain "config.json does not name the type"
accepted "$qkv" generate six --prompt "the cat" --max-tokens 3

# What is refused leaves nothing behind.
refused "nowhere" "$qkv" init nowhere out.gguf
echo '{"model_type": "never-heard-of"}' > strange.json
refused "never-heard-of" "$qkv" init strange.json out.gguf
refused "--dtype: expected f32, bf16 or f16, found 'q4_0'" "$qkv" init shape.json out.gguf --dtype q4_0
mkdir small && touch small/file
refused "small: expected a new or empty directory, found one with files" "$qkv" init shape.json small
sed 's/"vocab_size": 262/"vocab_size": 100/' shape.json > few.json
refused "the tokenizer has 262 ids but the embedding only 100 rows" "$qkv" init few.json out.gguf --tokenizer model
sed 's/"rms_norm_eps"/"initializer_range": -1, "rms_norm_eps"/' shape.json > negative.json
refused "expected a positive number, found -1" "$qkv" init negative.json out.gguf
head -c 50 shape.json > cut.json
refused "cut.json" "$qkv" init cut.json out.gguf
# Ctrl-C ends it and leaves nothing behind.
"$qkv" init "$1/bench/shapes/llama-1.1b.json" out.gguf > out 2> err &
sleep 0.5
kill -TERM $!
wait $!
[ $? -eq 2 ] || complain "expected exit code 2 after an interrupt: $(cat err)"
err_has "interrupted; nothing was written"
[ "$(echo out.*)" = "out.*" ] || complain "a refused init left $(echo out.*)"
finish
