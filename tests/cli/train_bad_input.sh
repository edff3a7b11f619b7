#!/usr/bin/env bash
# Bad input to training: exit code 2, one sentence, nothing half-written.
source "$(dirname "$0")/support.bash" "$@"
for _ in $(seq 200); do echo 'the cat sat on the mat and the dog ran after the cat'; done > good.txt
tiny=(--tokenizer.vocab_size 300 --model.hidden_size 16 --model.num_hidden_layers 1 --model.num_attention_heads 2
  --data.sequence_length 32 --train.steps 3)
train() { "$qkv" train pretrain --out run "${tiny[@]}" "$@" 2> all; code=$?; grep -v '^\(model\|data\|training\|tokenizer\): \|^warning: ' all >&2; return $code; }
clean() { [ ! -e run/model ] && [ -z "$(find . -name '*.tmp-*')" ] || complain "left over: $(find run | head -5)"; rm -rf run; }

: > empty.txt
refused "empty.txt: expected text, found an empty file" train --data empty.txt; clean
printf '\n \n\n' > blank.txt
refused "expected text" train --data blank.txt; clean
printf 'a b c d e f\n' > short.txt
refused "expected at least 33 tokens for one sequence of 32" train --data short.txt --data.valid_fraction 0; clean
printf 'good text\nbad \xff\xfe text\n' > latin.txt
refused "latin.txt" train --data latin.txt; clean
refused "nowhere.txt" train --data nowhere.txt; clean
refused "unknown key 'optimizer.lrr'; did you mean 'optimizer.lr'?" train --data good.txt --optimizer.lrr 1e-3; clean
echo 'optimzer: {lr: 0.1}' > wrong.yaml
refused "wrong.yaml: unknown key 'optimzer.lr'; did you mean 'optimizer.lr'?" "$qkv" train pretrain wrong.yaml --data good.txt --out run; clean
echo 'train: {steps: many}' > wrong.yaml
refused "key 'train.steps': expected an integer" "$qkv" train pretrain wrong.yaml --data good.txt --out run; clean
refused "key 'model.hidden_size': expected an integer from 2" train --data good.txt --model.hidden_size -16; clean
refused "key 'data.batch_size': expected an integer from 1" train --data good.txt --data.batch_size 0; clean
refused "key 'schedule.kind': expected one of cosine" train --data good.txt --schedule.kind stairs; clean
refused "hidden_size" train --data good.txt --model.hidden_size 17; clean
refused "is not a multiple of" train --data good.txt --model.num_key_value_heads 3; clean
refused "--resume: expected a checkpoint" train --data good.txt --resume; clean
refused "--out" "$qkv" train pretrain --data good.txt

# Vocabulary larger than the embedding.
accepted "$qkv" train pretrain --out small "${tiny[@]}" --data good.txt
sed 's/the/zebra quagga/g; s/cat/ibex/g' good.txt > other.txt
cat good.txt other.txt > both.txt
accepted "$qkv" tokenizer train both.txt --out larger --vocab-size 320
refused "ids but the embedding only" train --init-from small/model --tokenizer.path larger --data good.txt; clean

# A full disk while saving.
if mkdir full && mount -t tmpfs -o size=700k tmpfs full 2> /dev/null; then
  "$qkv" train pretrain --out full/run "${tiny[@]}" --data good.txt --model.hidden_size 128 > out 2> all
  code=$?
  [ $code -eq 2 ] || complain "full disk: expected exit code 2, found $code: $(cat all)"
  grep -q 'No space left on device' all || complain "full disk: $(tail -2 all)"
  [ -z "$(find full -name '*.tmp-*')" ] || complain "full disk: left over: $(find full -name '*.tmp-*')"
  umount full
fi
finish
