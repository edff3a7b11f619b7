#!/usr/bin/env bash
# generate, chat, tokenizer and info on a model of zeros, whose tokens are all equally likely.
source "$(dirname "$0")/support.bash" "$@"
make_model model

# Greedy gives the lowest id, forever.
accepted "$qkv" generate model --prompt "the cat" --max-tokens 5 --temperature 0
[ "$(cat out)" = '!!!!!' ] || complain "greedy: $(cat out)"
err_has "tokens/s"
err_has "peak memory"

# A seed repeats its text; a stop string is never printed; the text is UTF-8 though tokens are bytes.
accepted "$qkv" generate model --prompt "the cat" --max-tokens 40 --seed 5 --ignore-eos
cp out first
accepted "$qkv" generate model --prompt "the cat" --max-tokens 40 --seed 5 --ignore-eos --no-stream
cmp -s out first || complain "the same seed gave another text"
accepted "$qkv" generate model --prompt "the cat" --max-tokens 40 --seed 6 --ignore-eos
if cmp -s out first; then complain "another seed gave the same text"; fi
iconv -f UTF-8 -t UTF-8 first > /dev/null || complain "the text is not UTF-8"
stdin=corpus.txt refused "leave no room" "$qkv" generate model --prompt-file -
echo the cat > prompt
stdin=prompt accepted "$qkv" generate model --prompt-file - --max-tokens 9 --temperature 0 --stop '!!!'
[ "$(cat out)" = '' ] || complain "a stop string was printed: $(cat out)"

accepted "$qkv" generate model --prompt "the cat" --max-tokens 3 --temperature 0 --json --threads 1
out_has '"text":"!!!"'
out_has '"tokens":[0,0,0]'
out_has '"finish_reason":"length"'
accepted "$qkv" generate model --prompt "the cat" --max-tokens 100 --temperature 0 --verbose
err_has "finished: context"
"$qkv" generate model --prompt "the cat" --max-tokens 5 > /dev/full 2> err
[ $? -eq 2 ] || complain "a full disk went unnoticed: $(cat err)"

# Choosing tokens: every flag reaches the sampler, log-probabilities come with JSON.
accepted "$qkv" generate model --prompt "the cat" --max-tokens 3 --temperature 0 --logit-bias 0-inf
[ "$(cat out)" = '"""' ] || complain "logit bias: $(cat out)"
accepted "$qkv" generate model --prompt "the cat" --max-tokens 4 --temperature 0 --ban '!!' --ban '""'
[ "$(cat out)" = '!"!"' ] || complain "banned strings: $(cat out)"
accepted "$qkv" generate model --prompt "the cat" --max-tokens 2 --temperature 0 --json --logprobs 2 --prompt-logprobs
out_has '"logprobs":[{"id":0,"text":"!","logprob":-'
out_has '"top":[{"id":0,"text":"!","logprob":-'
out_has '"prompt_logprobs":[-'
refused "expected --json" "$qkv" generate model --prompt x --logprobs 2
refused "expected a token's id and what to add" "$qkv" generate model --prompt x --logit-bias 3
refused "samplers: expected names among penalties, dry" "$qkv" generate model --prompt x --samplers "top_k;best"
refused "mirostat: expected 0 (off), 1 or 2, found 3" "$qkv" generate model --prompt x --mirostat 3
accepted "$qkv" generate model --prompt "the cat" --max-tokens 9 --samplers llama.cpp --typical-p 0.9 --top-n-sigma 2 \
  --epsilon-cutoff 0.0001 --eta-cutoff 0.0001 --xtc-probability 0.5 --dynatemp-range 0.3 --dry-multiplier 0.8 --seed 1
accepted "$qkv" generate model --prompt "the cat" --max-tokens 9 --mirostat 2 --mirostat-tau 4 --seed 1

# Speculation changes nothing about the answer.
accepted "$qkv" generate model --prompt "the cat" --max-tokens 30 --temperature 0
cp out first
for how in --lookup "--draft-model model"; do
  # shellcheck disable=SC2086
  accepted "$qkv" generate model --prompt "the cat" --max-tokens 30 --temperature 0 $how
  cmp -s out first || complain "$how changed the answer"
  [ "$how" != --lookup ] || err_has "drafted tokens accepted"  # a model of zeros is never sure
done

# The model's own settings count unless a flag is given.
echo '{"do_sample": false}' > model/generation_config.json
accepted "$qkv" generate model --prompt x --max-tokens 4
[ "$(cat out)" = '!!!!' ] || complain "generation_config.json was not obeyed: $(cat out)"
rm model/generation_config.json

# A chat answers every line.
printf 'Hello\n\nWho are you?\n' > questions
for template in chatml qa plain; do
  stdin=questions accepted "$qkv" chat model --template $template --temperature 0 --max-tokens 3 --verbose
  [ "$(cat out)" = $'!!!\n!!!' ] || complain "chat $template: $(cat out)"
  err_has "tokens remembered"
done
for _ in 1 2 3 4 5 6; do echo 'the cat sat on the mat'; done > questions
stdin=questions accepted "$qkv" chat model --template qa --temperature 0 --max-tokens 3
err_has "no longer fit the context of 64 tokens"

# Tokenizer verbs.
accepted "$qkv" tokenizer encode model "the cat sat €"
ids=$(cat out)
# shellcheck disable=SC2086
accepted "$qkv" tokenizer decode model $ids
[ "$(cat out)" = 'the cat sat €' ] || complain "decode: $(cat out)"
accepted "$qkv" tokenizer encode model --file prompt --pieces
out_has "he"
accepted "$qkv" tokenizer encode model "<|im_end|>" --json
out_has '"tokens":["<|im_end|>"]'
accepted "$qkv" tokenizer verify model corpus.txt --against model/tokenizer.json
out_has "1001 texts"
accepted "$qkv" tokenizer verify model corpus.txt --json
out_has '"round_trip_failures":0'

# What a model is, and help.
accepted "$qkv" info model --tensors
out_has "LlamaForCausalLM"
out_has "model.layers.0.mlp.up_proj.weight"
accepted "$qkv" info model --json
out_has '"parameters":2696'
accepted "$qkv" --version
out_has "qkv "
for verb in generate chat tokenizer "tokenizer train" "tokenizer encode" "tokenizer decode" "tokenizer verify" data \
  "data make-tales" info convert; do
  # shellcheck disable=SC2086
  accepted "$qkv" $verb --help
  out_has "Example"
done
finish
