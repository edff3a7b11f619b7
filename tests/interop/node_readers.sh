#!/usr/bin/env bash
# GGUF files written by qkv, read by packages of npm: @huggingface/gguf finds the same keys and tensors, node-llama-cpp loads
# them, cuts text into the same ids and gives the same greedy tokens. Small random models with a trained vocabulary.
source "$(dirname "$0")/support.bash" "$@"
need_node
install_peer node
cp "$source_directory/tests/interop/node_readers.mjs" "$peers/node/"

cat "$source_directory"/docs/*.md > corpus.txt
"$qkv" tokenizer train corpus.txt --out vocabulary --vocab-size 600 > log 2>&1 || complain "tokenizer train: $(cat log)"

# Deviations are large enough that the likeliest token is not one of many about as likely.
common='"vocab_size": 608, "hidden_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 128, "initializer_range": 0.3'
attention='"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 144'
config_of() {
  case $1 in
    llama) echo "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", $common, $attention}" ;;
    qwen2) echo "{\"architectures\": [\"Qwen2ForCausalLM\"], \"model_type\": \"qwen2\", $common, $attention}" ;;
    mixtral)
      echo "{\"architectures\": [\"MixtralForCausalLM\"], \"model_type\": \"mixtral\", $common, $attention,
             \"num_local_experts\": 4, \"num_experts_per_tok\": 2}"
      ;;
    mamba)
      echo "{\"architectures\": [\"MambaForCausalLM\"], \"model_type\": \"mamba\", $common, \"state_size\": 16,
             \"conv_kernel\": 4, \"expand\": 2, \"time_step_rank\": 4}"
      ;;
    gpt2)
      echo '{"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": 608, "n_embd": 64, "n_layer": 2,
             "n_head": 4, "n_positions": 128, "initializer_range": 0.3}'
      ;;
  esac
}

prompt='The tensor of a layer, öffnen 42'
for name in llama gpt2 qwen2 mixtral mamba; do
  config_of $name > $name.json
  "$qkv" init $name.json $name.gguf --tokenizer vocabulary --seed 3 > log 2>&1 || complain "$name: init: $(tail -n 1 log)"
  "$qkv" info $name.gguf --json > info || complain "$name: info"
  "$qkv" tokenizer encode $name.gguf "$prompt" --json > encoded || complain "$name: encode"
  "$qkv" generate $name.gguf --prompt "$prompt" --temperature 0 --max-tokens 16 --compute-type f32 --activations f32 --ignore-eos --json \
    > generated 2> err || complain "$name: generate: $(cat err)"
  node "$peers/node/node_readers.mjs" $name.gguf "$prompt" info encoded generated 2> err || complain "$name: $(tail -n 5 err)"
done
finish
