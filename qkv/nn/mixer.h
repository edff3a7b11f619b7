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
  // An empty memory of this layer.
  virtual std::unique_ptr<LayerState> make_state(const CacheOptions& options) const = 0;
  // bytes() of that memory after `tokens` tokens in passes of at most `pass_tokens`; where only a window is
  // kept, the most on the way there.
  virtual uint64_t state_bytes(const CacheOptions& options, int64_t tokens, int64_t pass_tokens) const = 0;
};

}  // namespace qkv
