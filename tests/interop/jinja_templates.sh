#!/usr/bin/env bash
# Our Jinja engine gives the bytes that jinja2 gives, configured as transformers does. Skips (77) without python3-jinja2.
set -euo pipefail
source_dir=$1
binary_dir=$2
python=/usr/bin/python3
if ! "$python" -c 'import jinja2' 2> /dev/null; then
  echo "skipped: Debian's python3-jinja2 is not installed"
  exit 77
fi
TZ=UTC PYTHONDONTWRITEBYTECODE=1 "$python" "$source_dir/tests/interop/jinja_templates.py" \
  "$binary_dir/tests/render_templates" "$source_dir"
