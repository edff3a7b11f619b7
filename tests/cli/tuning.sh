#!/usr/bin/env bash
# The way of a model through the program: pretraining, chats, preferences, adapters merged; on the embedded corpus, in seconds.
source "$(dirname "$0")/support.bash" "$@"
accepted "$qkv" data make-tales corpus --bytes 200000 --instructions 300 --preferences 200
accepted "$qkv" train pretrain --data corpus/train.txt --out base --tokenizer.vocab_size 400 --model.hidden_size 32 \
  --model.num_hidden_layers 2 --model.num_attention_heads 2 --data.sequence_length 128 --model.max_position_embeddings 256 --train.steps 30
accepted "$qkv" data lint corpus/sft.jsonl --model base/model --json
grep -q '"without_learned_end":0' out || complain "lint: $(cat out)"

accepted "$qkv" train sft base/model --data corpus/sft.jsonl --out sft --adapter.rank 4 --train.epochs 1 --data.batch_tokens 1024 --optimizer.lr 3e-3
[ -f sft/adapter/adapter_config.json ] || complain "sft: no adapter"
accepted "$qkv" eval ppl base/model corpus/valid.txt --adapter sft/adapter --max-windows 4
accepted "$qkv" generate base/model --adapter sft/adapter=0.5 --prompt "Question: Who?" --max-tokens 5 --temperature 0
accepted "$qkv" merge base/model sft/adapter merged --json
grep -q '"written":true' out || complain "merge: $(cat out)"
accepted "$qkv" train dpo merged --data corpus/preferences.jsonl --out dpo --data.chat yes --adapter.rank 4 --train.steps 10 --data.batch_pairs 4
accepted "$qkv" train sft base/model --data corpus/sft.jsonl --out full --adapter.kind none --train.steps 5 --optimizer.lr 1e-3
[ -f full/model/model.safetensors ] || complain "sft of all parameters: no model"

# Only the error of a command that has said other things before.
quiet() { "$@" 2> all; code=$?; grep '^error: ' all >&2; return $code; }

# Every other way of tuning, a few steps each: full-parameter or with adapters.
few=(--train.steps 3 --train.log_interval 1 --data.max_length 128)
pairs=(--data corpus/preferences.jsonl --data.chat yes --data.batch_pairs 4 "${few[@]}")
for verb in orpo cpo simpo; do
  accepted "$qkv" train $verb merged "${pairs[@]}" --out $verb --adapter.rank 4
  grep -q '"rewards/accuracies"' $verb/metrics.jsonl || complain "$verb: $(tail -1 $verb/metrics.jsonl)"
done
accepted "$qkv" train kto merged --data corpus/preferences.jsonl --data.chat yes "${few[@]}" --out kto --adapter.kind none
grep -q '"kl"' kto/metrics.jsonl || complain "kto: $(tail -1 kto/metrics.jsonl)"
accepted "$qkv" train dpo merged "${pairs[@]}" --out dpo-kept --adapter.rank 4 --adapter.start pissa --dpo.keep_reference
accepted "$qkv" train reward merged "${pairs[@]}" --out reward --adapter.kind none
grep -q 'the chosen answer scores higher in' err || complain "reward: $(cat err)"
grep -q LlamaForSequenceClassification reward/model/config.json || complain "reward: $(cat reward/model/config.json)"
accepted "$qkv" train reward merged "${pairs[@]}" --out reward-lora --adapter.rank 4
grep -q '"task_type":[ ]*"SEQ_CLS"' reward-lora/adapter/adapter_config.json || complain "reward adapter: $(cat reward-lora/adapter/adapter_config.json)"
refused "expected a language model, found a reward model" "$qkv" train sft reward/model --data corpus/sft.jsonl --out bad
accepted "$qkv" train distill base/model --teacher merged --data corpus/sft.jsonl --out distilled "${few[@]}" --distill.temperature 2
refused "expected a teacher" "$qkv" train distill base/model --data corpus/sft.jsonl --out bad
sft=(train sft base/model --data corpus/sft.jsonl "${few[@]}")
accepted "$qkv" "${sft[@]}" --out ada --adapter.kind adalora --adapter.rank 6 --adapter.target_rank 2
accepted "$qkv" eval ppl base/model corpus/valid.txt --adapter ada/adapter --max-windows 2
accepted "$qkv" "${sft[@]}" --out options --adapter.modules_to_save norm --optimizer.lora_plus 4 --optimizer.ema_decay 0.9 \
  --train.embedding_noise 5 --train.attention_group 16 --train.z_loss 1e-4 --train.label_smoothing 0.1 \
  --train.gradient_accumulation_steps 2 --train.gradient_noise_scale true
accepted "$qkv" generate base/model --adapter options/adapter --adapter sft/adapter=0.5 --prompt "Question: Who?" --max-tokens 3
accepted "$qkv" "${sft[@]}" --out qat --adapter.kind none --train.qat q4_0 --train.freeze norm --optimizer.name galore --optimizer.rank 4
accepted "$qkv" quantize qat/model qat.gguf --type q4_0
refused "train.freeze: 'nrom' is found in the name of no parameter" quiet "$qkv" "${sft[@]}" --out bad --adapter.kind none --train.freeze nrom
refused "train.qat: expected adapter.kind none, found lora" quiet "$qkv" "${sft[@]}" --out bad --train.qat q4_0
refused "the model has no module 'lm_haed'" quiet "$qkv" "${sft[@]}" --out bad --adapter.modules_to_save lm_haed

# On a quantized base, where this program can quantize.
if "$qkv" quantize merged merged-q8.gguf --type q8_0 > quantize.log 2>&1; then
  accepted "$qkv" train sft merged-q8.gguf --data corpus/sft.jsonl --out qlora --adapter.rank 4 --train.steps 5
  accepted "$qkv" train sft merged-q8.gguf --data corpus/sft.jsonl --out loftq --adapter.rank 4 --train.steps 2 --adapter.start loftq --adapter.original merged
  grep -q 'of what quantizing lost' err || complain "loftq: $(cat err)"
  accepted "$qkv" train kto merged-q8.gguf --data corpus/preferences.jsonl --data.chat yes "${few[@]}" --out qkto --adapter.rank 4
fi

printf '{"prompt": "a", "chosen": "b", "rejected": "b"}\n' > same.jsonl
refused "same.jsonl:1: rejected: expected another answer than chosen, found the same" "$qkv" train dpo base/model --data same.jsonl --out bad
refused "same.jsonl" "$qkv" train sft base/model --data same.jsonl --out bad
refused "expected preference data" "$qkv" train dpo base/model --data corpus/sft.jsonl --out bad
refused "--adapter: expected PATH or PATH=SCALE" "$qkv" generate base/model --adapter sft/adapter=x --prompt a
refused "expected an adapter" "$qkv" generate base/model --adapter corpus --prompt a
finish
