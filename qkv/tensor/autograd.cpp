#include "qkv/tensor/autograd.h"

#include <atomic>
#include <map>

#include "qkv/core/error.h"
#include "qkv/core/parallel.h"
#include "qkv/kernels/kernels.h"
#include "qkv/tensor/tensor_impl.h"

namespace qkv {
namespace {

thread_local bool gradient_mode_on = true;
// Shared by all threads, so that a tape may join what several of them recorded.
std::atomic<uint64_t> next_sequence{1};

// sum = sum + gradient, in place when nobody else holds sum's data.
void add_into(Tensor& sum, const Tensor& gradient) {
  Tensor target = TensorAccess::unique(sum) ? sum : Tensor::empty(sum.shape(), sum.dtype(), sum.device());
  with_float_type(sum.dtype(), "gradient", [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const T* a = sum.data<T>();
    const T* b = gradient.data<T>();
    T* y = target.data<T>();
    parallel_for(sum.elements(), 1 << 15, [&](int64_t begin, int64_t end) {
      kernels().typed<T>().add(a + begin, b + begin, y + begin, end - begin);
    });
  });
  sum = std::move(target);
}

// Gradients waiting for each node that still has to run.
class Walk {
 public:
  struct Pending {
    std::shared_ptr<Node> node;
    std::vector<Tensor> gradients;  // per output
  };

  Tensor& slot(const Tensor& target) {
    auto& impl = TensorAccess::impl(target);
    if (!impl.node) return impl.grad;
    auto& entry = waiting_[impl.node->sequence];
    if (!entry.node) {
      entry.node = impl.node;
      entry.gradients.resize(impl.node->n_outputs);
    }
    return entry.gradients[impl.output_index];
  }

  bool empty() const { return waiting_.empty(); }

  Pending pop_newest() {
    auto last = std::prev(waiting_.end());
    Pending result = std::move(last->second);
    waiting_.erase(last);
    return result;
  }

 private:
  std::map<uint64_t, Pending> waiting_;  // by sequence number
};

class Sink : public GradientSink {
 public:
  Sink(Walk& walk, const Node& node) : walk_(walk), node_(node) {}

  bool needs(size_t input) const override { return node_.inputs[input].tracks_gradient(); }

  void add(size_t input, Tensor gradient) override {
    if (!needs(input)) return;
    const Tensor& target = node_.inputs[input];
    require(gradient.shape() == target.shape(), "autograd: {}: gradient of input {}: expected shape {}, found {}", node_.name,
            input, target.shape().str(), describe(gradient));
    gradient = gradient.to(gradient_dtype(target));
    // A leaf keeps its gradient, to be scaled in place by whoever owns it: never memory that something else sees.
    if (!target.node() && !TensorAccess::unique(gradient)) gradient = gradient.clone();
    Tensor& slot = walk_.slot(target);
    if (slot.defined()) {
      add_into(slot, gradient);
    } else {
      slot = std::move(gradient);
    }
  }

  Buffer buffer(size_t input) override {
    const Tensor& target = node_.inputs[input];
    Tensor& slot = walk_.slot(target);
    const bool accumulate = slot.defined();
    if (!accumulate) {
      slot = Tensor::empty(target.shape(), gradient_dtype(target), target.device());
    } else if (!TensorAccess::unique(slot)) {
      slot = slot.clone();
    }
    return {slot, accumulate};
  }

 private:
  // Leaves collect in float whatever they are stored as; inner gradients have the activation's type.
  static DType gradient_dtype(const Tensor& target) { return target.node() ? target.dtype() : DType::f32; }

  Walk& walk_;
  const Node& node_;
};

// What the tape keeps of an input: where its gradient goes. Its data lives on only if a backward saved it.
Tensor place_of(const Tensor& input) {
  if (!input.tracks_gradient()) return {};
  const TensorAccess::Impl& impl = TensorAccess::impl(input);
  if (!impl.node) return input;  // a leaf holds its own gradient
  auto place = std::make_shared<TensorAccess::Impl>();
  place->shape = impl.shape;
  place->type = impl.type;
  place->device = impl.device;
  place->node = impl.node;
  place->output_index = impl.output_index;
  return TensorAccess::make(std::move(place));
}

class WithGradientMode {
 public:
  explicit WithGradientMode(bool on) : previous_(gradient_mode_on) { gradient_mode_on = on; }
  ~WithGradientMode() { gradient_mode_on = previous_; }
  WithGradientMode(const WithGradientMode&) = delete;
  WithGradientMode& operator=(const WithGradientMode&) = delete;

 private:
  bool previous_;
};

}  // namespace

Tensor GradientSink::zeroed(size_t input) {
  Buffer lent = buffer(input);
  if (!lent.accumulate) lent.tensor.fill(0);
  return lent.tensor;
}

bool recording(const std::vector<Tensor>& inputs) {
  if (!gradient_mode_on) return false;
  for (const auto& input : inputs) {
    if (input.tracks_gradient()) return true;
  }
  return false;
}

void record(const char* name, const std::vector<Tensor>& inputs, std::vector<Tensor*> outputs,
            const std::function<BackwardFunction()>& make_backward) {
  if (!recording(inputs)) return;
  auto node = std::make_shared<Node>();
  node->name = name;
  node->sequence = next_sequence++;
  node->inputs.reserve(inputs.size());
  for (const auto& input : inputs) node->inputs.push_back(place_of(input));
  node->n_outputs = outputs.size();
  node->backward = make_backward();
  for (size_t i = 0; i < outputs.size(); ++i) {
    auto& impl = TensorAccess::impl(*outputs[i]);
    impl.node = node;
    impl.output_index = i;
  }
}

bool gradient_mode() { return gradient_mode_on; }
NoGrad::NoGrad() : previous_(gradient_mode_on) { gradient_mode_on = false; }
NoGrad::~NoGrad() { gradient_mode_on = previous_; }

void backward(const Tensor& loss, Tensor gradient) {
  require(loss.tracks_gradient(), "autograd: backward of a tensor that depends on no parameter");
  if (!gradient.defined()) {
    require(loss.elements() == 1, "autograd: backward without a gradient: expected one element, found {}", describe(loss));
    gradient = Tensor::full(loss.shape(), 1.0f, loss.dtype());
  }
  require(gradient.shape() == loss.shape(), "autograd: gradient of the loss: expected shape {}, found {}", loss.shape().str(),
          describe(gradient));
  const WithGradientMode off(false);
  if (!loss.node()) {  // a leaf: its own gradient
    Tensor& sum = TensorAccess::impl(loss).grad;
    gradient = gradient.to(DType::f32);
    if (sum.defined()) {
      add_into(sum, gradient);
    } else {
      sum = gradient.clone();
    }
    return;
  }
  Walk walk;
  walk.slot(loss) = gradient.to(loss.dtype());
  while (!walk.empty()) {
    Walk::Pending pending = walk.pop_newest();
    Node& node = *pending.node;
    require(node.backward != nullptr, "autograd: {}: backward ran through this tape already", node.name);
    Sink sink(walk, node);
    const BackwardFunction run = std::move(node.backward);
    node.backward = nullptr;
    run(pending.gradients, sink);
    node.inputs.clear();
  }
}

Tensor Recompute::take() {
  if (!made_.defined()) made_ = make_();
  Tensor result = made_;
  if (--users_ <= 0) {
    made_ = Tensor();
    make_ = nullptr;
  }
  return result;
}

void set_recompute(Tensor& output, std::function<Tensor()> make) {
  TensorAccess::impl(output).recompute = std::make_shared<Recompute>(std::move(make));
}

Saved::Saved(const Tensor& tensor) {
  if (!tensor.defined()) return;
  recompute_ = TensorAccess::impl(tensor).recompute;
  if (recompute_) {
    recompute_->add_user();
  } else {
    tensor_ = tensor.detach();  // without its node, or a node that saves its output would own itself
  }
}

Tensor Saved::take() const { return recompute_ ? recompute_->take() : tensor_; }

Tensor checkpoint(const std::function<Tensor(const std::vector<Tensor>&)>& body, const std::vector<Tensor>& inputs) {
  if (!recording(inputs)) return body(inputs);
  Tensor output;
  {
    const NoGrad off;
    output = body(inputs).detach();
  }
  record("checkpoint", inputs, {&output}, [&] {
    std::vector<Saved> saved;
    std::vector<bool> inner;
    saved.reserve(inputs.size());
    for (const auto& input : inputs) {
      saved.emplace_back(input);
      inner.push_back(input.node() != nullptr);
    }
    return [body, saved, inner](const std::vector<Tensor>& grads, GradientSink& sink) {
      std::vector<Tensor> again, gradients(saved.size());
      {
        const WithGradientMode on(true);
        for (size_t i = 0; i < saved.size(); ++i) {
          Tensor leaf = saved[i].take().detach();
          if (sink.needs(i)) leaf.set_requires_grad(true);
          again.push_back(leaf);
          if (!leaf.requires_grad() || !inner[i]) continue;
          // What was the output of an op is one here, too: its gradient keeps the activation's type, as without a checkpoint.
          again.back() = leaf.detach();
          record("checkpoint input", {leaf}, {&again.back()}, [&gradient = gradients[i]] {
            return [&gradient](const std::vector<Tensor>& arrived, GradientSink&) { gradient = arrived[0]; };
          });
        }
        const Tensor output_again = body(again);
        if (!output_again.tracks_gradient()) return;
        backward(output_again, grads[0]);
      }
      for (size_t i = 0; i < again.size(); ++i) {
        Tensor gradient = inner[i] ? std::move(gradients[i]) : again[i].grad();
        if (sink.needs(i) && gradient.defined()) sink.add(i, std::move(gradient));
      }
    };
  });
  return output;
}

}  // namespace qkv
