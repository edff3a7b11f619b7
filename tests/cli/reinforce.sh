#!/usr/bin/env bash
# On-policy tuning from the command line: all methods run, a killed run is resumed bit for bit, what is wrong is one sentence.
source "$(dirname "$0")/support.bash" "$@"
accepted "$qkv" data make-tales corpus --bytes 100000 --instructions 100 --preferences 50 --styles 60
for file in styles style_preferences arithmetic; do [ -s corpus/$file.jsonl ] || complain "no corpus/$file.jsonl"; done
accepted "$qkv" train pretrain --data corpus/train.txt --out base --tokenizer.vocab_size 400 --model.hidden_size 32 \
  --model.num_hidden_layers 2 --model.num_attention_heads 2 --data.sequence_length 128 --model.max_position_embeddings 256 --train.steps 20
common=(base/model --data corpus/arithmetic.jsonl --data.chat yes --reward exact --reward '0.1*length=5-20' --rollout.max_new_tokens 12
  --adapter.rank 4 --optimizer.lr 1e-3 --threads 2)

accepted "$qkv" train rloo "${common[@]}" --out rloo --rollout.prompts 4 --train.steps 2
accepted "$qkv" train online-dpo "${common[@]}" --out online --rollout.prompts 4 --rollout.group 3 --train.steps 2
accepted "$qkv" train grpo "${common[@]}" --out full --adapter.kind none --grpo.beta 0.1 --rollout.prompts 4 --train.steps 2
accepted "$qkv" train gkd base/model --gkd.teacher full/model --data corpus/arithmetic.jsonl --data.chat yes --rollout.max_new_tokens 8 \
  --rollout.prompts 4 --train.steps 2 --out taught
grep -q '"divergence"' taught/metrics.jsonl || complain "gkd: no metrics"
[ -f full/model/model.safetensors ] || complain "grpo of all parameters: no model"

# A run that is killed in the middle of a generation and resumed ends bit-identical to one that never stopped.
# resumes METHOD FLAGS...
resumes() {
  local method=$1
  shift
  local settings=("${common[@]}" "$@" --adapter.dropout 0.1 --train.steps 16 --train.checkpoint_interval 5 --train.keep_last 9)
  accepted "$qkv" train "$method" "${settings[@]}" --out "$method-whole"
  grep -q '"sampling/importance_sampling_ratio/mean"' "$method-whole/metrics.jsonl" || complain "$method: no metrics"
  "$qkv" train "$method" "${settings[@]}" --out "$method-killed" > log 2>&1 &
  local pid=$!
  for _ in $(seq 600); do
    [ -f "$method-killed/checkpoints/step-00000005/trainer_state.json" ] && break
    sleep 0.05
  done
  kill -KILL $pid
  wait $pid
  [ ! -e "$method-killed/adapter" ] || complain "$method: the run was over before it was killed"
  accepted "$qkv" train "$method" "${settings[@]}" --out "$method-killed" --resume
  err_has "resumed from"
  for file in adapter_model.safetensors optimizer/model.safetensors; do
    cmp -s "$method-whole/checkpoints/step-00000016/$file" "$method-killed/checkpoints/step-00000016/$file" ||
      complain "$method: the bits of $file differ after a resume"
  done
}
resumes grpo --rollout.prompts 4 --rollout.group 4 --update.minibatches 2 --update.iterations 2 --grpo.beta 0.05 --grpo.clip_high 0.28 2> /dev/null
resumes ppo --rollout.prompts 8 --update.minibatches 2 --update.iterations 2 --ppo.kl_target 2 2> /dev/null
cmp -s ppo-whole/checkpoints/step-00000016/recipe/model.safetensors ppo-killed/checkpoints/step-00000016/recipe/model.safetensors ||
  complain "ppo: the value head's bits differ after a resume"

accepted "$qkv" eval policies base/model --chat yes --policy base --policy grpo=grpo-whole/adapter --policy full=full/model \
  --measure 'accuracy=exact@corpus/arithmetic_valid.jsonl' --measure 'style=regex=^ ?Gladly@corpus/style_preferences_valid.jsonl' \
  --limit 12 --max-tokens 12 --html page.html --json
grep -q '"measure":"style","policy":"full"' out || complain "eval policies: $(head -c 300 out)"
[ -s page.html ] || complain "eval policies: no page"

accepted "$qkv" data self-critique base/model corpus/arithmetic.jsonl judged.jsonl --mode judge --limit 8 --max-tokens 8 --json
grep -q '"pairs":' out || complain "self-critique: $(cat out)"
accepted "$qkv" data self-critique base/model corpus/arithmetic.jsonl revised.jsonl --limit 8 --max-tokens 8
accepted "$qkv" train dpo base/model --data revised.jsonl,judged.jsonl --data.chat yes --adapter.rank 2 --train.steps 2 --out from-own
echo "# none" > principles.txt
refused "principles, one a line" "$qkv" data self-critique base/model corpus/arithmetic.jsonl none.jsonl --principles principles.txt

train() { "$qkv" train grpo base/model --out bad "$@" 2> all; code=$?; grep '^error: ' all >&2; return $code; }
refused "rewards: expected at least one" train --data corpus/arithmetic.jsonl
refused "reward 'exakt': expected one of exact, regex" train --data corpus/arithmetic.jsonl --reward exakt
refused "corpus/preferences.jsonl:" train --data corpus/preferences.jsonl --data.chat yes --reward exact --train.steps 1
refused "prompt: expected a text or messages, found no such field among id, title, text" train --data corpus/facts.jsonl --reward exact
refused "reward program 'exit 3': expected exit status 0, found 3" train --data corpus/arithmetic.jsonl --reward 'program=exit 3' --rollout.max_new_tokens 2
refused "key 'rollout.group': expected an integer from 1" train --data corpus/arithmetic.jsonl --reward json --rollout.group 0
refused "grpo: expected groups of at least 2 answers" train --data corpus/arithmetic.jsonl --reward json --rollout.group 1
refused "rollout.max_new_tokens: expected fewer than the model's 256 positions" train --data corpus/arithmetic.jsonl --reward json --rollout.max_new_tokens 256
refused "expected a sequence classifier" train --data corpus/arithmetic.jsonl --reward model=base/model
refused "unknown key 'grpo.betta'; did you mean 'grpo.beta'?" train --data corpus/arithmetic.jsonl --reward json --grpo.betta 1
refused "--measure: expected NAME=REWARD@PROMPTS.jsonl" "$qkv" eval policies base/model --policy a --measure exact
[ ! -e bad/adapter ] || complain "left over: $(find bad | head)"
finish
