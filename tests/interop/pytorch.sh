#!/usr/bin/env bash
# PyTorch itself (Debian's python3-torch) reads what is written here, and what it writes is read here.
set -euo pipefail
python=/usr/bin/python3
if ! "$python" -c 'import torch' 2> /dev/null; then
  echo "skipped: $python has no torch (Debian's python3-torch)"
  exit 77
fi
exec "$python" "$1/tests/interop/pytorch.py" "$2/tests/interop_formats"
