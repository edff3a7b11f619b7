// Language-model losses. The fused forms multiply hidden states by the vocabulary matrix a chunk of rows at a time, so that
// (T, V) logits never exist, and (like Liger kernels, arXiv 2410.10989) make the gradients while a chunk's logits are there.
#include <cmath>

#include "qkv/tensor/gemm.h"
#include "qkv/tensor/ops/detail.h"
#include "qkv/tensor/ops/weight_product.h"

namespace qkv::ops {
namespace {

// Logits of a chunk stay near this size: large enough for efficient products, small beside the weights.
constexpr int64_t kChunkBytes = int64_t{24} << 20;

int64_t chunk_rows(int64_t rows, int64_t vocabulary, const CrossEntropyOptions& options) {
  if (options.chunk_rows > 0) return std::min(rows, options.chunk_rows);
  const int64_t wanted = std::max<int64_t>(64, kChunkBytes / (4 * std::max<int64_t>(1, vocabulary)) / 16 * 16);
  return std::min(rows, wanted);
}

void check(const Tensor& h, const Tensor& w, const std::vector<int32_t>& targets, size_t weights) {
  require(h.shape().rank() == 2 && w.shape().rank() == 2 && h.cols() == w.cols(), "cross-entropy: hidden states {} do not fit the vocabulary matrix {}",
          describe(h), describe(w));
  require(static_cast<int64_t>(targets.size()) == h.rows(), "cross-entropy: expected {} targets, found {}", h.rows(), targets.size());
  require(weights == 0 || weights == targets.size(), "cross-entropy: expected {} weights, found {}", targets.size(), weights);
  for (size_t t = 0; t < targets.size(); ++t) {
    require(targets[t] == kIgnore || (0 <= targets[t] && targets[t] < w.dim(0)), "cross-entropy: target {}: expected an id below {} or {}, found {}",
            t, w.dim(0), kIgnore, targets[t]);
  }
}

// Adds the head's bias to a row of raw logits.
void add_head_bias(float* row, const Tensor& bias) {
  if (bias.defined()) kernels().f32.add(row, bias.data<float>(), row, bias.elements());
}

// Applies scale and softcap in place; with `raw` kept by the caller when backward needs the derivative.
void transform_logits(float* row, int64_t n, const CrossEntropyOptions& options) {
  if (options.logit_scale != 1) kernels().f32.scale(row, options.logit_scale, row, n);
  if (options.softcap > 0) {
    for (int64_t i = 0; i < n; ++i) row[i] = options.softcap * std::tanh(row[i] / options.softcap);
  }
}

// d raw from d transformed: the derivative of softcap * tanh(x / softcap) is 1 - (y / softcap)^2.
void transform_gradient(const float* transformed, float* gradient, int64_t n, const CrossEntropyOptions& options) {
  if (options.softcap > 0) {
    for (int64_t i = 0; i < n; ++i) {
      const float t = transformed[i] / options.softcap;
      gradient[i] *= 1 - t * t;
    }
  }
  if (options.logit_scale != 1) kernels().f32.scale(gradient, options.logit_scale, gradient, n);
}

// Walks the rows of h in chunks, computing each chunk's logits (rows, V) in f32 before calling
// body(begin, end, logits); the body may turn logits into their gradient and ask for the products with it.
class ChunkedHead {
 public:
  ChunkedHead(const Tensor& h, const Tensor& w, const CrossEntropyOptions& options)
      : h_(h.detach()), w_(w.tracks_gradient() ? w.compute_copy(h.dtype()) : w.detach()), rows_(h.rows()),
        vocabulary_(w.dim(0)), channels_(w.cols()), chunk_(chunk_rows(h.rows(), w.dim(0), options)) {
    logits_ = Tensor::empty({std::max<int64_t>(1, chunk_), vocabulary_});
  }

  template <typename Body>
  void run(Body&& body) {
    for (int64_t begin = 0; begin < rows_; begin += chunk_) {
      const int64_t end = std::min(rows_, begin + chunk_);
      Tensor part = logits_.row_view(0, end - begin);
      detail::weight_product(h_.row_view(begin, end), w_, part);
      body(begin, end, logits_.data<float>());
    }
  }

  // dh[begin, end) = d w and dw += d^T h, for d (end - begin, V) = the gradient of the chunk's logits, in the logits' memory.
  void gradients(int64_t begin, int64_t end, Tensor& dh, float* dw, bool accumulate_dw) {
    const int64_t n = end - begin;
    Tensor d = logits_.row_view(0, n);
    if (h_.dtype() != DType::f32) d = d.to(h_.dtype());
    if (dh.defined()) {
      Tensor part = dh.row_view(begin, end);
      detail::weight_product_backward(d, w_, part, false);
    }
    if (dw != nullptr) {
      const Tensor part = h_.row_view(begin, end);
      gemm(vocabulary_, channels_, n, {d.raw(), d.dtype(), vocabulary_, true}, {part.raw(), part.dtype(), channels_, false}, dw,
           DType::f32, channels_, accumulate_dw);
    }
  }

  int64_t vocabulary() const { return vocabulary_; }

 private:
  Tensor h_, w_, logits_;
  int64_t rows_, vocabulary_, channels_, chunk_;
};

// One row: its loss, and the logits turned into d loss / d raw logits times `weight` if wanted.
float row_loss(float* row, int64_t vocabulary, int32_t target, float weight, const CrossEntropyOptions& options, bool gradient,
               std::vector<float>& transformed) {
  if (target == kIgnore || weight == 0) {
    if (gradient) std::fill(row, row + vocabulary, 0.0f);
    return 0;
  }
  transform_logits(row, vocabulary, options);
  if (gradient && options.softcap > 0) transformed.assign(row, row + vocabulary);
  const float loss = kernels().cross_entropy(row, vocabulary, target, options.label_smoothing, options.z_loss, gradient, weight, nullptr);
  if (gradient) transform_gradient(transformed.data(), row, vocabulary, options);
  return loss * weight;
}

// bias gradient += the column sums of a chunk's gradients.
void sum_columns(const float* logits, int64_t rows, Tensor& gradient) {
  const int64_t cols = gradient.elements();
  detail::RowReduction sums(rows, cols);
  sums.run([&](int64_t begin, int64_t end, float* partial) { kernels().f32.sum_rows(logits + begin * cols, partial, end - begin, cols); });
  sums.add_to(gradient.data<float>(), 0, cols);
}

// Written by the first chunk, or zero if there is none.
Tensor gradient_of_weight(Shape shape, const std::vector<int32_t>& targets) {
  return targets.empty() ? Tensor::zeros(shape) : Tensor::empty(shape);
}

void multiply_in_place(Tensor& t, float factor) {
  if (factor == 1) return;
  with_float_type(t.dtype(), "cross-entropy", [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    T* data = t.data<T>();
    parallel_for(t.elements(), detail::kElementGrain,
                 [&](int64_t begin, int64_t end) { kernels().typed<T>().scale(data + begin, factor, data + begin, end - begin); });
  });
}

}  // namespace

Tensor linear_cross_entropy(const Tensor& h, const Tensor& w, const std::vector<int32_t>& targets,
                            const CrossEntropyOptions& options, const std::vector<float>& weights, const Tensor& bias) {
  check(h, w, targets, weights.size());
  detail::require_vector(bias, w.dim(0), "cross-entropy: head bias");
  const bool on_tape = recording({h, w, bias});
  const bool h_wanted = on_tape && h.tracks_gradient(), w_wanted = on_tape && w.tracks_gradient();
  Tensor dh = h_wanted ? Tensor::empty(h.shape(), h.dtype()) : Tensor();
  Tensor dw = w_wanted ? gradient_of_weight(w.shape(), targets) : Tensor();
  Tensor dbias = on_tape && bias.tracks_gradient() ? Tensor::zeros(bias.shape()) : Tensor();
  std::vector<double> losses(targets.size());
  ChunkedHead head(h, w, options);
  head.run([&](int64_t begin, int64_t end, float* logits) {
    parallel_for(end - begin, 1, [&](int64_t first, int64_t last) {
      std::vector<float> transformed;
      for (int64_t r = first; r < last; ++r) {
        const auto t = static_cast<size_t>(begin + r);
        add_head_bias(logits + r * head.vocabulary(), bias);
        losses[t] = row_loss(logits + r * head.vocabulary(), head.vocabulary(), targets[t], weights.empty() ? 1.0f : weights[t],
                             options, on_tape, transformed);
      }
    });
    if (dbias.defined()) sum_columns(logits, end - begin, dbias);
    if (on_tape) head.gradients(begin, end, dh, w_wanted ? dw.data<float>() : nullptr, begin > 0);
  });
  double total = 0;
  for (double loss : losses) total += loss;
  Tensor result = Tensor::full({1}, static_cast<float>(total));
  record("linear_cross_entropy", {h, w, bias}, {&result}, [&] {
    const auto kept_dh = std::make_shared<Tensor>(std::move(dh)), kept_dw = std::make_shared<Tensor>(std::move(dw)),
               kept_dbias = std::make_shared<Tensor>(std::move(dbias));
    return [=](const std::vector<Tensor>& grads, GradientSink& sink) {
      const float factor = grads[0].item();
      for (const auto& [input, kept] : {std::pair{size_t{0}, kept_dh}, std::pair{size_t{1}, kept_dw}, std::pair{size_t{2}, kept_dbias}}) {
        if (!kept->defined()) continue;
        multiply_in_place(*kept, factor);
        sink.add(input, std::move(*kept));
      }
    };
  });
  return result;
}

Tensor linear_log_probs(const Tensor& h, const Tensor& w, const std::vector<int32_t>& targets, const CrossEntropyOptions& options,
                        const Tensor& bias) {
  check(h, w, targets, 0);
  detail::require_vector(bias, w.dim(0), "linear_log_probs: head bias");
  require(options.label_smoothing == 0 && options.z_loss == 0, "linear_log_probs: label smoothing and z-loss do not apply");
  Tensor result = Tensor::zeros({h.rows()});
  const auto run = [targets, options](const Tensor& hidden, const Tensor& weight, const Tensor& head_bias, const float* upstream,
                                      float* out, Tensor& dh, Tensor& dw, Tensor& dbias) {
    ChunkedHead head(hidden, weight, options);
    head.run([&](int64_t begin, int64_t end, float* logits) {
      parallel_for(end - begin, 1, [&](int64_t first, int64_t last) {
        std::vector<float> transformed;
        for (int64_t r = first; r < last; ++r) {
          const auto t = static_cast<size_t>(begin + r);
          // log p = -cross-entropy, so its gradient is the loss's with weight -upstream.
          add_head_bias(logits + r * head.vocabulary(), head_bias);
          const float weight_of_row = upstream == nullptr ? 1.0f : -upstream[t];
          const float loss = row_loss(logits + r * head.vocabulary(), head.vocabulary(), targets[t], weight_of_row, options,
                                      upstream != nullptr, transformed);
          if (out != nullptr) out[t] = -loss;
        }
      });
      if (dbias.defined()) sum_columns(logits, end - begin, dbias);
      if (upstream != nullptr) head.gradients(begin, end, dh, dw.defined() ? dw.data<float>() : nullptr, begin > 0);
    });
  };
  Tensor none;
  run(h, w, bias, nullptr, result.data<float>(), none, none, none);
  record("linear_log_probs", {h, w, bias}, {&result}, [&] {
    const Saved saved(h);
    return [=, weight = w, head_bias = bias](const std::vector<Tensor>& grads, GradientSink& sink) {
      const Tensor hidden = saved.take();
      Tensor dh = sink.needs(0) ? Tensor::empty(hidden.shape(), hidden.dtype()) : Tensor();
      Tensor dw = sink.needs(1) ? gradient_of_weight(weight.shape(), targets) : Tensor();
      Tensor dbias = sink.needs(2) ? Tensor::zeros(head_bias.shape()) : Tensor();
      run(hidden, weight, head_bias, grads[0].data<float>(), nullptr, dh, dw, dbias);
      if (dh.defined()) sink.add(0, std::move(dh));
      if (dw.defined()) sink.add(1, std::move(dw));
      if (dbias.defined()) sink.add(2, std::move(dbias));
    };
  });
  return result;
}

Tensor cross_entropy(const Tensor& logits, const std::vector<int32_t>& targets, const CrossEntropyOptions& options) {
  const int64_t rows = logits.rows(), vocabulary = logits.cols();
  require(static_cast<int64_t>(targets.size()) == rows, "cross-entropy: expected {} targets, found {}", rows, targets.size());
  for (int32_t target : targets) {
    require(target == kIgnore || (0 <= target && target < vocabulary), "cross-entropy: expected targets below {}, found {}", vocabulary, target);
  }
  const bool on_tape = recording({logits});
  Tensor work = logits.detach().to(DType::f32);
  if (work.same_storage(logits)) work = work.clone();
  std::vector<double> losses(targets.size());
  parallel_for(rows, 1, [&](int64_t first, int64_t last) {
    std::vector<float> transformed;
    for (int64_t r = first; r < last; ++r) {
      losses[static_cast<size_t>(r)] = row_loss(work.data<float>() + r * vocabulary, vocabulary, targets[static_cast<size_t>(r)], 1.0f,
                                                options, on_tape, transformed);
    }
  });
  double total = 0;
  for (double loss : losses) total += loss;
  Tensor result = Tensor::full({1}, static_cast<float>(total));
  record("cross_entropy", {logits}, {&result}, [&] {
    return [=](const std::vector<Tensor>& grads, GradientSink& sink) {
      Tensor d = work;
      multiply_in_place(d, grads[0].item());
      sink.add(0, d);
    };
  });
  return result;
}

}  // namespace qkv::ops
