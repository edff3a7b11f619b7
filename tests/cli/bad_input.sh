#!/usr/bin/env bash
# Bad input: exit code 2 and one sentence, never a crash.
source "$(dirname "$0")/support.bash" "$@"
make_model model

# The command line.
refused "expected a command" "$qkv"
refused "unknown command 'genrate'; did you mean 'generate'?" "$qkv" genrate model --prompt x
refused "unknown command 'tokenizer tran'; did you mean 'train'?" "$qkv" tokenizer tran x
refused "unknown command 'zzzzzzzz'" "$qkv" zzzzzzzz
refused "unknown option '--promt' of qkv generate; did you mean '--prompt'?" "$qkv" generate model --promt x
refused "unknown option '--max-token=3' of qkv generate; did you mean '--max-tokens'?" "$qkv" generate model --prompt x --max-token=3
refused "MODEL is required" "$qkv" generate
refused "--max-tokens" "$qkv" generate model --prompt x --max-tokens many
refused "threads: expected at least 1, found 0" "$qkv" --threads 0 info model
refused "expected one of its commands" "$qkv" data

# Models.
refused "nowhere" "$qkv" generate nowhere --prompt x
refused "nowhere" "$qkv" info nowhere
mkdir empty
refused "empty" "$qkv" generate empty --prompt x
cp -r model truncated
head -c 9000 model/model.safetensors > truncated/model.safetensors
refused "truncated" "$qkv" generate truncated --prompt x
refused "truncated" "$qkv" info truncated
cp -r model garbled
head -c 5000 /dev/urandom > garbled/model.safetensors
refused "garbled" "$qkv" info garbled
cp -r model wordless
rm wordless/tokenizer*.json wordless/special_tokens_map.json
refused "wordless" "$qkv" generate wordless --prompt x
cp -r model strange
echo '{"architectures": ["LlamaForCausalLM"], "model_type": "lama"}' > strange/config.json
refused "lama" "$qkv" generate strange --prompt x
echo '{"model_type": ' > strange/config.json
refused "strange" "$qkv" generate strange --prompt x

# Prompts.
: > nothing
refused "nothing: expected a text to continue, found nothing" "$qkv" generate model --prompt-file nothing
refused "expected a text to continue" "$qkv" generate model --prompt ""
refused "expected either --prompt or --prompt-file" "$qkv" generate model
refused "expected either --prompt or --prompt-file" "$qkv" generate model --prompt x --prompt-file nothing
refused "absent" "$qkv" generate model --prompt-file absent
printf 'abc\xff' > latin
refused "latin: expected UTF-8 text, found an invalid byte at offset 3" "$qkv" generate model --prompt-file latin
refused "--prompt: expected UTF-8 text" "$qkv" generate model --prompt "$(printf 'a\xc3')"
head -c 500 corpus.txt > long
refused "leave no room for an answer in a context of 64" "$qkv" generate model --prompt-file long

# Settings.
refused "--max-tokens: expected at least 1, found -5" "$qkv" generate model --prompt x --max-tokens -5
refused "--max-tokens: expected at least 1, found 0" "$qkv" generate model --prompt x --max-tokens 0
refused "temperature: expected a number from 0 to 100, found -1" "$qkv" generate model --prompt x --temperature -1
refused "temperature: expected a number from 0 to 100, found nan" "$qkv" generate model --prompt x --temperature nan
refused "top-p" "$qkv" generate model --prompt x --top-p 1.5
refused "top-k" "$qkv" generate model --prompt x --top-k -3
refused "--stop" "$qkv" generate model --prompt x --stop ""
refused "context: expected 2 to 64 tokens" "$qkv" generate model --prompt x --context 65
refused "--compute-type" "$qkv" generate model --prompt x --compute-type f8
refused "--template" "$qkv" chat model --template nonsense

# Tokenizers and data.
refused "absent" "$qkv" tokenizer train absent --out t
refused "expected text to learn from, found none" "$qkv" tokenizer train nothing --out t
refused "latin" "$qkv" tokenizer train latin --out t
refused "vocab" "$qkv" tokenizer train corpus.txt --out t --vocab-size 10
[ ! -e t ] || complain "a refused training left t"
refused "expected ids below 262, found 262" "$qkv" tokenizer decode model 1 262
refused "expected either TEXT or --file" "$qkv" tokenizer encode model
refused "absent" "$qkv" tokenizer encode absent x
refused "bytes" "$qkv" data make-tales tales --bytes 10
[ ! -e tales ] || complain "a refused corpus left tales"
refused "expected either MODEL or --system" "$qkv" info
QKV_ISA=mmx refused "mmx" "$qkv" generate model --prompt x
finish
