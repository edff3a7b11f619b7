// Counts how deep a running template is in statements, expressions and macro calls.
#pragma once

#include "qkv/text/jinja/interpreter.h"

namespace qkv::jinja {

class Interpreter::Depth {
 public:
  explicit Depth(Interpreter& interpreter) : interpreter_(interpreter) {
    if (interpreter_.depth_ >= interpreter_.limits_.max_depth)
      fail_as(FailureKind::limit, "macros, blocks and expressions nest deeper than {} levels",
              interpreter_.limits_.max_depth);
    ++interpreter_.depth_;
  }
  ~Depth() { --interpreter_.depth_; }
  Depth(const Depth&) = delete;
  Depth& operator=(const Depth&) = delete;

 private:
  Interpreter& interpreter_;
};

}  // namespace qkv::jinja
