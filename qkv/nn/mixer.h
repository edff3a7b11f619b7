// What mixes the tokens of a sequence inside a block: attention of any kind, or a recurrence.
#pragma once

#include <memory>

#include "qkv/nn/module.h"
#include "qkv/nn/pass.h"

namespace qkv {

class Mixer : public Module {
 public:
  // x (T, C) -> (T, C). `rope`: the angles of this layer, null where positions do not turn heads. `layer`:
  // this layer's place in each sequence's state.
  virtual Tensor forward(const Tensor& x, const Pass& pass, const ops::RopeTable* rope,
                         size_t layer) const = 0;
  virtual std::unique_ptr<LayerState> make_state() const = 0;
};

}  // namespace qkv
