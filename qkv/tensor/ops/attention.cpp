// Flash attention over packed sequences: the work is split over threads here; a kernel call is one thread's rows of the
// query heads that share one key/value head.
#include <cstring>

#include "qkv/tensor/ops/detail.h"

namespace qkv::ops {
namespace {

using detail::Scratch;

// Rows (queries x heads) per forward item: past a few hundred the packing of keys is paid for.
constexpr int64_t kForwardRows = 512;
// Backward is split by key/value head; with fewer items than this, heads are split further. A constant, not the thread
// count: the order of sums, and so the bits, must not depend on it.
constexpr int64_t kBackwardItems = 8;

struct Item {
  int64_t sequence;
  int kv_head;
  int head_begin, head_end;
  int64_t q_begin, q_end;
  int64_t rows() const { return (head_end - head_begin) * (q_end - q_begin); }
};

// `wide_values`: rows of v may be longer than what is read of them.
void check(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionSpec& spec, bool wide_values = false) {
  require(spec.n_kv_heads > 0 && spec.n_heads > 0 && spec.n_heads % spec.n_kv_heads == 0,
          "attention: expected query heads to be a multiple of key/value heads, found {} and {}", spec.n_heads, spec.n_kv_heads);
  require(q.cols() == int64_t{spec.n_heads} * spec.qk_dim && k.cols() == int64_t{spec.n_kv_heads} * spec.qk_dim &&
              (v.cols() == int64_t{spec.n_kv_heads} * spec.v_dim || (wide_values && v.cols() > spec.v_dim)) && k.rows() == v.rows() && q.dtype() == k.dtype() &&
              q.dtype() == v.dtype(),
          "attention: {} heads of {} and {} key/value heads of {} and {} do not fit q {}, k {}, v {}", spec.n_heads, spec.qk_dim,
          spec.n_kv_heads, spec.qk_dim, spec.v_dim, describe(q), describe(k), describe(v));
}

// The costliest items first, so that threads finish together.
void sort_by_cost(std::vector<Item>& items) {
  std::stable_sort(items.begin(), items.end(),
                   [](const Item& a, const Item& b) { return a.rows() * a.q_end > b.rows() * b.q_end; });
}

std::vector<Item> forward_items(const std::vector<int64_t>& offsets, const AttentionSpec& spec) {
  const int group = spec.n_heads / spec.n_kv_heads;
  std::vector<Item> items;
  for (size_t s = 0; s + 1 < offsets.size(); ++s) {
    const int64_t n = offsets[s + 1] - offsets[s];
    for (int kv = 0; kv < spec.n_kv_heads; ++kv) {
      if (group * n <= kForwardRows) {
        items.push_back({static_cast<int64_t>(s), kv, kv * group, (kv + 1) * group, 0, n});
        continue;
      }
      for (int h = kv * group; h < (kv + 1) * group; ++h) {
        for (int64_t begin = 0; begin < n; begin += kForwardRows) {
          items.push_back({static_cast<int64_t>(s), kv, h, h + 1, begin, std::min(n, begin + kForwardRows)});
        }
      }
    }
  }
  sort_by_cost(items);
  return items;
}

// Items of one key/value head follow each other and their dk, dv are added in that order.
std::vector<Item> backward_items(const std::vector<int64_t>& offsets, const AttentionSpec& spec) {
  const int group = spec.n_heads / spec.n_kv_heads;
  const int64_t whole = (static_cast<int64_t>(offsets.size()) - 1) * spec.n_kv_heads;
  const int parts = static_cast<int>(std::clamp<int64_t>((kBackwardItems + whole - 1) / std::max<int64_t>(1, whole), 1, group));
  std::vector<Item> items;
  for (size_t s = 0; s + 1 < offsets.size(); ++s) {
    for (int kv = 0; kv < spec.n_kv_heads; ++kv) {
      for (int p = 0; p < parts; ++p) {
        items.push_back({static_cast<int64_t>(s), kv, kv * group + group * p / parts, kv * group + group * (p + 1) / parts, 0,
                         offsets[s + 1] - offsets[s]});
      }
    }
  }
  return items;
}

// The packed tensors, and the kernel's view of one sequence of them.
template <typename T>
struct Packed {
  const Tensor &q, &k, &v, &out;
  const Tensor& lse;  // sequence s at offset n_heads * offsets[s], as (n_heads, n)
  const std::vector<int64_t>& offsets;
  const AttentionSpec& spec;

  AttentionSequence<T> sequence(int64_t s) const {
    const int64_t begin = offsets[static_cast<size_t>(s)], n = offsets[static_cast<size_t>(s) + 1] - begin;
    AttentionSequence<T> view;
    view.q = q.data<T>() + begin * q.cols();
    view.k = k.data<T>() + begin * k.cols();
    view.v = v.data<T>() + begin * v.cols();
    view.out = const_cast<T*>(out.data<T>()) + begin * out.cols();
    view.lse = const_cast<float*>(lse.data<float>()) + begin * spec.n_heads;
    view.n_q = view.n_k = n;
    view.q_stride = q.cols();
    view.k_stride = k.cols();
    view.v_stride = v.cols();
    view.out_stride = out.cols();
    return view;
  }
};

template <typename T>
void run_forward(const AttentionSpec& spec, const std::vector<Item>& items, FunctionRef<AttentionSequence<T>(int64_t)> sequence) {
  const auto& kernel = kernels().typed<T>();
  const Scratch scratch(kernel.attention_scratch_bytes(spec, 0));
  parallel_items(static_cast<int64_t>(items.size()), [&](int64_t i, int thread) {
    const Item& item = items[static_cast<size_t>(i)];
    kernel.attention_forward(spec, sequence(item.sequence), item.head_begin, item.head_end, item.q_begin, item.q_end,
                             scratch.of(thread));
  });
}

// dk and dv (T, n_kv_heads * dim) of each item in float: in the gradient itself for float storage and whole key/value
// heads, else apart and summed here in the items' order.
template <typename T>
void run_backward(const Packed<T>& packed, const Tensor& dout, Tensor& dq, Tensor& dk, Tensor& dv) {
  const AttentionSpec& spec = packed.spec;
  const auto& kernel = kernels().typed<T>();
  std::vector<Item> items = backward_items(packed.offsets, spec);
  int64_t most_rows = 0;
  for (const Item& item : items) most_rows = std::max(most_rows, item.rows());
  const Scratch scratch(kernel.attention_scratch_bytes(spec, most_rows));
  const int64_t n_parts = static_cast<int64_t>(items.size()) / std::max<int64_t>(1, (static_cast<int64_t>(packed.offsets.size()) - 1) * spec.n_kv_heads);

  // Part p of every key/value head accumulates into sums[p].
  std::vector<std::pair<Tensor, Tensor>> sums;
  for (int64_t p = 0; p < n_parts; ++p) {
    const bool in_place = p == 0 && dk.dtype() == DType::f32;
    sums.emplace_back(in_place ? dk : Tensor::empty(dk.shape()), in_place ? dv : Tensor::empty(dv.shape()));
    sums.back().first.fill(0);
    sums.back().second.fill(0);
  }
  std::vector<int64_t> order(items.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int64_t>(i);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return items[static_cast<size_t>(a)].rows() * items[static_cast<size_t>(a)].q_end >
           items[static_cast<size_t>(b)].rows() * items[static_cast<size_t>(b)].q_end;
  });
  parallel_items(static_cast<int64_t>(items.size()), [&](int64_t n, int thread) {
    const int64_t i = order[static_cast<size_t>(n)];
    const Item& item = items[static_cast<size_t>(i)];
    const int64_t begin = packed.offsets[static_cast<size_t>(item.sequence)];
    auto& [part_dk, part_dv] = sums[static_cast<size_t>(i % n_parts)];
    AttentionGradients<T> gradients;
    gradients.dout = dout.data<T>() + begin * dout.cols();
    gradients.dq = dq.data<T>() + begin * dq.cols();
    gradients.dk = part_dk.template data<float>() + begin * dk.cols() + item.kv_head * spec.qk_dim;
    gradients.dv = part_dv.template data<float>() + begin * dv.cols() + item.kv_head * spec.v_dim;
    gradients.dk_stride = dk.cols();
    gradients.dv_stride = dv.cols();
    kernel.attention_backward(spec, packed.sequence(item.sequence), gradients, item.head_begin, item.head_end, item.q_begin,
                              item.q_end, scratch.of(thread));
  });
  for (size_t p = 1; p < sums.size(); ++p) {
    for (const auto& both : {std::pair{&sums[0].first, &sums[p].first}, std::pair{&sums[0].second, &sums[p].second}}) {
      Tensor* sum = both.first;
      const Tensor* part = both.second;
      parallel_for(sum->elements(), detail::kElementGrain, [&](int64_t begin, int64_t end) {
        kernels().axpy(1.0f, part->template data<float>() + begin, sum->template data<float>() + begin, end - begin);
      });
    }
  }
  if (dk.dtype() != DType::f32) {
    dk = sums[0].first.to(dk.dtype());
    dv = sums[0].second.to(dv.dtype());
  }
}

}  // namespace

Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const PackedSequences& sequences, const AttentionSpec& spec) {
  check(q, k, v, spec);
  require(k.rows() == q.rows() && !sequences.offsets.empty() && sequences.offsets.front() == 0 && sequences.offsets.back() == q.rows(),
          "attention: sequence offsets do not cover the {} tokens of q and {} of k", q.rows(), k.rows());
  // ALiBi slopes live in the caller; backward needs its own copy.
  const auto slopes = std::make_shared<std::vector<float>>();
  AttentionSpec own = spec;
  if (spec.alibi_slopes != nullptr) {
    slopes->assign(spec.alibi_slopes, spec.alibi_slopes + spec.n_heads);
    own.alibi_slopes = slopes->data();
  }
  Tensor out = Tensor::empty({q.rows(), int64_t{spec.n_heads} * spec.v_dim}, q.dtype());
  Tensor lse = Tensor::empty({std::max<int64_t>(1, q.rows() * spec.n_heads)});
  with_float_type(q.dtype(), "attention", [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const Packed<T> packed{q, k, v, out, lse, sequences.offsets, own};
    run_forward<T>(own, forward_items(sequences.offsets, own), [&](int64_t s) { return packed.sequence(s); });
  });
  record("attention", {q, k, v}, {&out}, [&] {
    const Saved saved_q(q), saved_k(k), saved_v(v);
    return [=, kept_out = out.detach(), offsets = sequences.offsets](const std::vector<Tensor>& grads, GradientSink& sink) {
      (void)slopes;  // owns what own.alibi_slopes points to
      const Tensor q_data = saved_q.take(), k_data = saved_k.take(), v_data = saved_v.take();
      Tensor dq = Tensor::empty(q_data.shape(), q_data.dtype());
      Tensor dk = Tensor::empty(k_data.shape(), k_data.dtype());
      Tensor dv = Tensor::empty(v_data.shape(), v_data.dtype());
      with_float_type(q_data.dtype(), "attention", [&](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        run_backward<T>(Packed<T>{q_data, k_data, v_data, kept_out, lse, offsets, own}, grads[0], dq, dk, dv);
      });
      sink.add(0, dq);
      sink.add(1, dk);
      sink.add(2, dv);
    };
  });
  return out;
}

void attend_cached(const Tensor& q, const Tensor& k, const Tensor& v, Tensor& out, const AttentionSpec& spec) {
  check(q, k, v, spec, spec.n_kv_heads == 1);
  require(k.rows() >= q.rows() && out.rows() == q.rows() && out.cols() == int64_t{spec.n_heads} * spec.v_dim && out.dtype() == q.dtype(),
          "attend_cached: q {}, keys {} and out {} do not fit", describe(q), describe(k), describe(out));
  with_float_type(q.dtype(), "attend_cached", [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    Tensor lse = Tensor::empty({std::max<int64_t>(1, q.rows() * spec.n_heads)});
    AttentionSequence<T> view;
    view.q = q.data<T>();
    view.k = k.data<T>();
    view.v = v.data<T>();
    view.out = out.data<T>();
    view.lse = lse.data<float>();
    view.n_q = q.rows();
    view.n_k = k.rows();
    view.q_stride = q.cols();
    view.k_stride = k.cols();
    view.v_stride = v.cols();
    view.out_stride = out.cols();
    run_forward<T>(spec, forward_items({0, view.n_q}, spec), [&](int64_t) { return view; });
  });
}

}  // namespace qkv::ops
