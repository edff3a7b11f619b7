#!/usr/bin/env bash
# Dequantization and plain rounding of every block type against ggml's own shared library, bit for bit.
set -euo pipefail
source "$1/tests/interop/support.bash" "$1" "$2"

install_peer llama-cpp
library=$(find "$peers/llama-cpp/node_modules/@node-llama-cpp" -name libggml-base.so | head -n 1)
[ -n "$library" ] || skip "the installed package has no libggml-base.so"
models=()
for model in "$shared"/data/models/*.gguf; do
  if [ -f "$model" ]; then models+=("$model"); fi
done
"$2/tests/interop_ggml_blocks" "$library" ${models[@]+"${models[@]}"}
