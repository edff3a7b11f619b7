# qkv quantize --method: every method writes what can be loaded, and what is refused.
# shellcheck source=tests/cli/support.bash
source "$1/tests/cli/support.bash" "$@"

make_model model
for _ in $(seq 100); do echo 'the cat sat on the mat and the dog ran'; done > text.txt
echo the cat > short.txt

for method in rtn nf4 fp4 int8 fp8; do
  accepted "$qkv" quantize model "$method" --method "$method" --group-size 8
  out_has '7 matrices'
  accepted "$qkv" info "$method"
done
accepted "$qkv" quantize model awq --method awq --group-size 8 --calibrate text.txt --eval text.txt --calibrate-context 32
out_has 'KL divergence'
accepted "$qkv" quantize model smooth.qkv --method smoothquant --calibrate text.txt --json
out_has '"relative_error"'

# Rows of 8 and 16 are too short for GPTQ's words.
refused 'are no multiple of 32' "$qkv" quantize model none --method gptq --calibrate text.txt
refused 'expected a text to calibrate with' "$qkv" quantize model none --method gptq
refused 'expected a text of at least 64 tokens' "$qkv" quantize model none --method awq --calibrate short.txt
refused "did you mean 'gptq'" "$qkv" quantize model none --method gtpq --calibrate text.txt
refused 'expected 4 bits, found 3' "$qkv" quantize model none --method awq --bits 3 --calibrate text.txt
refused 'expected 2 to 8 bits, found 12' "$qkv" quantize model none --method rtn --bits 12
refused 'expected at least 1, or -1' "$qkv" quantize model none --method rtn --group-size -5
refused 'expected a directory, a .qkv or a .gguf file' "$qkv" quantize model none.pt --method rtn
refused 'expected the method gptq for a .gguf file' "$qkv" quantize model none.gguf --method nf4
refused 'found IQ3_S; the nearest type is q3_k' "$qkv" quantize model none.gguf --method gptq --type IQ3_S --calibrate text.txt
refused 'No such file' "$qkv" quantize model none --method gptq --calibrate missing.txt
[ ! -e none ] && [ ! -e none.gguf ] || complain "expected that nothing is left of what was refused"

cp -r model broken
size=$(head -c 8 broken/model.safetensors | od -An -tu8 | tr -d ' ')
printf '\0\0\300\177' | dd of=broken/model.safetensors bs=1 seek=$((8 + size + 262 * 32 + 32)) conv=notrunc 2> /dev/null
refused 'expected finite numbers, found nan' "$qkv" quantize broken none --method nf4
refused 'expected finite numbers, found nan' "$qkv" quantize broken none --method awq --group-size 8 --calibrate text.txt
[ ! -e none ] || complain "expected that nothing is left of what was refused"

finish
