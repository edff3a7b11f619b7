#include "qkv/train/recipes/running_mean.h"

#include <nlohmann/json.hpp>

namespace qkv {

Json RunningMean::state() const {
  return {{"count", count}, {"mean", mean}};
}

void RunningMean::restore(const JsonView& view) {
  count = view.number("count");
  mean = view.number("mean");
}

}  // namespace qkv
