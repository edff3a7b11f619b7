#!/usr/bin/env bash
# Holds the includes of qkv/ and apps/ to the order of the layers (docs/architecture.md). Prints file:line of every
# offender. The checker first has to find planted violations in a small tree, so that it cannot pass by being blind.
set -euo pipefail
source_dir=$1

# check TREE: prints the offending includes of TREE/qkv and TREE/apps.
check() {
  (
    cd "$1"
    find qkv apps -type f \( -name '*.h' -o -name '*.cpp' -o -name '*.inl' -o -name '*.cu' -o -name '*.cuh' \) -print0 | sort -z |
      xargs -0 grep -nHE '^[[:space:]]*#[[:space:]]*include[[:space:]]*[<"]' |
      awk -v order='core|kernels|tensor|codec|formats text report dist|nn|quant|models|data engine|train eval|compress plan rag reason|serve|apps' '
        BEGIN {
          count = split(order, ranks, "|")
          for (r = 1; r <= count; ++r) {
            n = split(ranks[r], names, " ")
            for (i = 1; i <= n; ++i) rank[names[i]] = r
          }
        }
        function offend(why) { printf "%s:%s: includes %s: %s\n", file, line, header, why }
        {
          colon = index($0, ":"); file = substr($0, 1, colon - 1); rest = substr($0, colon + 1)
          colon = index(rest, ":"); line = substr(rest, 1, colon - 1)
          match(rest, /[<"][^>"]*[>"]/); header = substr(rest, RSTART + 1, RLENGTH - 2)
          depth = split(file, part, "/")
          from = part[1] == "apps" ? "apps" : depth > 2 ? part[2] : ""
          if (from != "" && !(from in rank)) { offend("the folder qkv/" from " is in no layer"); next }
          if (header ~ /^nlohmann\/json\.hpp$/ && file !~ /\.cpp$/) offend("a header takes qkv/core/json.h instead")
          if (header ~ /^(hwy\/|arm_neon\.h|arm_sve\.h|cpuid\.h$|.*intrin\.h$)/ && from != "kernels") offend("intrinsics belong in qkv/kernels")
          if (header ~ /^bits\//) offend("an internal header of the standard library")
          if (header ~ /^\.\.?\//) offend("includes are written from the root, \"qkv/...\"")
          if (header !~ /^(qkv|apps)\//) next
          split(header, target, "/")
          to = target[1] == "apps" ? "apps" : target[2]
          if (from == "" || to == from) next
          if (!(to in rank)) offend("there is no layer " to)
          else if (rank[to] == rank[from]) offend(from " and " to " are siblings, which never include each other")
          else if (rank[to] > rank[from]) offend(to " is above " from)
        }'
  )
}

planted=$(mktemp -d)
trap 'rm -rf "$planted"' EXIT
mkdir -p "$planted"/qkv/{core,kernels,tensor,text,report,train,stray} "$planted/apps/qkv"
plant() { printf '%s\n' "${@:2}" > "$planted/$1"; }
plant qkv/core/up.h '#pragma once' '#include "qkv/tensor/tensor.h"'
plant qkv/core/heavy.h '#include <nlohmann/json.hpp>'
plant qkv/core/cpu.cpp '#include <cpuid.h>'
plant qkv/tensor/vector.cpp '#include <immintrin.h>'
plant qkv/tensor/highway.cpp '  #  include <hwy/highway.h>'
plant qkv/text/sibling.cpp '#include "qkv/report/page.h"'
plant qkv/text/internal.cpp '#include <bits/stdc++.h>'
plant qkv/text/relative.cpp '#include "../core/error.h"'
plant qkv/train/program.cpp '#include "apps/qkv/main.h"'
plant qkv/stray/lost.cpp '#include <vector>'
plant qkv/train/unknown.cpp '#include "qkv/nowhere/thing.h"'
# Allowed: downwards, within a layer, intrinsics in kernels, JSON in a source, the program on anything.
plant qkv/kernels/fine.inl '#include <hwy/highway.h>' '#include <immintrin.h>' '#include "qkv/core/error.h"'
plant qkv/text/fine.cpp '#include <nlohmann/json.hpp>' '#include "qkv/core/json.h"' '#include "qkv/text/tokenizer.h"'
plant apps/qkv/main.cpp '#include "qkv/train/loop.h"' '#include "qkv/core/log.h"'
expected='qkv/core/cpu.cpp:1
qkv/core/heavy.h:1
qkv/core/up.h:2
qkv/stray/lost.cpp:1
qkv/tensor/highway.cpp:1
qkv/tensor/vector.cpp:1
qkv/text/internal.cpp:1
qkv/text/relative.cpp:1
qkv/text/sibling.cpp:1
qkv/train/program.cpp:1
qkv/train/unknown.cpp:1'
found=$(check "$planted" | cut -d: -f1,2 | LC_ALL=C sort)
if [ "$found" != "$expected" ]; then
  echo "FAIL: the checker does not find what was planted:" >&2
  diff <(echo "$expected") <(echo "$found") >&2 || true
  exit 1
fi

offenders=$(check "$source_dir")
if [ -n "$offenders" ]; then
  echo "$offenders"
  exit 1
fi
echo "includes follow the layers"
