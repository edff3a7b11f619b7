# qkv eval kld: a model against itself, and what is refused.
# shellcheck source=tests/cli/support.bash
source "$1/tests/cli/support.bash" "$@"

make_model model
for _ in $(seq 60); do echo 'the cat sat on the mat and the dog ran'; done > text.txt

echo the cat > short.txt
accepted "$qkv" eval kld model --reference model --text text.txt --context 32 --json
out_has '"same_top"'
out_has '"kl_percentiles"'
accepted "$qkv" eval kld model --reference model --text text.txt --context 32 --max-kld 0.01
out_has 'mean KL divergence'
refused 'expected at least' "$qkv" eval kld model --reference model --text short.txt
refused 'No such file' "$qkv" eval kld model --reference model --text missing.txt
refused 'missing-model' "$qkv" eval kld model --reference missing-model --text text.txt

# Two bytes whose tokens swapped their ids.
cp -r model other
sed -i 's/"X":/"swap":/; s/"Y":/"X":/; s/"swap":/"Y":/' other/tokenizer.json
cmp -s model/tokenizer.json other/tokenizer.json && complain "expected that the vocabulary changed"
refused 'must have one vocabulary: token' "$qkv" eval kld other --reference model --text text.txt

finish
