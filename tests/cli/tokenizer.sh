#!/usr/bin/env bash
# tokenizer verify: what it finds, how it says so, exit code 1.
source "$(dirname "$0")/support.bash" "$@"
golden=$1/tests/golden/text

# different COMMAND...: exit code 1; the outputs are in `out` and `err`.
different() {
  "$@" > out 2> err < "${stdin:-/dev/null}"
  local code=$?
  [ $code -eq 1 ] || complain "expected exit code 1, found $code: $*: $(cat err)"
}

printf 'the cat sat\non the mat\n' > plain.txt
accepted "$qkv" tokenizer verify "$golden/byte_bpe.json" plain.txt --random 200
out_has "201 texts"
out_has "do not come back: 0"
accepted "$qkv" tokenizer verify "$golden/byte_bpe.json"
out_has "1000 texts"
accepted "$qkv" tokenizer verify "$golden/byte_bpe.json" plain.txt --against "$golden/byte_bpe.json" --json
out_has '"differences":0'

# Another vocabulary, and one that lower-cases: where and what is named.
different "$qkv" tokenizer verify "$golden/byte_bpe.json" plain.txt --against "$golden/char_bpe.json" --random 0
out_has "first: plain.txt: byte 0: near \"the cat sat"
out_has "char_bpe.json gives"
printf 'The cat\n' > capital.txt
different "$qkv" tokenizer verify "$golden/wordpiece.json" capital.txt --random 0
out_has 'comes back as "the cat'
accepted "$qkv" tokenizer verify "$golden/wordpiece.json" capital.txt --random 0 --ids-only

# Reference ids in llama.cpp's form.
printf 'the cat\n__ggml_vocab_test__\nsat' > v.inp
{ "$qkv" tokenizer encode "$golden/byte_bpe.json" "the cat"; "$qkv" tokenizer encode "$golden/byte_bpe.json" "sat"; } > v.out
accepted "$qkv" tokenizer verify "$golden/byte_bpe.json" --vectors v --random 0
out_has "miss their vector: 0"
sed 's/$/ 7/' v.out > w.out
cp v.inp w.inp
different "$qkv" tokenizer verify "$golden/byte_bpe.json" --vectors w.inp --random 0
out_has "first: w.out: line 1:"
out_has "expected 7 '"
head -n 1 v.out > w.out
refused "expected as many texts as lines" "$qkv" tokenizer verify "$golden/byte_bpe.json" --vectors w --random 0
printf 'x\n' > w.out
refused "expected token ids, found 'x'" "$qkv" tokenizer verify "$golden/byte_bpe.json" --vectors w --random 0
refused "expected 0 or more" "$qkv" tokenizer verify "$golden/byte_bpe.json" --random -1
refused "only empty files" "$qkv" tokenizer verify "$golden/byte_bpe.json" --random 0

# A vocabulary inside a model's file.
vocabulary=$1/../shared/data/vocab/ggml-vocab-gpt-2.gguf
if [ -f "$vocabulary" ]; then
  accepted "$qkv" tokenizer verify "$vocabulary" plain.txt --vectors "$vocabulary" --against "$1/../shared/data/tokenizers/gpt2"
  out_has "miss their vector: 0"
  accepted "$qkv" tokenizer encode "$vocabulary" "Hello world"
  [ "$(cat out)" = "15496 995" ] || complain "ids of a GGUF vocabulary: $(cat out)"
fi
finish
