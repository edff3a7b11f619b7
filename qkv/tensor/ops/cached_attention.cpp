// Attention over pages: the work is split over threads here. Few queries are split along the context, too, at
// places that depend on nothing but the slots, and what the pieces make is merged in their order.
#include "qkv/tensor/cached_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "qkv/kernels/cache_kernels.h"
#include "qkv/tensor/batch_invariance.h"
#include "qkv/tensor/ops/detail.h"

namespace qkv::ops {
namespace {

using detail::Scratch;

// Up to so many (query, head) pairs of a key/value head, in calls of kCacheFewRows, meet keys where they lie;
// more are worth packing them.
constexpr int64_t kFewInAll = 64;
// Rows of one call for many: past a few hundred the packing of keys is paid for.
constexpr int64_t kManyRows = 512;
// Floats that one thread merges before others are worth waking.
constexpr int64_t kMergeGrain = 1 << 15;

CacheType cache_type(DType type) {
  switch (type) {
    case DType::f16:
      return CacheType::f16;
    case DType::bf16:
      return CacheType::bf16;
    case DType::q8_0:
      return CacheType::q8_0;
    case DType::q5_1:
      return CacheType::q5_1;
    case DType::q4_0:
      return CacheType::q4_0;
    default:
      return CacheType::f32;
  }
}

struct Item {
  size_t sequence;
  int kv_head, head_begin, head_end;
  int64_t q_begin, q_end;      // of the sequence's queries
  int64_t key_begin, key_end;  // slots
  bool sinks, few;
  int64_t part = 0;       // few: its first row in the parts' arrays
  int64_t ahead_end = 0;  // few: the end of the keys that the same thread reads next
  int64_t rows() const { return (head_end - head_begin) * (q_end - q_begin); }
};
// Rows of a call for few, whose parts follow each other.
struct Merge {
  size_t sequence;
  int head_begin, head_end;
  int64_t part, parts;
};

class CachedAttention {
 public:
  CachedAttention(const Tensor& q, const Tensor& q_sinks, const CacheLayout& layout,
                  std::span<const CachedSequence> sequences, Tensor& out, const AttentionSpec& spec)
      : q_(q), q_sinks_(q_sinks), layout_(layout), out_(out), spec_(spec) {
    for (const CachedSequence& sequence : sequences) add(sequence);
    for (size_t s = 0; s < sequences_.size(); ++s) {
      for (int kv = 0; kv < spec.n_kv_heads; ++kv) plan(s, kv);
    }
  }

  void run() {
    const CacheKernels& kernel = cache_kernels();
    weighted_ = Tensor::empty({std::max<int64_t>(1, part_rows_), spec_.v_dim});
    sums_ = Tensor::empty({std::max<int64_t>(1, 2 * part_rows_)});
    if (any_many_) lse_ = Tensor::empty({q_.rows() * spec_.n_heads});
    if (any_many_ && q_sinks_.defined()) {
      sink_out_ = Tensor::empty(out_.shape());
      sink_lse_ = Tensor::empty(lse_.shape());
    }
    const Scratch scratch(kernel.scratch_bytes(spec_));
    const std::vector<size_t> runs = runs_of_items();
    parallel_items(static_cast<int64_t>(runs.size()) - 1, [&](int64_t run, int thread) {
      for (size_t i = runs[static_cast<size_t>(run)]; i < runs[static_cast<size_t>(run) + 1]; ++i)
        run_item(kernel, items_[i], scratch.of(thread));
    });
    const int64_t grain =
        std::max<int64_t>(1, kMergeGrain / (spec_.v_dim * std::max<int64_t>(1, most_rows_)));
    parallel_for(static_cast<int64_t>(merges_.size()), grain, [&](int64_t begin, int64_t end) {
      for (int64_t m = begin; m < end; ++m) merge(merges_[static_cast<size_t>(m)]);
    });
    for (const CachedSequence& sequence : sequences_) {
      if (sequence.sinks > 0 && !is_few(sequence)) merge_sinks(sequence);
    }
  }

 private:
  int group() const { return spec_.n_heads / spec_.n_kv_heads; }
  bool is_few(const CachedSequence& sequence) const {
    const int64_t n = sequence.end - sequence.begin;
    return n <= kCacheFewRows && n * group() <= kFewInAll;
  }

  // Where nothing may depend on what else is in a pass, every query comes alone.
  void add(CachedSequence sequence) {
    if (!batch_invariant()) return sequences_.push_back(sequence);
    for (const int64_t end = sequence.end; sequence.begin < end; ++sequence.begin, ++sequence.slot) {
      sequence.end = sequence.begin + 1;
      sequences_.push_back(sequence);
    }
  }

  void plan(size_t s, int kv) {
    const CachedSequence& sequence = sequences_[s];
    const int64_t n = sequence.end - sequence.begin, end = sequence.slot + n;
    int64_t first = sequence.first_slot;
    if (spec_.window > 0) first = std::max(first, sequence.slot - spec_.window + 1);
    const int head = kv * group();
    if (is_few(sequence)) {
      const auto heads = static_cast<int>(std::max<int64_t>(1, kCacheFewRows / n));
      for (int begin = head; begin < head + group(); begin += heads) {
        const int stop = std::min(begin + heads, head + group());
        merges_.push_back({s, begin, stop, part_rows_, 0});
        if (sequence.sinks > 0)
          add_few({s, kv, begin, stop, 0, n, 0, std::min(sequence.sinks, end), true, true});
        for (int64_t key = first / kCacheChunk * kCacheChunk; key < end; key += kCacheChunk) {
          add_few({s, kv, begin, stop, 0, n, std::max(key, first), std::min(key + kCacheChunk, end), false,
                   true});
        }
        const int64_t rows = (stop - begin) * n;
        merges_.back().parts = (part_rows_ - merges_.back().part) / rows;
        most_rows_ = std::max(most_rows_, part_rows_ - merges_.back().part);
      }
      return;
    }
    any_many_ = true;
    const int step = group() * n <= kManyRows ? group() : 1;
    for (int begin = head; begin < head + group(); begin += step) {
      for (int64_t q = 0; q < n; q += kManyRows) {
        Item item{s, kv, begin, begin + step, q, std::min(n, q + kManyRows), first, end, false, false};
        items_.push_back(item);
        if (sequence.sinks == 0) continue;
        item.key_begin = 0;
        item.key_end = std::min(sequence.sinks, end);
        item.sinks = true;
        items_.push_back(item);
      }
    }
  }

  // Beginnings of the runs of items that a thread takes together, and the end. Pieces of one context follow
  // each other in a run, as far as enough runs are left for all threads: the next is then fetched during the
  // one before it. What is computed does not depend on it.
  std::vector<size_t> runs_of_items() {
    // Prompts first, the later queries of each before the earlier ones: threads then finish together.
    std::stable_sort(items_.begin(), items_.end(), [](const Item& a, const Item& b) {
      return a.few != b.few ? !a.few : !a.few && a.q_end * a.rows() > b.q_end * b.rows();
    });
    const size_t longest = std::max<size_t>(1, items_.size() / (8 * static_cast<size_t>(num_threads())));
    std::vector<size_t> runs;
    for (size_t i = 0; i < items_.size(); ++i) {
      const bool follows = i > 0 && items_[i].few && !items_[i].sinks && items_[i - 1].few &&
                           items_[i].sequence == items_[i - 1].sequence &&
                           items_[i].head_begin == items_[i - 1].head_begin &&
                           items_[i].key_begin == items_[i - 1].key_end;
      if (follows && i - runs.back() < longest) {
        items_[i - 1].ahead_end = items_[i].key_end;
      } else {
        runs.push_back(i);
      }
    }
    runs.push_back(items_.size());
    return runs;
  }

  void add_few(Item item) {
    item.part = part_rows_;
    part_rows_ += item.rows();
    items_.push_back(item);
  }

  void run_item(const CacheKernels& kernel, const Item& item, void* scratch) {
    const CachedSequence& sequence = sequences_[item.sequence];
    const bool shared = layout_.v_dim == 0;
    CachedHead head;
    head.pages = sequence.pages;
    head.page_tokens = layout_.page_tokens;
    head.k_offset = layout_.k_offset(item.kv_head, 0);
    head.v_offset = shared ? head.k_offset : layout_.v_offset(item.kv_head, 0);
    head.k_row = layout_.k_row_bytes();
    head.v_row = shared ? head.k_row : layout_.v_row_bytes();
    head.k_type = cache_type(layout_.k_type);
    head.v_type = shared ? head.k_type : cache_type(layout_.v_type);
    const Tensor& q = item.sinks ? q_sinks_ : q_;
    CacheQueries queries;
    queries.q = q.data<float>() + sequence.begin * q.cols();
    queries.q_stride = q.cols();
    queries.count = sequence.end - sequence.begin;
    queries.position = sequence.slot;
    queries.key_begin = item.key_begin;
    queries.key_end = item.key_end;
    queries.ahead_end = item.ahead_end;
    AttentionSpec spec = spec_;
    if (item.sinks) spec.window = 0;
    if (item.few) {
      float* sums = sums_.data<float>();
      const CachePart part{weighted_.data<float>() + item.part * spec.v_dim, sums + item.part,
                           sums + part_rows_ + item.part};
      kernel.attend_few(spec, head, queries, item.head_begin, item.head_end, part, scratch);
      return;
    }
    Tensor& out = item.sinks ? sink_out_ : out_;
    Tensor& lse = item.sinks ? sink_lse_ : lse_;
    kernel.attend_many(spec, head, queries, item.head_begin, item.head_end, item.q_begin, item.q_end,
                       out.data<float>() + sequence.begin * out.cols(), out.cols(),
                       lse.data<float>() + sequence.begin * spec.n_heads, scratch);
  }

  void merge(const Merge& merge) {
    const CachedSequence& sequence = sequences_[merge.sequence];
    const int heads = merge.head_end - merge.head_begin;
    const int64_t rows = heads * (sequence.end - sequence.begin), dim = spec_.v_dim;
    const float *maxima = sums_.data<float>(), *sums = maxima + part_rows_;
    for (int64_t r = 0; r < rows; ++r) {
      float* out = out_.data<float>() + (sequence.begin + r / heads) * out_.cols() +
                   (merge.head_begin + r % heads) * dim;
      const auto at = [&](int64_t p) { return merge.part + p * rows + r; };
      float largest = -std::numeric_limits<float>::infinity();
      for (int64_t p = 0; p < merge.parts; ++p) largest = std::max(largest, maxima[at(p)]);
      const auto factor = [&](int64_t p) {
        return sums[at(p)] == 0 ? 0 : std::exp2(maxima[at(p)] - largest);
      };
      float total = 0;
      for (int64_t p = 0; p < merge.parts; ++p) total += factor(p) * sums[at(p)];
      std::fill_n(out, dim, 0.0f);
      if (total == 0) continue;
      for (int64_t p = 0; p < merge.parts; ++p) {
        const float weight = factor(p) / total;
        if (weight != 0) kernels().axpy(weight, weighted_.data<float>() + at(p) * dim, out, dim);
      }
    }
  }

  // Many rows: both halves are normalized, and lse is natural.
  void merge_sinks(const CachedSequence& sequence) {
    const int64_t n = sequence.end - sequence.begin, dim = spec_.v_dim;
    parallel_for(n, 16, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        for (int64_t h = 0; h < spec_.n_heads; ++h) {
          const int64_t at = sequence.begin * spec_.n_heads + h * n + i;
          const float a = lse_.data<float>()[at], b = sink_lse_.data<float>()[at];
          const float largest = std::max(a, b);
          if (largest == -std::numeric_limits<float>::infinity()) continue;
          const float wa = std::exp(a - largest), wb = std::exp(b - largest);
          const int64_t offset = (sequence.begin + i) * out_.cols() + h * dim;
          float* out = out_.data<float>() + offset;
          const float* other = sink_out_.data<float>() + offset;
          for (int64_t c = 0; c < dim; ++c) out[c] = (wa * out[c] + wb * other[c]) / (wa + wb);
        }
      }
    });
  }

  const Tensor &q_, &q_sinks_;
  const CacheLayout& layout_;
  std::vector<CachedSequence> sequences_;
  Tensor& out_;
  const AttentionSpec& spec_;
  std::vector<Item> items_;
  std::vector<Merge> merges_;
  int64_t part_rows_ = 0, most_rows_ = 0;
  bool any_many_ = false;
  Tensor weighted_, sums_;  // of parts: (rows, v_dim); maxima, then sums
  Tensor lse_, sink_out_, sink_lse_;
};

}  // namespace

void attend_cached(const Tensor& q, const Tensor& q_sinks, const CacheLayout& layout,
                   std::span<const CachedSequence> sequences, Tensor& out, const AttentionSpec& spec) {
  const bool fits = spec.n_kv_heads > 0 && spec.n_heads % spec.n_kv_heads == 0 &&
                    layout.heads == spec.n_kv_heads && layout.k_dim == spec.qk_dim &&
                    (layout.v_dim == 0 ? layout.k_dim >= spec.v_dim : layout.v_dim == spec.v_dim) &&
                    q.cols() == int64_t{spec.n_heads} * spec.qk_dim &&
                    out.cols() == int64_t{spec.n_heads} * spec.v_dim && out.rows() == q.rows() &&
                    out.dtype() == q.dtype() &&
                    (!q_sinks.defined() || (q_sinks.shape() == q.shape() && q_sinks.dtype() == q.dtype()));
  if (!fits) {  // describing tensors takes longer than a short attention
    fail(
        "attend_cached: {} heads of {} and {} over pages of {} heads of {} and {} do not fit q {} and out {}",
        spec.n_heads, spec.qk_dim, spec.v_dim, layout.heads, layout.k_dim, layout.v_dim, describe(q),
        describe(out));
  }
  if (q.dtype() == DType::f32) return CachedAttention(q, q_sinks, layout, sequences, out, spec).run();
  const Tensor wide = q.to(DType::f32), wide_sinks = q_sinks.defined() ? q_sinks.to(DType::f32) : Tensor();
  Tensor result = Tensor::empty(out.shape());
  CachedAttention(wide, wide_sinks, layout, sequences, result, spec).run();
  out.copy_from(result.to(out.dtype()));
}

}  // namespace qkv::ops
