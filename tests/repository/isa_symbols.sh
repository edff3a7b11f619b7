#!/bin/bash
# Code compiled for one instruction set must not be shared with another translation unit: a weak symbol (an inline function
# or template that was not inlined) would let the linker keep the AVX-512 version for everyone. Arguments: source and build
# directories.
set -u
build=$2
mapfile -t objects < <(find "$build" -path '*qkv_kernels_objects.dir/kernels/isa/*.o' | sort)
if [ ${#objects[@]} -eq 0 ]; then
  echo "no instruction-set object files under $build: build qkv_kernels first"
  exit 1
fi
failed=0
for object in "${objects[@]}"; do
  name=$(basename "$object" .cpp.o)
  symbols=$(nm -C --defined-only "$object") || exit 1
  weak=$(grep -E '^[0-9a-f]* [WwVvu] ' <<<"$symbols")
  if [ -n "$weak" ]; then
    echo "$name: weak symbols, which the linker may use for other translation units:"
    echo "$weak" | cut -d' ' -f2-
    failed=1
  fi
  # What is strong is the table's function and nothing else.
  extra=$(grep -E '^[0-9a-f]* [TDBR] ' <<<"$symbols" | grep -vE " T qkv::kernels_${name}\(\)$")
  if [ -n "$extra" ]; then
    echo "$name: exports more than qkv::kernels_${name}():"
    echo "$extra" | cut -d' ' -f2-
    failed=1
  fi
done
[ $failed -eq 0 ] && echo "no symbol leaks from ${#objects[@]} instruction-set units"
exit $failed
