#!/usr/bin/env bash
# What compressing does with odd models and with a disk that is full: one sentence, and nothing left behind.
# shellcheck source=tests/cli/support.bash
source "$(dirname "$0")/support.bash" "$@"
make_model tiny
for _ in $(seq 100); do echo 'the cat sat on the mat and the dog ran'; done > text.txt
echo 'the cat' > short.txt

# Rows of one element: the feed-forward network has one channel.
cat > config.json << 'END_OF_CONFIG'
{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 262, "hidden_size": 256, "intermediate_size": 1,
 "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "tie_word_embeddings": true}
END_OF_CONFIG
accepted "$qkv" init config.json narrow --tokenizer tiny --seed 3
accepted "$qkv" quantize narrow narrow.gguf --type Q4_K_M --calibrate text.txt
err_has "rows of 1 are not whole blocks of"
accepted "$qkv" generate narrow.gguf --prompt "the cat" --max-tokens 3
accepted "$qkv" check narrow.gguf
for file in narrow.qkv narrow2.gguf; do
  accepted "$qkv" convert narrow $file
  accepted "$qkv" check $file
done
accepted "$qkv" convert narrow lossless.qkv --lossless
accepted "$qkv" check lossless.qkv
accepted "$qkv" convert lossless.qkv back.safetensors
accepted "$qkv" convert narrow direct.safetensors
cmp back.safetensors direct.safetensors || complain "rows of one element did not come back"
accepted "$qkv" prune narrow sparse --method sparsegpt --pattern 2:4 --calibrate text.txt
accepted "$qkv" info narrow --tensors --error-types q8_0,int8 --calibrate text.txt --report narrow.html
accepted "$qkv" quantize narrow nf4 --method nf4

# Tensors of zeros: all of `tiny`. Every verb has something to divide by.
accepted "$qkv" info tiny --tensors --error-types q8_0,nf4,fp8,int4 --calibrate text.txt --json
grep -q 'null' out && complain "a model of zeros gave numbers that are none: $(head -c 300 out)"
accepted "$qkv" prune tiny none-left --method wanda --calibrate text.txt
accepted "$qkv" convert tiny zeros.qkv --lossless
accepted "$qkv" check zeros.qkv

# What info is asked for and cannot give.
refused "expected a text of at least 64 tokens" "$qkv" info tiny --calibrate short.txt
: > nothing.txt
refused "nothing.txt: expected a text to calibrate with, found nothing" "$qkv" info tiny --calibrate nothing.txt
refused "expected one of q4_0" "$qkv" info tiny --error-types q4_z
refused "No such file" "$qkv" info tiny --report no/where/report.html
refused "No such file" "$qkv" info tiny --calibrate missing.txt

# A disk that takes only so much (and a limit on files, which anyone can set). What is being written is large enough.
accepted "$qkv" convert narrow source.gguf --dtype f32
mkdir results
limited() {  # limited COMMAND...: with files of at most 64 KiB
  (
    ulimit -f 64
    exec "$qkv" "$@"
  ) > out 2> err
  local code=$?
  [ $code -eq 2 ] || complain "full disk: expected exit code 2, found $code: $*: $(cat err)"
  [ "$(grep -c '^error: ' err)" -eq 1 ] || complain "full disk: expected one error: $*: $(cat err)"
  err_has "results/"
  err_has "File too large"
  [ -z "$(ls -A results)" ] || complain "full disk: $*: left $(ls -A results)"
}
limited convert narrow results/x.gguf
limited convert narrow results/x.qkv
limited convert narrow results/x.qkv --lossless
limited convert narrow results/x.safetensors
limited convert narrow results/x
limited quantize narrow results/x.gguf --type Q8_0
limited quantize narrow results/x.qkv --type Q4_K_M --calibrate text.txt
limited quantize narrow results/x --method nf4
limited quantize narrow results/x.gguf --method gptq --calibrate text.txt
limited prune narrow results/x --method magnitude
limited check source.gguf --fix results/x.gguf
limited init config.json results/x --tokenizer tiny

if mkdir disk && mount -t tmpfs -o size=100k tmpfs disk 2> /dev/null; then
  for command in "convert narrow disk/x.gguf" "convert narrow disk/x.qkv --lossless" "quantize narrow disk/x.gguf --type Q8_0" \
    "quantize narrow disk/x --method nf4" "prune narrow disk/x --method magnitude" "check source.gguf --fix disk/x.gguf"; do
    # shellcheck disable=SC2086
    "$qkv" $command > out 2> err
    [ $? -eq 2 ] || complain "full disk: expected exit code 2: $command: $(cat err)"
    grep -q 'No space left on device\|of free disk space' err || complain "full disk: $command: $(cat err)"
    [ -z "$(ls -A disk)" ] || complain "full disk: $command: left $(ls -A disk)"
  done
  umount disk
fi
finish
