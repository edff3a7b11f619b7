#!/usr/bin/env bash
# A signal in the middle of long work: it stops soon, says so, and leaves nothing behind.
# shellcheck source=tests/cli/support.bash
source "$(dirname "$0")/support.bash" "$@"
make_model tiny
# Large enough that none of this is over before the signal comes.
cat > config.json << 'END'
{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 262, "hidden_size": 1024, "intermediate_size": 4096,
 "num_hidden_layers": 12, "num_attention_heads": 8, "max_position_embeddings": 256, "rms_norm_eps": 1e-5}
END
accepted "$qkv" init config.json model.gguf --tokenizer tiny --dtype f16
for _ in $(seq 4000); do echo 'the cat sat on the mat and the dog ran'; done > text.txt
mkdir results

stopped() {  # stopped COMMAND...
  "$qkv" "$@" > out 2> err &
  local process=$! code
  sleep 1
  kill -TERM $process || complain "over before the signal: $*: $(cat err)"
  wait $process
  code=$?
  [ $code -eq 2 ] || complain "expected exit code 2 after a signal, found $code: $*: $(cat err)"
  err_has "interrupted; nothing was written"
  [ -z "$(ls -A results)" ] || complain "$*: left $(ls -A results)"
}

stopped eval ppl model.gguf text.txt
stopped eval kld model.gguf --reference model.gguf --text text.txt
stopped imatrix model.gguf --calibrate text.txt -o results/imatrix.dat
stopped quantize model.gguf results/small.gguf --type IQ3_S
stopped quantize model.gguf results/gptq --method gptq --calibrate text.txt --calibrate-sequences 256
stopped info model.gguf --tensors --error-types q2_k,iq3_s,q4_k --report results/report.html
stopped prune model.gguf results/pruned --method wanda --sparsity 0.5 --calibrate text.txt --calibrate-sequences 256
finish
