#include "qkv/nn/pass.h"

namespace qkv {

Pass Pass::whole(const std::vector<int64_t>& lengths) {
  Pass pass;
  pass.sequences.offsets = {0};
  for (int64_t length : lengths) {
    for (int64_t i = 0; i < length; ++i) pass.positions.push_back(static_cast<int32_t>(i));
    pass.sequences.offsets.push_back(pass.sequences.offsets.back() + length);
  }
  return pass;
}

Pass Pass::next(SequenceState& state, int64_t n) {
  Pass pass;
  pass.sequences.offsets = {0, n};
  for (int64_t i = 0; i < n; ++i) pass.positions.push_back(static_cast<int32_t>(state.length + i));
  pass.states = {&state};
  return pass;
}

}  // namespace qkv
