// The held-out split: one hash of the fact's key.
#include "qkv/core/rng.h"
#include "qkv/data/tales.h"

namespace qkv::tales {
namespace {

// Arithmetic has few problems: a larger part of them is held out, so that there are enough to ask.
bool is_arithmetic(std::string_view key) {
  for (const std::string_view relation :
       {"sum|", "times|", "pattern|", "after|", "before|", "parity|", "count|"}) {
    if (key.starts_with(relation)) return true;
  }
  return false;
}

}  // namespace

bool held_out(std::string_view key) {
  uint64_t hash = 0xcbf29ce484222325ULL;  // FNV-1a
  for (const char c : key) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  // FNV's low bits are weak on short keys; one Philox block spreads them.
  return philox4x32(0x7A1E5ULL, 0, hash)[0] % (is_arithmetic(key) ? 5 : 8) == 0;
}

}  // namespace qkv::tales
