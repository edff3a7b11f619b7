#!/usr/bin/env bash
# A run that is killed with SIGKILL and resumed ends bit-identical to one that never stopped; so does one ended by Ctrl-C.
source "$(dirname "$0")/support.bash" "$@"
accepted "$qkv" data make-tales corpus --bytes 200000
settings=(--data corpus/train.txt --data.valid corpus/valid.txt --tokenizer.vocab_size 400 --model.hidden_size 32
  --model.num_hidden_layers 2 --model.num_attention_heads 2 --data.sequence_length 64 --data.batch_size 4
  --train.gradient_accumulation_steps 2 --train.dropout 0.1 --train.steps 400 --train.eval_interval 100
  --train.eval_tokens 2000 --train.log_interval 20 --train.checkpoint_interval 20 --threads 2)

same_model() {
  cmp -s "$1/model/model.safetensors" "$2/model/model.safetensors" || complain "$2: the model's bits differ from $1's"
  cmp -s "$1/checkpoints/step-00000400/optimizer/model.safetensors" "$2/checkpoints/step-00000400/optimizer/model.safetensors" ||
    complain "$2: the optimizer's bits differ from $1's"
}

accepted "$qkv" train pretrain "${settings[@]}" --out whole

# stopped SIGNAL DIR: starts a run and sends it the signal once its third checkpoint is there.
stopped() {
  "$qkv" train pretrain "${settings[@]}" --out "$2" > log 2>&1 &
  local pid=$!
  for _ in $(seq 600); do
    [ -f "$2/checkpoints/step-00000060/trainer_state.json" ] && break
    sleep 0.05
  done
  kill "-$1" $pid
  wait $pid
}

stopped KILL killed 2> /dev/null
[ ! -e killed/model ] || complain "killed: the run was over before it was killed"
accepted "$qkv" train pretrain "${settings[@]}" --out killed --resume
err_has "resumed from"
same_model whole killed

stopped INT interrupted
code=$?
[ $code -eq 130 ] || complain "interrupted: expected exit code 130, found $code: $(cat log)"
[ ! -e interrupted/model ] || complain "interrupted: the run was over before it was interrupted"
accepted "$qkv" train pretrain "${settings[@]}" --out interrupted --resume
same_model whole interrupted

# Rotation keeps the last two and the best; nothing temporary is left.
[ "$(find whole/checkpoints -maxdepth 1 -name 'step-*' | wc -l)" -le 3 ] || complain "rotation: $(ls whole/checkpoints)"
[ -z "$(find whole -name '*.tmp-*')" ] || complain "left over: $(find whole -name '*.tmp-*')"

# What a resumed run must not change.
refused "key 'optimizer.lr'" "$qkv" train pretrain "${settings[@]}" --out killed --resume --optimizer.lr 0.5
refused "holds a run already" "$qkv" train pretrain "${settings[@]}" --out killed

# Incremental training: new data and schedule from a checkpoint's weights, whose own tokenizer it keeps.
accepted "$qkv" train pretrain --init-from whole/model --data corpus/valid.txt --out further --data.sequence_length 64 --train.steps 5
cmp -s whole/model/tokenizer.json further/model/tokenizer.json || complain "further: expected the tokenizer of the model it began with"

# What was trained speaks.
accepted "$qkv" generate whole/model --prompt "One day" --max-tokens 8 --temperature 0
finish
