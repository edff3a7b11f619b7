#!/usr/bin/env bash
# A reader of compressed .qkv files written after docs/formats/qkv.md, and nothing else, gets every bit.
source "$(dirname "$0")/support.bash" "$@"
need_python
python3 "$source_directory/tests/interop/qkv_reader.py" make model.safetensors || exit 1
for codec in auto dictionary split zstd raw; do
  accepted "$qkv" convert model.safetensors packed.qkv --lossless --codec $codec
  python3 "$source_directory/tests/interop/qkv_reader.py" compare model.safetensors packed.qkv > out 2> err
  code=$?
  [ $code -eq 77 ] && skip "$(tail -n 1 err)"
  [ $code -eq 0 ] || complain "codec $codec: $(tail -n 3 err)"
done
finish
