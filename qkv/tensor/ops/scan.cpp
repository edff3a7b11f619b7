// Mamba's selective scan over packed sequences. A kernel call is one sequence of a range of channels; ranges
// are the unit of parallel work, and everything that belongs to a channel (the gradients of a, skip and the
// bias) is summed by one thread.
#include <cmath>

#include "qkv/tensor/ops/state_space.h"

namespace qkv::ops {
namespace {

// Channels of a range are a multiple of this, the widest vector.
constexpr int64_t kLaneChannels = 16;
// Ranges in forward: few enough channels for every thread to get some, enough to pay for widening b and c.
constexpr int64_t kForwardChannels = 64;
// Ranges in backward at most (per group at least one): each has its own sums for db and dc. A constant, not
// the thread count: the order of sums, and so the bits, must not depend on it.
constexpr int64_t kBackwardRanges = 16;

struct Range {
  int64_t group, begin, end;  // channels
  int64_t part;               // of its group
};

std::vector<Range> channel_ranges(int64_t channels, int64_t groups, int64_t parts) {
  const int64_t per_group = channels / groups;
  const int64_t width = ((per_group + parts - 1) / parts + kLaneChannels - 1) / kLaneChannels * kLaneChannels;
  std::vector<Range> ranges;
  for (int64_t g = 0; g < groups; ++g) {
    for (int64_t begin = 0; begin < per_group; begin += width) {
      ranges.push_back(
          {g, g * per_group + begin, g * per_group + std::min(per_group, begin + width), begin / width});
    }
  }
  return ranges;
}

// What the scan reads, as the kernels want it.
struct Operands {
  Tensor u, delta, z, b, c;  // activations
  Tensor rates;              // (N, D) f32
  Tensor skip, delta_bias;   // (D) f32 or undefined
  ScanOptions options;
  std::vector<int64_t> offsets;
  std::vector<int64_t> first_boundary;  // of each sequence, and their number
  int64_t channels() const { return rates.dim(1); }
  int64_t states() const { return rates.dim(0); }
  int64_t work() const { return u.rows() * channels() * states(); }

  template <typename T>
  ScanSequence<T> view(const Range& range, size_t s) const {
    ScanSequence<T> sequence;
    const int64_t at = offsets[s] * channels() + range.begin;
    const int64_t bc_at = offsets[s] * b.cols() + range.group * states();
    sequence.u = u.data<T>() + at;
    sequence.delta = delta.data<T>() + at;
    sequence.z = z.defined() ? z.data<T>() + at : nullptr;
    sequence.b = b.data<T>() + bc_at;
    sequence.c = c.data<T>() + bc_at;
    sequence.a = rates.data<float>() + range.begin;
    sequence.skip = skip.defined() ? skip.data<float>() + range.begin : nullptr;
    sequence.delta_bias = delta_bias.defined() ? delta_bias.data<float>() + range.begin : nullptr;
    sequence.tokens = offsets[s + 1] - offsets[s];
    sequence.channels = range.end - range.begin;
    sequence.states = states();
    sequence.stride = channels();
    sequence.bc_stride = b.cols();
    sequence.softplus = options.softplus;
    return sequence;
  }
};

void check(const ScanInputs& in, const ScanOptions& options) {
  const int64_t rows = in.u.rows(), channels = in.u.cols();
  require(in.a.shape().rank() == 2 && in.a.dim(0) == channels && in.a.dim(1) >= 1,
          "selective_scan: expected rates ({}, N), found {}", channels, describe(in.a));
  const int64_t states = in.a.dim(1);
  require(options.groups >= 1 && channels % options.groups == 0,
          "selective_scan: {} groups do not divide {} channels", options.groups, channels);
  detail::require_same(in.u, in.delta, "selective_scan: delta");
  if (in.z.defined()) detail::require_same(in.u, in.z, "selective_scan: z");
  for (const Tensor* t : {&in.b, &in.c}) {
    require(t->rows() == rows && t->cols() == options.groups * states && t->dtype() == in.u.dtype(),
            "selective_scan: expected b and c {} ({}, {}), found {}", name(in.u.dtype()), rows,
            options.groups * states, describe(*t));
  }
  detail::require_vector(in.skip, channels, "selective_scan: skip");
  detail::require_vector(in.delta_bias, channels, "selective_scan: delta_bias");
}

Tensor detached(const Tensor& t) {
  return t.defined() ? t.detach() : t;
}

Tensor run_forward(const Operands& in, const std::vector<Tensor>& states, Tensor& boundaries) {
  Tensor out = Tensor::empty(in.u.shape(), in.u.dtype());
  const int64_t channels = in.channels(), per_group = channels / in.options.groups;
  const std::vector<Range> ranges =
      channel_ranges(channels, in.options.groups, (per_group + kForwardChannels - 1) / kForwardChannels);
  with_float_type(in.u.dtype(), "selective_scan", [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const auto& kernel = kernels().typed<T>().ssm;
    T* y = out.data<T>();
    float* saved = boundaries.defined() ? boundaries.data<float>() : nullptr;
    // States are not the kernel's to keep where nobody asked for them: each thread has its own.
    Tensor own = states.empty() ? Tensor::empty({num_threads(), in.states(), channels}) : Tensor();
    const detail::Scratch scratch(kernel.scan_scratch_bytes(kForwardChannels, in.states()));
    detail::over_items(static_cast<int64_t>(ranges.size()), in.work(), [&](int64_t i, int thread) {
      const Range& range = ranges[static_cast<size_t>(i)];
      for (size_t s = 0; s + 1 < in.offsets.size(); ++s) {
        ScanSequence<T> sequence = in.view<T>(range, s);
        sequence.out = y + in.offsets[s] * channels + range.begin;
        if (saved != nullptr)
          sequence.boundaries = saved + in.first_boundary[s] * in.states() * channels + range.begin;
        if (states.empty()) {
          sequence.state = own.data<float>() + thread * in.states() * channels + range.begin;
          for (int64_t n = 0; n < in.states(); ++n) {
            std::fill_n(sequence.state + n * channels, range.end - range.begin, 0.0f);
          }
        } else {
          sequence.state = Tensor(states[s]).data<float>() + range.begin;
        }
        kernel.scan_forward(sequence, scratch.of(thread));
      }
    });
  });
  return out;
}

struct Gradients {
  Tensor du, ddelta, dz, db, dc;      // as their tensors
  Tensor drates, dskip, ddelta_bias;  // (N, D), (D), (D) f32
};

Gradients run_backward(const Operands& in, const Tensor& boundaries, const Tensor& dout) {
  const int64_t channels = in.channels(), states = in.states(), groups = in.options.groups;
  const std::vector<Range> ranges = channel_ranges(channels, groups, (kBackwardRanges + groups - 1) / groups);
  int64_t widest = 0, parts = 0;
  for (const Range& range : ranges) {
    widest = std::max(widest, range.end - range.begin);
    parts = std::max(parts, range.part + 1);
  }
  Gradients g;
  const DType dtype = in.u.dtype();
  g.du = Tensor::empty(in.u.shape(), dtype);
  g.ddelta = Tensor::empty(in.u.shape(), dtype);
  if (in.z.defined()) g.dz = Tensor::empty(in.u.shape(), dtype);
  g.drates = Tensor::zeros({states, channels});
  if (in.skip.defined()) g.dskip = Tensor::zeros({channels});
  if (in.delta_bias.defined()) g.ddelta_bias = Tensor::zeros({channels});
  std::vector<Tensor> db, dc;
  for (int64_t p = 0; p < parts; ++p) {
    db.push_back(Tensor::empty(in.b.shape()));
    dc.push_back(Tensor::empty(in.c.shape()));
  }
  with_float_type(dtype, "selective_scan", [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const auto& kernel = kernels().typed<T>().ssm;
    const detail::Scratch scratch(kernel.scan_scratch_bytes(widest, states));
    ScanGradients<T> all;
    all.dout = dout.data<T>();
    all.du = g.du.data<T>();
    all.ddelta = g.ddelta.data<T>();
    all.dz = in.z.defined() ? g.dz.data<T>() : nullptr;
    detail::over_items(static_cast<int64_t>(ranges.size()), in.work(), [&](int64_t i, int thread) {
      const Range& range = ranges[static_cast<size_t>(i)];
      for (size_t s = 0; s + 1 < in.offsets.size(); ++s) {
        ScanSequence<T> sequence = in.view<T>(range, s);
        sequence.boundaries = const_cast<float*>(boundaries.data<float>()) +
                              in.first_boundary[s] * states * channels + range.begin;
        const int64_t at = in.offsets[s] * channels + range.begin,
                      bc_at = in.offsets[s] * in.b.cols() + range.group * states;
        ScanGradients<T> own = all;
        own.dout += at;
        own.du += at;
        own.ddelta += at;
        if (own.dz != nullptr) own.dz += at;
        own.db = db[static_cast<size_t>(range.part)].template data<float>() + bc_at;
        own.dc = dc[static_cast<size_t>(range.part)].template data<float>() + bc_at;
        own.da = g.drates.data<float>() + range.begin;
        if (g.dskip.defined()) own.dskip = g.dskip.data<float>() + range.begin;
        if (g.ddelta_bias.defined()) own.ddelta_bias = g.ddelta_bias.data<float>() + range.begin;
        kernel.scan_backward(sequence, own, scratch.of(thread));
      }
    });
  });
  g.db = detail::sum_of_parts(std::move(db), dtype);
  g.dc = detail::sum_of_parts(std::move(dc), dtype);
  return g;
}

}  // namespace

Tensor selective_scan(const ScanInputs& in, const PackedSequences& sequences, const ScanOptions& options,
                      const std::vector<Tensor>& states) {
  check(in, options);
  detail::require_sequences(sequences, in.u.rows(), "selective_scan");
  const std::vector<Tensor> inputs = {in.u, in.delta, in.a, in.b, in.c, in.skip, in.z, in.delta_bias};
  const bool on_tape = recording(inputs);
  detail::require_states(states, sequences, {in.a.dim(1), in.a.dim(0)}, on_tape, "selective_scan");
  Operands operands{in.u.detach(),
                    in.delta.detach(),
                    detached(in.z),
                    in.b.detach(),
                    in.c.detach(),
                    detail::transposed(in.a.detach().to(DType::f32)),
                    detached(in.skip),
                    detached(in.delta_bias),
                    options,
                    sequences.offsets,
                    {0}};
  for (int64_t s = 0; s < sequences.count(); ++s) {
    const int64_t n =
        sequences.offsets[static_cast<size_t>(s) + 1] - sequences.offsets[static_cast<size_t>(s)];
    operands.first_boundary.push_back(operands.first_boundary.back() + (n + kScanChunk - 1) / kScanChunk);
  }
  Tensor boundaries;
  if (on_tape)
    boundaries = Tensor::empty({operands.first_boundary.back(), operands.states(), operands.channels()});
  Tensor y = run_forward(operands, states, boundaries);
  record("selective_scan", inputs, {&y}, [&] {
    const Saved u(in.u), delta(in.delta), z(in.z), b(in.b), c(in.c);
    operands.u = operands.delta = operands.z = operands.b = operands.c = Tensor();
    return [=, kept = operands](const std::vector<Tensor>& grads, GradientSink& sink) {
      Operands again = kept;
      again.u = u.take();
      again.delta = delta.take();
      again.z = z.take();
      again.b = b.take();
      again.c = c.take();
      Gradients g = run_backward(again, boundaries, grads[0]);
      sink.add(0, g.du);
      sink.add(1, g.ddelta);
      if (sink.needs(2)) sink.add(2, detail::transposed(g.drates));
      sink.add(3, g.db);
      sink.add(4, g.dc);
      if (g.dskip.defined()) sink.add(5, g.dskip);
      if (g.dz.defined()) sink.add(6, g.dz);
      if (g.ddelta_bias.defined()) sink.add(7, g.ddelta_bias);
    };
  });
  return y;
}

Tensor decay_rates(const Tensor& a_log) {
  Tensor y = a_log.detach().to(DType::f32);
  if (y.same_storage(a_log)) y = y.clone();
  float* values = y.data<float>();
  for (int64_t i = 0; i < y.elements(); ++i) values[i] = -std::exp(values[i]);
  record("decay_rates", {a_log}, {&y}, [&] {
    return [kept = y.detach()](const std::vector<Tensor>& grads, GradientSink& sink) {
      sink.add(0, multiply(grads[0], kept));
    };
  });
  return y;
}

}  // namespace qkv::ops
