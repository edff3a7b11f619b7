#!/usr/bin/env bash
# convert and info: any container from any other, and what is refused.
source "$(dirname "$0")/support.bash" "$@"
make_model model

# There and back, through every container; the tensors are the same bytes.
hashes() { grep -E '"(name|xxh3_128)":' "$1" | tr -d ' ,' | paste - - | sort; }
accepted "$qkv" convert model model.qkv --manifest first.json
out_has "model.qkv: a .qkv file, 11 tensors"
err_has "writing a .qkv file of"
accepted "$qkv" convert model.qkv two.safetensors
accepted "$qkv" convert two.safetensors three.pt
err_has "note: the file holds tensors only"
cp model/config.json .
accepted "$qkv" convert three.pt back --manifest last.json
[ -n "$(hashes first.json)" ] || complain "the manifest has no hashes: $(head -c 300 first.json)"
[ "$(hashes first.json)" = "$(hashes last.json)" ] || complain "tensors changed on the way"
accepted "$qkv" convert model.qkv again
for file in config.json tokenizer.json tokenizer_config.json; do
  cmp model/$file again/$file || complain "$file changed on the way"
done
accepted "$qkv" generate model.qkv --prompt "the cat" --max-tokens 3

# Without loss, by every codec; and back.
for codec in auto raw dictionary split zstd; do
  accepted "$qkv" convert model packed.qkv --lossless --codec $codec
  out_has "in the file ("
  accepted "$qkv" convert packed.qkv unpacked --manifest unpacked.json
  [ "$(hashes first.json)" = "$(hashes unpacked.json)" ] || complain "tensors changed by codec $codec"
  cmp model/tokenizer.json unpacked/tokenizer.json || complain "tokenizer.json changed by codec $codec"
  rm -r unpacked
done
accepted "$qkv" info packed.qkv
out_has "stored as"
out_has "  zstd "
accepted "$qkv" info packed.qkv --json
out_has '"stored_bytes"'
accepted "$qkv" generate packed.qkv --prompt "the cat" --max-tokens 3
refused "lossless compression: expected the name of a .qkv file" "$qkv" convert model out.gguf --lossless
refused "--codec: expected beside --lossless" "$qkv" convert model out.qkv --codec zstd
refused "--codec: expected one of auto, raw, dictionary, split, zstd, found 'zst'" "$qkv" convert model out.qkv --lossless --codec zst

# Types, shards, machine-readable results.
accepted "$qkv" convert model small --dtype bf16 --max-shard-size 4KB --json
out_has '"tensors":11'
[ -f small/model.safetensors.index.json ] || complain "expected shards"
accepted "$qkv" info small --tensors
out_has "bf16"
out_has "kurtosis"
out_has "of 16"
accepted "$qkv" info model --histogram model.norm.weight --json
out_has '"counts":['
accepted "$qkv" info model --histogram model.norm.weight
out_has '#'
mkdir strange
cp model/model.safetensors strange/
echo '{"model_type": "never-heard-of"}' > strange/config.json
accepted "$qkv" info strange --tensors
out_has "never-heard-of (not implemented)"
accepted "$qkv" convert strange strange.qkv

# What is refused leaves nothing behind.
refused "architecture 'never-heard-of' has no forward pass and no weight table" "$qkv" convert strange strange.gguf
refused "nowhere" "$qkv" convert nowhere out.qkv
refused "OUT is required" "$qkv" convert model
refused "--dtype: expected f32, bf16 or f16, found 'q4_0'" "$qkv" convert model out.qkv --dtype q4_0
refused "--max-shard-size: expected a size such as 5GB" "$qkv" convert model out --max-shard-size big
refused "--max-shard-size: expected a size such as 5GB" "$qkv" convert model out --max-shard-size 0
refused "model: expected another place than the source's" "$qkv" convert model model
refused "small: expected a new or empty directory, found one with files" "$qkv" convert model small
refused "expected an existing directory" "$qkv" convert model no/where/out.gguf
rm -rf bare && mkdir bare && cp model/model.safetensors bare/
refused "expected a config.json that says what the model is" "$qkv" convert bare out.gguf
refused "did you mean 'model.norm.weight'" "$qkv" info model --histogram model.norm.wait
head -c 3000 model.qkv > cut.qkv
refused "cut.qkv" "$qkv" convert cut.qkv out
[ -f out ] || complain "a refused conversion left a directory"  # the standard output of the last command
[ "$(echo out.*)" = "out.*" ] || complain "a refused conversion left $(echo out.*)"
finish
