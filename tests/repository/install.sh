#!/usr/bin/env bash
# Installs the library into a fresh prefix, moves the prefix, and builds examples/embed against it from outside the tree:
# by find_package(qkv) and by plain g++ with pkg-config. Both programs must run and print the right numbers.
set -euo pipefail
source_dir=$1
binary_dir=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() {
  echo "FAIL: $*" >&2
  exit 1
}

if grep -q '^QKV_SANITIZE:STRING=.' "$binary_dir/CMakeCache.txt"; then
  echo "skipped: a sanitized library is not for installation"
  exit 77
fi
cmake --install "$binary_dir" --prefix "$work/first" > "$work/install.log" || fail "cmake --install: $(cat "$work/install.log")"
mv "$work/first" "$work/moved"
prefix=$work/moved
libdir=$(sed -n 's/^CMAKE_INSTALL_LIBDIR:[A-Z]*=//p' "$binary_dir/CMakeCache.txt")

for file in "$libdir/libqkv.a" "$libdir/pkgconfig/qkv.pc" include/qkv/tensor/tensor.h include/qkv/core/error.h \
  "$libdir"/cmake/qkv/{qkvConfig,qkvConfigVersion,qkvTargets}.cmake; do
  [ -f "$prefix/$file" ] || fail "$file is not installed"
done
if [ -x "$binary_dir/qkv" ]; then
  [ -x "$prefix/bin/qkv" ] || fail "bin/qkv is not installed"
fi
# Nothing installed may point back into the build or the checkout.
if grep -rIlF -e "$binary_dir" -e "$source_dir" "$prefix/$libdir/cmake" "$prefix/$libdir/pkgconfig"; then
  fail "the files above name the checkout"
fi

check() {  # program
  "$1" > "$work/output" || fail "$1 exited with $?"
  grep -qx 'x w^T = (1, 6)' "$work/output" || fail "$1 printed: $(cat "$work/output")"
  grep -qx 'd sum / d w\[0\] = (1, 2, 3)' "$work/output" || fail "$1 printed: $(cat "$work/output")"
}

cp -r "$source_dir/examples/embed" "$work/embed"
cmake -S "$work/embed" -B "$work/build" -G Ninja -DCMAKE_PREFIX_PATH="$prefix" > "$work/log" 2>&1 &&
  cmake --build "$work/build" >> "$work/log" 2>&1 || fail "find_package: $(cat "$work/log")"
check "$work/build/embed"

flags=$(PKG_CONFIG_PATH=$prefix/$libdir/pkgconfig pkg-config --cflags --libs --static qkv)
g++ -std=c++20 "$work/embed/main.cpp" $flags -o "$work/plain" 2> "$work/log" || fail "g++ $flags: $(cat "$work/log")"
check "$work/plain"
echo "installed, moved, found by CMake and by pkg-config"
