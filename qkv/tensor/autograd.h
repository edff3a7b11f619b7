// The tape. record() is the only place where a node is made: gradient mode on, and some input on the tape.
//
// backward() walks nodes from the newest to the oldest, so each runs once, after everything that used its output; a node's
// saved tensors are dropped as soon as it has run.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "qkv/tensor/tensor.h"

namespace qkv {

// Receives the gradients of a node's inputs. Accumulation is in place where possible: `buffer` lends the running sum.
class GradientSink {
 public:
  virtual ~GradientSink() = default;
  // Whether input i is on the tape; its gradient need not be computed otherwise.
  virtual bool needs(size_t input) const = 0;
  // Adds `gradient` (the input's shape) to the input's gradient. The tensor may be kept and written to later.
  virtual void add(size_t input, Tensor gradient) = 0;
  struct Buffer {
    Tensor tensor;    // the input's gradient so far, or uninitialized memory of its shape and dtype
    bool accumulate;  // true: add to what is there; false: overwrite all of it
  };
  // The input's gradient for the op to write itself (a matrix product that accumulates).
  virtual Buffer buffer(size_t input) = 0;
  // Like buffer, but always safe to add to: zeroed when new.
  Tensor zeroed(size_t input);
};

// grad_outputs[i] is undefined when output i did not contribute to the loss.
using BackwardFunction = std::function<void(const std::vector<Tensor>& grad_outputs, GradientSink& sink)>;

struct Node {
  const char* name = "";
  uint64_t sequence = 0;
  std::vector<Tensor> inputs;  // leaves; for outputs of other nodes their place without data; undefined if off the tape
  size_t n_outputs = 1;
  BackwardFunction backward;
};

// Makes outputs[i] the outputs of one node, if gradient mode is on and some input tracks gradients. `make_backward` is
// called only then, so that what backward needs is saved only then.
void record(const char* name, const std::vector<Tensor>& inputs, std::vector<Tensor*> outputs,
            const std::function<BackwardFunction()>& make_backward);

// Whether record() would make a node for these inputs.
bool recording(const std::vector<Tensor>& inputs);

bool gradient_mode();
// Off the tape while alive; per thread.
class NoGrad {
 public:
  NoGrad();
  ~NoGrad();
  NoGrad(const NoGrad&) = delete;
  NoGrad& operator=(const NoGrad&) = delete;

 private:
  bool previous_;
};

// Gradients of `loss` (one element; or with `gradient` given, of any shape) with respect to every leaf are added to the
// leaves' grad(). The tape below is consumed.
void backward(const Tensor& loss, Tensor gradient = {});

// How to make a tensor's data again: set by cheap ops (norms, gated activations) on their outputs, so that what is saved
// for backward can be dropped and recomputed instead of held.
class Recompute {
 public:
  explicit Recompute(std::function<Tensor()> make) : make_(std::move(make)) {}
  // Call once per saver in forward...
  void add_user() { ++users_; }
  // ...and once per saver in backward: recomputes for the first, keeps the data for the rest, drops it after the last.
  Tensor take();

 private:
  std::function<Tensor()> make_;
  Tensor made_;
  int users_ = 0;
};
void set_recompute(Tensor& output, std::function<Tensor()> make);

// A tensor kept for backward. Holds the tensor's data, or only the means to make it again.
class Saved {
 public:
  Saved() = default;
  explicit Saved(const Tensor& tensor);
  // The data, off the tape. Call once.
  Tensor take() const;

 private:
  Tensor tensor_;
  std::shared_ptr<Recompute> recompute_;
};

// Activation checkpointing (Chen et al., arXiv 1604.06174): runs `body` off the tape, keeps only its inputs, and runs it
// again on the tape during backward. `body` must be a pure function of its inputs and of leaves it captures (parameters,
// which get their gradients); it may draw random numbers only from generators it makes itself. Some input must be on the
// tape, or nothing is recorded.
Tensor checkpoint(const std::function<Tensor(const std::vector<Tensor>&)>& body, const std::vector<Tensor>& inputs);

}  // namespace qkv
