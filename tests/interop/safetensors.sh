#!/usr/bin/env bash
# A reader of safetensors files that shares nothing with ours reads what is written here.
set -euo pipefail
if ! command -v python3 > /dev/null; then
  echo "skipped: there is no python3"
  exit 77
fi
exec python3 "$1/tests/interop/safetensors.py" "$2/tests/interop_formats"
