// The mean of all numbers so far: BCO's baseline, part of a run's state.
#pragma once

#include <cstdint>

#include "qkv/core/json.h"

namespace qkv {

struct RunningMean {
  double count = 0, mean = 0;

  void add(double sum, double n) {
    if (n <= 0) return;
    count += n;
    mean += (sum - n * mean) / count;
  }
  Json state() const;
  void restore(const JsonView& view);
};

}  // namespace qkv
