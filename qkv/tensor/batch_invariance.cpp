#include "qkv/tensor/batch_invariance.h"

namespace qkv {
namespace {

thread_local bool batch_invariant_on = false;

}  // namespace

bool batch_invariant() {
  return batch_invariant_on;
}

BatchInvariant::BatchInvariant(bool on) : previous_(batch_invariant_on) {
  batch_invariant_on = on;
}

BatchInvariant::~BatchInvariant() {
  batch_invariant_on = previous_;
}

}  // namespace qkv
