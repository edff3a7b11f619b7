#!/usr/bin/env bash
# A model's whole life on the embedded corpus, about 20 minutes on two quiet cores: pretraining -> SFT -> six ways of alignment
# from the same start -> held-out scores, a table and a page. Everything is made under build/lifecycle.
#
#   MODEL=llama|mamba   the architecture; nothing below depends on it but its size
#   MINUTES=7           of pretraining
#   SCALE=1             of all tuning steps
#   OUT=build/lifecycle
#
# What it checks: the friendly style rises from near one half to at least 0.9 under DPO; GRPO raises held-out
# arithmetic by more than its 95 % interval; every policy stays within KL_LIMIT nats per answer of its start; LoRA on a Q4_K base
# reaches the SFT loss of LoRA in full precision within 2 %.
set -euo pipefail
cd "$(dirname "$0")/.."
qkv=${QKV:-build/release/qkv}
model=${MODEL:-llama}
minutes=${MINUTES:-7}
scale=${SCALE:-1}
out=${OUT:-build/lifecycle}-$model
kl_limit=${KL_LIMIT:-40}
started=$(date +%s)

say() { printf '\n== %s  (%s s)\n' "$*" "$(($(date +%s) - started))"; }
steps() { awk -v n="$1" -v s="$scale" 'BEGIN { n = int(n * s + 0.5); print n < 1 ? 1 : n }'; }
# value FILE KEY: of a run's one line of JSON.
value() { grep -o "\"$2\":[^,}]*" "$1" | head -1 | cut -d: -f2; }

rm -rf "$out"
mkdir -p "$out"
corpus=$out/corpus

say "corpus: stories, questions, arithmetic, replies in two styles"
"$qkv" data make-tales "$corpus" --bytes 12000000 --seed 1 --styles 6000 --story-share 0.06 --question-share 0.22 \
  --arithmetic-share 0.52 --instruction-share 0.18 --fact-share 0.02

say "pretraining: $model, $minutes minutes"
pretrain=(--data "$corpus/train.txt" --data.valid "$corpus/valid.txt" --data.sequence_length 256 --data.batch_size 4
  --optimizer.lr 3e-3 --optimizer.weight_decay 0.05 --schedule.kind wsd --schedule.warmup_ratio 0.03 --schedule.decay_fraction 0.3
  --schedule.min_lr_ratio 0.02 --train.minutes "$minutes" --train.log_interval 100 --train.eval_interval 500
  --train.eval_tokens 32768 --train.checkpoint_interval 0)
case $model in
  llama)
    "$qkv" train pretrain "${pretrain[@]}" --out "$out/base" --tokenizer.vocab_size 1024 --model.hidden_size 256 \
      --model.intermediate_size 512 --model.num_hidden_layers 2 --model.num_attention_heads 4 --model.max_position_embeddings 1024 \
      --model.initializer_range 0.06
    ;;
  mamba)
    "$qkv" tokenizer train "$corpus/train.txt" --out "$out/tokenizer" --vocab-size 1024
    cat > "$out/mamba.json" << 'END'
{"model_type": "mamba", "architectures": ["MambaForCausalLM"], "vocab_size": 1024, "hidden_size": 256, "num_hidden_layers": 3,
 "state_size": 8, "conv_kernel": 4, "expand": 1, "time_step_rank": 16, "use_bias": false, "use_conv_bias": true,
 "initializer_range": 0.06, "tie_word_embeddings": true}
END
    "$qkv" init "$out/mamba.json" "$out/start" --tokenizer "$out/tokenizer"
    "$qkv" train pretrain "${pretrain[@]}" --out "$out/base" --init-from "$out/start"
    ;;
  *)
    echo "MODEL: expected llama or mamba, found '$model'" >&2
    exit 2
    ;;
esac

say "SFT: all parameters, replies in both styles"
tune=(--train.eval_interval 0 --train.checkpoint_interval 0 --train.log_interval 20)
"$qkv" train sft "$out/base/model" --data "$corpus/styles.jsonl" --data.valid "$corpus/styles_valid.jsonl" --out "$out/sft" \
  --adapter.kind none --optimizer.lr 1e-3 --data.batch_tokens 2048 --train.steps "$(steps 300)" "${tune[@]}"
start=$out/sft/model

say "LoRA in full precision, and on a Q4_K base"
"$qkv" quantize "$out/base/model" "$out/base-q4_k.gguf" --type Q4_K_S --pure
for base in base/model base-q4_k.gguf; do
  "$qkv" train sft "$out/$base" --data "$corpus/styles.jsonl" --data.valid "$corpus/styles_valid.jsonl" \
    --out "$out/lora-${base%%[/.]*}" --adapter.rank 16 --optimizer.lr 2e-3 --data.batch_tokens 2048 --train.steps "$(steps 120)" \
    "${tune[@]}" --json > "$out/lora-${base%%[/.]*}.json"
done

lora=(--adapter.rank 16 "${tune[@]}")
pairs=(--data "$corpus/style_preferences.jsonl" --data.valid "$corpus/style_preferences_valid.jsonl" --data.batch_pairs 16
  --optimizer.lr 5e-4 --train.steps "$(steps 60)" "${lora[@]}")
for method in dpo orpo simpo; do
  say "$method: the friendly style is preferred"
  "$qkv" train $method "$start" "${pairs[@]}" --out "$out/$method"
done

say "kto: the same answers, each labelled good or bad"
text='"([^"\\]|\\.)*"'
for part in "" _valid; do
  sed -E "s/^\{\"prompt\":($text),\"chosen\":($text),\"rejected\":($text)\}$/{\"prompt\":\1,\"completion\":\3,\"label\":true}\n{\"prompt\":\1,\"completion\":\5,\"label\":false}/" \
    "$corpus/style_preferences$part.jsonl" > "$out/labelled$part.jsonl"
done
"$qkv" train kto "$start" --data "$out/labelled.jsonl" --data.valid "$out/labelled_valid.jsonl" --out "$out/kto" \
  --optimizer.lr 5e-4 --train.steps "$(steps 60)" "${lora[@]}"

friendly='^\s*(Happy to help!|Gladly!|What a nice question!|Of course, my friend!)'
say "ppo: a right answer, and in the friendly style"
"$qkv" train ppo "$start" --data "$corpus/arithmetic.jsonl" --reward exact --reward "regex=$friendly" --out "$out/ppo" \
  --rollout.prompts 64 --rollout.max_new_tokens 64 --update.minibatches 2 --update.iterations 2 --ppo.kl_coefficient 0.02 \
  --optimizer.lr 5e-4 --train.steps "$(steps 120)" "${lora[@]}"

say "grpo: a right answer"
"$qkv" train grpo "$start" --data "$corpus/arithmetic.jsonl" --reward exact --out "$out/grpo" \
  --rollout.prompts 16 --rollout.group 8 --rollout.max_new_tokens 64 --update.minibatches 2 --grpo.clip_high 0.28 --grpo.beta 0.01 \
  --optimizer.lr 5e-4 --train.steps "$(steps 120)" "${lora[@]}"

say "held-out prompts"
policies=()
for method in dpo kto orpo simpo ppo grpo; do policies+=(--policy "$method=$out/$method/adapter"); done
compare() {
  "$qkv" eval policies "$start" --policy sft "${policies[@]}" --measure "accuracy=exact@$corpus/arithmetic_valid.jsonl" \
    --measure "style=regex=$friendly@$corpus/style_preferences_valid.jsonl" --max-tokens 64 "$@"
}
compare --html "$out/scores.html" --json > "$out/scores.json"

# score MEASURE POLICY KEY
score() { tr '{' '\n' < "$out/scores.json" | grep "\"measure\":\"$1\",\"policy\":\"$2\"" | grep -o "\"$3\":[^,}]*" | cut -d: -f2; }
failures=0
check() {
  if awk "BEGIN { exit !($2) }"; then echo "ok      $1: $2"; else
    echo "FAILED  $1: $2"
    failures=$((failures + 1))
  fi
}
printf '\n%-8s %9s %7s %9s %9s %8s | %7s %7s %8s\n' policy accuracy +- gain "gain +-" KL style wins KL
for policy in sft dpo kto orpo simpo ppo grpo; do
  printf '%-8s %9.3f %7.3f %+9.3f %9.3f %8.2f | %7.3f %7.3f %8.2f\n' $policy "$(score accuracy $policy reward)" \
    "$(score accuracy $policy interval)" "$(score accuracy $policy gain)" "$(score accuracy $policy gain_interval)" \
    "$(score accuracy $policy kl)" "$(score style $policy reward)" "$(score style $policy win_rate)" "$(score style $policy kl)"
done | tee "$out/scores.txt"
echo
check "the style before alignment is near one half" "$(score style sft reward) > 0.35 && $(score style sft reward) < 0.65"
check "the style under DPO" "$(score style dpo reward) >= 0.9"
check "arithmetic under GRPO rises by more than its interval" "$(score accuracy grpo gain) > $(score accuracy grpo gain_interval)"
for policy in dpo kto orpo simpo ppo grpo; do
  check "KL of $policy" "$(score accuracy $policy kl) < $kl_limit && $(score style $policy kl) < $kl_limit"
done
check "QLoRA's loss beside LoRA's" "$(value "$out/lora-base-q4_k.json" valid_loss) <= 1.02 * $(value "$out/lora-base.json" valid_loss)"
say "done: $out/scores.html"
exit $((failures > 0))
