// Mamba-2's chunked products over packed sequences, in three passes: what every chunk adds to the state (in
// parallel), the states passed from chunk to chunk, and every chunk's outputs from the state before it (in
// parallel). Backward likewise, the other way round.
#include <cstring>

#include "qkv/tensor/ops/state_space.h"

namespace qkv::ops {
namespace {

// A sequence that goes on from its state with at most this many tokens is taken token by token: below, the
// products of a chunk cost more than they save.
constexpr int64_t kRecurrentTokens = 16;
// Items of parallel work to aim for by splitting the heads of a group. A constant, not the thread count: in
// backward each part has its own sums for db and dc, and the order of sums must not depend on it.
constexpr int64_t kItems = 16;

// Heads [head_begin, head_end) of one group in one chunk.
struct Item {
  size_t sequence;
  int64_t group, head_begin, head_end;
  int64_t begin, end;  // tokens
  int64_t chunk;       // counted over all sequences
  int64_t slot;        // place of the state after it; that of the state before it is the one in front
  bool first, last;    // of its sequence
  int64_t part;        // of its group
};

struct Operands {
  Tensor x, b, c;  // activations
  Tensor dt;       // (T, H) f32: the steps
  Tensor a, skip;  // (H) f32; skip may be undefined
  std::vector<int64_t> offsets;
  int64_t groups = 1;
  int64_t heads() const { return dt.cols(); }
  int64_t head_dim() const { return x.cols() / heads(); }
  int64_t states() const { return b.cols() / groups; }
  int64_t head_state() const { return states() * head_dim(); }
  int64_t state() const { return heads() * head_state(); }
  int64_t work() const { return x.elements() * states(); }

  template <typename T>
  SsdChunk<T> view(const Item& item) const {
    SsdChunk<T> chunk;
    chunk.x = x.data<T>() + item.begin * x.cols() + item.head_begin * head_dim();
    chunk.b = b.data<T>() + item.begin * b.cols() + item.group * states();
    chunk.c = c.data<T>() + item.begin * c.cols() + item.group * states();
    chunk.dt = dt.data<float>() + item.begin * heads() + item.head_begin;
    chunk.a = a.data<float>() + item.head_begin;
    chunk.skip = skip.defined() ? skip.data<float>() + item.head_begin : nullptr;
    chunk.tokens = item.end - item.begin;
    chunk.heads = item.head_end - item.head_begin;
    chunk.head_dim = head_dim();
    chunk.states = states();
    chunk.x_stride = x.cols();
    chunk.bc_stride = b.cols();
    chunk.dt_stride = heads();
    return chunk;
  }
};

// The chunks of one sequence. There is a slot for the state after each but the last, which backward does not
// need.
struct SequencePlan {
  size_t sequence;
  int64_t first_chunk, chunks, first_slot;
};

struct Plan {
  std::vector<SequencePlan> sequences;
  std::vector<Item> items;  // chunk by chunk
  int64_t chunks = 0, slots = 0, parts = 1;
};

// Chunks of the sequences that have tokens and are `wanted`.
template <typename Wanted>
Plan plan_chunks(const Operands& in, Wanted&& wanted) {
  Plan plan;
  std::vector<Item> chunks;
  for (size_t s = 0; s + 1 < in.offsets.size(); ++s) {
    const int64_t begin = in.offsets[s], end = in.offsets[s + 1],
                  n = (end - begin + kSsdChunk - 1) / kSsdChunk;
    if (n == 0 || !wanted(s)) continue;
    plan.sequences.push_back({s, plan.chunks, n, plan.slots});
    for (int64_t i = 0; i < n; ++i) {
      const int64_t t = begin + i * kSsdChunk;
      chunks.push_back({s, 0, 0, 0, t, std::min(end, t + kSsdChunk), plan.chunks + i, plan.slots + i, i == 0,
                        i == n - 1, 0});
    }
    plan.chunks += n;
    plan.slots += n - 1;
  }
  const int64_t per_group = in.heads() / in.groups, whole = std::max<int64_t>(1, plan.chunks * in.groups);
  plan.parts = std::clamp<int64_t>((kItems + whole - 1) / whole, 1, per_group);
  for (const Item& chunk : chunks) {
    for (int64_t g = 0; g < in.groups; ++g) {
      for (int64_t p = 0; p < plan.parts; ++p) {
        Item item = chunk;
        item.group = g;
        item.part = p;
        item.head_begin = g * per_group + per_group * p / plan.parts;
        item.head_end = g * per_group + per_group * (p + 1) / plan.parts;
        plan.items.push_back(item);
      }
    }
  }
  return plan;
}

// Calls body(chunk's view, item, scratch) for every item.
template <typename T, typename Body>
void over_chunks(const Operands& in, const Plan& plan, Body&& body) {
  const detail::Scratch scratch(kernels().typed<T>().ssm.ssd_scratch_bytes(in.head_dim(), in.states()));
  detail::over_items(static_cast<int64_t>(plan.items.size()), in.work(), [&](int64_t i, int thread) {
    const Item& item = plan.items[static_cast<size_t>(i)];
    body(in.view<T>(item), item, scratch.of(thread));
  });
}

// Runs body(begin, end) over pieces of every head's state: body gets the head and the element range of it.
template <typename Body>
void over_heads(const Operands& in, Body&& body) {
  const int64_t n = in.head_state();
  parallel_for(in.heads(), std::max<int64_t>(1, detail::kElementGrain / std::max<int64_t>(1, n)),
               [&](int64_t first, int64_t last) {
                 for (int64_t head = first; head < last; ++head) body(head, head * n, n);
               });
}

// The states after all chunks but the last of each sequence (slots, H, N, P). With `initial` states (one per
// sequence) the last ones, too: last[i] is that of plan.sequences[i].
Tensor states_after_chunks(const Operands& in, const Plan& plan, const std::vector<Tensor>& initial,
                           Tensor& last) {
  Tensor after = Tensor::empty({plan.slots, in.state()}), decays = Tensor::empty({plan.chunks, in.heads()});
  if (!initial.empty()) last = Tensor::empty({static_cast<int64_t>(plan.sequences.size()), in.state()});
  float* slots = after.data<float>();
  float* decay = decays.data<float>();
  std::vector<float*> last_of(in.offsets.size());  // by sequence
  for (size_t i = 0; i < plan.sequences.size() && !initial.empty(); ++i) {
    last_of[plan.sequences[i].sequence] = last.data<float>() + static_cast<int64_t>(i) * in.state();
  }
  with_float_type(in.x.dtype(), "ssd", [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    over_chunks<T>(in, plan, [&](const SsdChunk<T>& chunk, const Item& item, void* scratch) {
      float* to = item.last ? last_of[item.sequence] : slots + item.slot * in.state();
      if (to == nullptr) return;
      kernels().typed<T>().ssm.ssd_state(chunk, to + item.head_begin * in.head_state(),
                                         decay + item.chunk * in.heads() + item.head_begin, scratch);
    });
  });
  over_heads(in, [&](int64_t head, int64_t at, int64_t n) {
    for (const SequencePlan& s : plan.sequences) {
      const float* before = initial.empty() ? nullptr : initial[s.sequence].data<float>();
      for (int64_t i = 0; i < s.chunks; ++i) {
        float* to = i + 1 < s.chunks ? slots + (s.first_slot + i) * in.state() : last_of[s.sequence];
        if (before != nullptr && to != nullptr) {
          kernels().axpy(decay[(s.first_chunk + i) * in.heads() + head], before + at, to + at, n);
        }
        before = to;
      }
    }
  });
  return after;
}

// Few tokens of sequences that go on from their states. Each head of each sequence is an item of its own.
template <typename T>
void run_recurrent(const Operands& in, const std::vector<size_t>& sequences,
                   const std::vector<Tensor>& states, T* y) {
  const int64_t count = static_cast<int64_t>(sequences.size()) * in.heads();
  detail::over_items(count, in.work(), [&](int64_t i, int) {
    const size_t s = sequences[static_cast<size_t>(i / in.heads())];
    const int64_t head = i % in.heads();
    Item item{};
    item.group = head / (in.heads() / in.groups);
    item.head_begin = head;
    item.head_end = head + 1;
    item.begin = in.offsets[s];
    item.end = in.offsets[s + 1];
    SsdChunk<T> chunk = in.view<T>(item);
    chunk.y = y + item.begin * in.x.cols() + head * in.head_dim();
    kernels().typed<T>().ssm.ssd_recurrent(chunk, Tensor(states[s]).data<float>() + head * in.head_state());
  });
}

// y; `after` receives what backward needs. States of sequences go on if there are any.
Tensor run_forward(const Operands& in, const std::vector<Tensor>& states, Tensor& after) {
  Tensor y = Tensor::empty(in.x.shape(), in.x.dtype()), last;
  const auto few = [&](size_t s) {
    return !states.empty() && in.offsets[s + 1] - in.offsets[s] <= kRecurrentTokens;
  };
  const Plan plan = plan_chunks(in, [&](size_t s) { return !few(s); });
  after = states_after_chunks(in, plan, states, last);
  with_float_type(in.x.dtype(), "ssd", [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    T* out = y.data<T>();
    over_chunks<T>(in, plan, [&](SsdChunk<T> chunk, const Item& item, void* scratch) {
      chunk.y = out + item.begin * in.x.cols() + item.head_begin * in.head_dim();
      const float* before = !item.first      ? after.data<float>() + (item.slot - 1) * in.state()
                            : states.empty() ? nullptr
                                             : states[item.sequence].data<float>();
      kernels().typed<T>().ssm.ssd_output(
          chunk, before == nullptr ? nullptr : before + item.head_begin * in.head_state(), scratch);
    });
    std::vector<size_t> short_ones;
    for (size_t s = 0; s < states.size(); ++s) {
      if (few(s)) short_ones.push_back(s);
    }
    run_recurrent<T>(in, short_ones, states, out);
  });
  for (size_t i = 0; i < plan.sequences.size() && !states.empty(); ++i) {
    Tensor state = states[plan.sequences[i].sequence];
    std::memcpy(state.raw(), last.data<float>() + static_cast<int64_t>(i) * in.state(), state.bytes());
  }
  return y;
}

struct Gradients {
  Tensor dx, db, dc;  // as their tensors
  Tensor ddt;         // (T, H) f32, of the steps
  Tensor da, dskip;   // (H) f32
};

// The gradients of the states in the slots.
template <typename T>
Tensor gradients_of_slots(const Operands& in, const Plan& plan, const Tensor& dout) {
  Tensor dafter = Tensor::empty({plan.slots, in.state()}), decays = Tensor::empty({plan.chunks, in.heads()});
  float* slots = dafter.data<float>();
  float* decay = decays.data<float>();
  over_chunks<T>(in, plan, [&](const SsdChunk<T>& chunk, const Item& item, void* scratch) {
    if (item.first) return;
    const T* dy = dout.data<T>() + item.begin * in.x.cols() + item.head_begin * in.head_dim();
    kernels().typed<T>().ssm.ssd_state_backward(
        chunk, dy, slots + (item.slot - 1) * in.state() + item.head_begin * in.head_state(),
        decay + item.chunk * in.heads() + item.head_begin, scratch);
  });
  over_heads(in, [&](int64_t head, int64_t at, int64_t n) {
    for (const SequencePlan& s : plan.sequences) {
      for (int64_t i = s.chunks - 2; i >= 1; --i) {
        float* to = slots + (s.first_slot + i - 1) * in.state() + at;
        kernels().axpy(decay[(s.first_chunk + i) * in.heads() + head], to + in.state(), to, n);
      }
    }
  });
  return dafter;
}

Gradients run_backward(const Operands& in, const Tensor& after, const Tensor& dout) {
  Gradients g;
  const Plan plan = plan_chunks(in, [](size_t) { return true; });
  g.dx = Tensor::empty(in.x.shape(), in.x.dtype());
  g.ddt = Tensor::empty(in.dt.shape());
  Tensor da = Tensor::empty({std::max<int64_t>(1, plan.chunks), in.heads()}),
         dskip = Tensor::empty(da.shape());
  std::vector<Tensor> db, dc;
  for (int64_t p = 0; p < plan.parts; ++p) {
    db.push_back(Tensor::empty(in.b.shape()));
    dc.push_back(Tensor::empty(in.c.shape()));
  }
  with_float_type(in.x.dtype(), "ssd", [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const Tensor dafter = gradients_of_slots<T>(in, plan, dout);
    SsdGradients<T> all;
    all.dy = dout.data<T>();
    all.dx = g.dx.data<T>();
    all.ddt = g.ddt.data<float>();
    all.da = da.data<float>();
    all.dskip = in.skip.defined() ? dskip.data<float>() : nullptr;
    over_chunks<T>(in, plan, [&](const SsdChunk<T>& chunk, const Item& item, void* scratch) {
      SsdGradients<T> own = all;
      const int64_t at = item.begin * in.x.cols() + item.head_begin * in.head_dim();
      const int64_t bc_at = item.begin * in.b.cols() + item.group * in.states(),
                    state_at = item.head_begin * in.head_state();
      own.dy += at;
      own.dx += at;
      own.ddt += item.begin * in.heads() + item.head_begin;
      own.db = db[static_cast<size_t>(item.part)].template data<float>() + bc_at;
      own.dc = dc[static_cast<size_t>(item.part)].template data<float>() + bc_at;
      own.da += item.chunk * in.heads() + item.head_begin;
      if (own.dskip != nullptr) own.dskip += item.chunk * in.heads() + item.head_begin;
      const float* before =
          item.first ? nullptr : after.data<float>() + (item.slot - 1) * in.state() + state_at;
      const float* next = item.last ? nullptr : dafter.data<float>() + item.slot * in.state() + state_at;
      kernels().typed<T>().ssm.ssd_backward(chunk, own, before, next, scratch);
    });
  });
  g.da = Tensor::zeros({in.heads()});
  if (in.skip.defined()) g.dskip = Tensor::zeros({in.heads()});
  for (int64_t chunk = 0; chunk < plan.chunks; ++chunk) {
    kernels().axpy(1.0f, da.data<float>() + chunk * in.heads(), g.da.data<float>(), in.heads());
    if (g.dskip.defined())
      kernels().axpy(1.0f, dskip.data<float>() + chunk * in.heads(), g.dskip.data<float>(), in.heads());
  }
  g.db = detail::sum_of_parts(std::move(db), in.x.dtype());
  g.dc = detail::sum_of_parts(std::move(dc), in.x.dtype());
  return g;
}

Tensor steps(const Tensor& dt, const Tensor& bias, const SsdOptions& options) {
  Tensor y = Tensor::empty(dt.shape());
  const int64_t heads = dt.cols();
  with_float_type(dt.dtype(), "ssd", [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    parallel_for(dt.rows(), detail::row_grain(heads), [&](int64_t begin, int64_t end) {
      kernels().typed<T>().ssm.ssd_steps(dt.data<T>() + begin * heads, detail::data_or_null(bias),
                                         options.softplus, options.least, options.most,
                                         y.data<float>() + begin * heads, end - begin, heads);
    });
  });
  return y;
}

void check(const SsdInputs& in, const SsdOptions& options) {
  const int64_t rows = in.x.rows(), heads = in.dt.cols();
  require(in.dt.rows() == rows && in.dt.dtype() == in.x.dtype() && heads >= 1 && in.x.cols() % heads == 0 &&
              in.x.cols() > 0,
          "ssd: dt {} does not go with x {}", describe(in.dt), describe(in.x));
  require(options.groups >= 1 && heads % options.groups == 0, "ssd: {} groups do not divide {} heads",
          options.groups, heads);
  for (const Tensor* t : {&in.b, &in.c}) {
    require(t->rows() == rows && t->cols() == in.b.cols() && t->cols() > 0 &&
                t->cols() % options.groups == 0 && t->dtype() == in.x.dtype(),
            "ssd: b {} and c {} do not go with x {} in {} groups", describe(in.b), describe(in.c),
            describe(in.x), options.groups);
  }
  require(in.a.shape() == Shape{heads}, "ssd: expected rates ({}), found {}", heads, describe(in.a));
  detail::require_vector(in.skip, heads, "ssd: skip");
  detail::require_vector(in.dt_bias, heads, "ssd: dt_bias");
}

Tensor detached(const Tensor& t) {
  return t.defined() ? t.detach() : t;
}

}  // namespace

Tensor ssd(const SsdInputs& in, const PackedSequences& sequences, const SsdOptions& options,
           const std::vector<Tensor>& states) {
  check(in, options);
  detail::require_sequences(sequences, in.x.rows(), "ssd");
  const std::vector<Tensor> inputs = {in.x, in.dt, in.a, in.b, in.c, in.skip, in.dt_bias};
  const int64_t heads = in.dt.cols();
  detail::require_states(states, sequences, {heads, in.b.cols() / options.groups, in.x.cols() / heads},
                         recording(inputs), "ssd");
  const Tensor bias = detached(in.dt_bias);
  Operands operands{in.x.detach(),
                    in.b.detach(),
                    in.c.detach(),
                    steps(in.dt.detach(), bias, options),
                    in.a.detach().to(DType::f32),
                    detached(in.skip),
                    sequences.offsets,
                    options.groups};
  Tensor after;
  Tensor y = run_forward(operands, states, after);
  record("ssd", inputs, {&y}, [&] {
    const Saved x(in.x), dt(in.dt), b(in.b), c(in.c);
    operands.x = operands.b = operands.c = operands.dt = Tensor();
    return [=, kept = operands](const std::vector<Tensor>& grads, GradientSink& sink) {
      Operands again = kept;
      again.x = x.take();
      again.b = b.take();
      again.c = c.take();
      const Tensor raw = dt.take();
      again.dt = steps(raw, bias, options);
      Gradients g = run_backward(again, after, grads[0]);
      Tensor ddt = Tensor::empty(raw.shape(), raw.dtype());
      detail::RowReduction sums(raw.rows(), heads);
      with_float_type(raw.dtype(), "ssd", [&](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        sums.run([&](int64_t begin, int64_t end, float* partial) {
          kernels().typed<T>().ssm.ssd_steps_backward(
              raw.data<T>() + begin * heads, detail::data_or_null(bias), options.softplus, options.least,
              options.most, g.ddt.data<float>() + begin * heads, ddt.data<T>() + begin * heads, partial,
              end - begin, heads);
        });
      });
      sink.add(0, g.dx);
      sink.add(1, ddt);
      sink.add(2, g.da);
      sink.add(3, g.db);
      sink.add(4, g.dc);
      if (g.dskip.defined()) sink.add(5, g.dskip);
      if (bias.defined() && sink.needs(6)) sums.add_to(sink.zeroed(6).data<float>(), 0, heads);
    };
  });
  return y;
}

}  // namespace qkv::ops
