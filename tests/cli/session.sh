#!/usr/bin/env bash
# --session: an answer in two runs is the answer of one; a chat goes on; damaged and foreign files are refused.
source "$(dirname "$0")/support.bash" "$@"
make_model model
cat > shape.json << END
{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 262, "hidden_size": 32, "intermediate_size": 64,
 "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
 "rms_norm_eps": 1e-5, "tie_word_embeddings": true, "initializer_range": 0.5}
END
accepted "$qkv" init shape.json random.gguf --dtype f32 --tokenizer model
accepted "$qkv" init shape.json other.gguf --dtype f32 --tokenizer model --seed 9
tokens() { grep -o '"tokens": *\[[^]]*' out | grep -o '\[.*' | tr -d '[ '; }

for flags in "--temperature 0" "--temperature 1 --mirostat 2" "--temperature 1 --cache-type-k q8_0 --deterministic"; do
  rm -f session
  # shellcheck disable=SC2086
  accepted "$qkv" generate random.gguf --prompt "the cat" --max-tokens 60 --ignore-eos --seed 4 --json $flags
  whole=$(tokens)
  # shellcheck disable=SC2086
  accepted "$qkv" generate random.gguf --prompt "the cat" --max-tokens 25 --ignore-eos --seed 4 --json --session session $flags
  first=$(tokens)
  # shellcheck disable=SC2086
  accepted "$qkv" generate random.gguf --max-tokens 35 --ignore-eos --json --session session $flags
  [ "$first,$(tokens)" = "$whole" ] || complain "$flags: in two: $first,$(tokens); in one: $whole"
done
refused "expected either --prompt or --prompt-file" "$qkv" generate random.gguf --session none
refused "a session of another model" "$qkv" generate other.gguf --session session --cache-type-k q8_0
refused "a session with another cache" "$qkv" generate random.gguf --session session
head -c 500 session > damaged
refused "the session is damaged" "$qkv" generate random.gguf --session damaged --cache-type-k q8_0
echo nothing > damaged
refused "expected a session" "$qkv" generate random.gguf --session damaged

# A chat of two questions, in one run and in two.
printf 'the cat\nthe dog\n' > both
stdin=both accepted "$qkv" chat random.gguf --max-tokens 12 --seed 3
cp out whole
echo "the cat" > one
echo "the dog" > two
stdin=one accepted "$qkv" chat random.gguf --max-tokens 12 --seed 3 --session talk
cp out parts
stdin=two accepted "$qkv" chat random.gguf --max-tokens 12 --session talk --verbose
cat out >> parts
cmp -s whole parts || complain "a chat in two runs is not the chat in one"
err_has "tokens remembered"
rm -f story
accepted "$qkv" generate random.gguf --prompt "the cat" --max-tokens 3 --session story
stdin=one refused "expected a session of 'qkv chat'" "$qkv" chat random.gguf --session story
finish
