# qkv prune: zeros and smaller models, and what is refused.
# shellcheck source=tests/cli/support.bash
source "$1/tests/cli/support.bash" "$@"

make_model model
for _ in $(seq 100); do echo 'the cat sat on the mat and the dog ran'; done > text.txt
echo the cat > short.txt

accepted "$qkv" prune model sparse --method magnitude --sparsity 0.25 --tensors
out_has 'weights in 7 matrices are zero'
out_has 'blocks.0.mlp.down.weight'
accepted "$qkv" prune model pattern.gguf --method sparsegpt --pattern 2:4 --calibrate text.txt --json
out_has '"sparsity"'
accepted "$qkv" prune model smaller --channels 0.5 --calibrate text.txt --eval text.txt --calibrate-context 32
out_has '8 channels'
out_has 'KL divergence'
accepted "$qkv" info smaller

# A pruned model is tuned, and stays pruned: 32 of the 64 weights of its query matrix are zero.
accepted "$qkv" init model/config.json random --tokenizer model --seed 5
accepted "$qkv" prune random half --method magnitude --pattern 2:4
for keep in true false; do
  accepted "$qkv" train pretrain --init-from half --data corpus.txt --out run-$keep --train.steps 3 --train.eval_tokens 64 \
    --data.sequence_length 16 --data.batch_size 2 --optimizer.keep_zeros $keep
  accepted "$qkv" info run-$keep/model --tensors --json
  tr '{' '\n' < out | grep -A1 'self_attn.q_proj' | grep -o '"zeros":[0-9]*' > zeros-$keep
done
grep -qx '"zeros":32' zeros-true || complain "expected 32 zeros of 64 weights after tuning, found $(cat zeros-true)"
grep -qx '"zeros":32' zeros-false && complain "without keep_zeros no zero was trained"

refused 'found neither' "$qkv" prune model none
refused 'found both' "$qkv" prune model none --method wanda --layers 0.5
refused 'expected a text to calibrate with' "$qkv" prune model none --method wanda
refused 'expected N:M' "$qkv" prune model none --method magnitude --pattern 4:2
refused 'expected a share from 0 to below 1' "$qkv" prune model none --method magnitude --sparsity 1.5
refused "did you mean 'wanda'" "$qkv" prune model none --method wand
refused 'expected a text of at least 64 tokens' "$qkv" prune model none --method wanda --calibrate short.txt
refused 'expected a text of at least 64 tokens' "$qkv" prune model none --channels 0.5 --calibrate short.txt
refused 'expected something to take away' "$qkv" prune model none --layers 0.5 --calibrate text.txt
refused 'No such file' "$qkv" prune model none --method wanda --calibrate missing.txt
refused 'missing-model' "$qkv" prune missing-model none --method magnitude
refused 'expected another place' "$qkv" prune model model --method magnitude
[ ! -e none ] || complain "expected that nothing is left of what was refused"

# A weight that is no number: the first four bytes of the first layer's query matrix, behind embedding and norm.
cp -r model broken
size=$(head -c 8 broken/model.safetensors | od -An -tu8 | tr -d ' ')
printf '\0\0\300\177' | dd of=broken/model.safetensors bs=1 seek=$((8 + size + 262 * 32 + 32)) conv=notrunc 2> /dev/null
refused "expected finite numbers, found nan" "$qkv" prune broken none --method magnitude
refused "expected finite" "$qkv" prune broken none --method wanda --calibrate text.txt
[ ! -e none ] || complain "expected that nothing is left of what was refused"

finish
