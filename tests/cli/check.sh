#!/usr/bin/env bash
# qkv check: what is wrong with a file, and --fix.
source "$(dirname "$0")/support.bash" "$@"
make_model model
accepted "$qkv" convert model model.gguf
accepted "$qkv" convert model model.qkv --lossless
accepted "$qkv" convert model out.safetensors && mv out.safetensors model.safetensors
for file in model.gguf model.qkv model.safetensors; do
  accepted "$qkv" check $file --tensors
  out_has "nothing is wrong"
done
accepted "$qkv" check model.gguf --json
out_has '"ok":true'
accepted "$qkv" check model.gguf --fix again.gguf
cmp model.gguf again.gguf || complain "a file in order was laid out otherwise"

# A header of a length that is no multiple of 8, which leaves every tensor beside its alignment.
"$qkv" check model/model.safetensors > out 2> err
[ $? -eq 1 ] || complain "expected exit code 1 for tensors that are not aligned"
out_has "expected an offset that is a multiple of its elements' 4 bytes"
accepted "$qkv" check model/model.safetensors --fix aligned.safetensors
accepted "$qkv" check aligned.safetensors

head -c 64 /dev/zero >> again.gguf
"$qkv" check again.gguf > out 2> err
[ $? -eq 1 ] || complain "expected exit code 1 for a finding"
out_has "bytes of padding"
err_has "--fix OUT"
accepted "$qkv" check again.gguf --fix mended.gguf
out_has "the dequantized values it had"
cmp model.gguf mended.gguf || complain "the mended file differs"

size=$(stat -c %s model.qkv)
head -c $((size / 2)) model.qkv > cut.qkv
"$qkv" check cut.qkv > out 2> err
[ $? -eq 1 ] || complain "expected exit code 1 for a cut file"
out_has "cut off or damaged"
refused "since a weight could be lost" "$qkv" check cut.qkv --fix out.qkv
head -c $(($(stat -c %s model.gguf) - 600)) model.gguf > cut.gguf
refused "it is cut off" "$qkv" check cut.gguf --fix out.gguf
[ "$(echo out.*)" = "out.*" ] || complain "a refused repair left $(echo out.*)"
finish
