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

# On a quantized base, where this program can quantize.
if "$qkv" quantize merged merged-q8.gguf --type q8_0 > quantize.log 2>&1; then
  accepted "$qkv" train sft merged-q8.gguf --data corpus/sft.jsonl --out qlora --adapter.rank 4 --train.steps 5
fi

printf '{"prompt": "a", "chosen": "b", "rejected": "b"}\n' > same.jsonl
refused "same.jsonl:1: rejected: expected another answer than chosen, found the same" "$qkv" train dpo base/model --data same.jsonl --out bad
refused "same.jsonl" "$qkv" train sft base/model --data same.jsonl --out bad
refused "expected preference data" "$qkv" train dpo base/model --data corpus/sft.jsonl --out bad
refused "--adapter: expected PATH or PATH=SCALE" "$qkv" generate base/model --adapter sft/adapter=x --prompt a
refused "expected an adapter" "$qkv" generate base/model --adapter corpus --prompt a
finish
