#!/usr/bin/env bash
# The errors of the quantizing searches against those of ggml's own shared library, type by type.
set -euo pipefail
source "$1/tests/interop/support.bash" "$1" "$2"

install_peer llama-cpp
library=$(find -L "$peers/llama-cpp/node_modules/@node-llama-cpp" -name libggml-base.so | head -n 1)
[ -n "$library" ] || skip "the installed package has no libggml-base.so"
models=()
[ -f "$shared/data/models/stories3M-F16.gguf" ] && models=("$shared/data/models/stories3M-F16.gguf")
"$2/tests/interop_quantize_quality" "$library" ${models[@]+"${models[@]}"}
