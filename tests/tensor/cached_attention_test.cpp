// Attention over pages: every type on every instruction set against the formula on the values that the cache
// holds, against whole sequences within what rounding to the type can do, and the same bits for any size of
// pages, any company and any number of threads.
#include "qkv/tensor/cached_attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "qkv/core/parallel.h"
#include "qkv/kernels/cache_kernels.h"
#include "qkv/tensor/batch_invariance.h"
#include "tests/support/attention_reference.h"
#include "tests/tensor/tensor_testing.h"

namespace qkv::test {
namespace {

constexpr DType kTypes[] = {DType::f32, DType::f16, DType::bf16, DType::q8_0, DType::q5_1, DType::q4_0};
constexpr float kSlopes[] = {0.5f, 0.0625f, 0.25f, 0.00390625f, 0.125f, 0.015625f, 1.0f, 0.03125f};

AttentionSpec make_spec(int n_heads, int n_kv_heads, int qk_dim, int v_dim) {
  AttentionSpec spec;
  spec.n_heads = n_heads;
  spec.n_kv_heads = n_kv_heads;
  spec.qk_dim = qk_dim;
  spec.v_dim = v_dim;
  spec.scale = static_cast<float>(1.0 / std::sqrt(qk_dim));
  return spec;
}

CacheLayout layout_of(const AttentionSpec& spec, DType k_type, DType v_type, int64_t page_tokens = 32) {
  return {spec.n_kv_heads, spec.qk_dim, spec.v_dim, k_type, v_type, page_tokens};
}

// Keys and values in pages, and what the pages hold as floats.
struct Cache {
  CacheLayout layout;
  std::vector<Tensor> memory;
  std::vector<const std::byte*> pages;
  Tensor k, v;  // (tokens, heads * dim) as stored

  Cache(CacheLayout of, const Tensor& keys, const Tensor& values)
      : layout(of), k(keys.clone()), v(values.clone()) {
    const int64_t n = keys.rows(), size = layout.page_tokens;
    for (int64_t p = 0; p * size < n; ++p) {
      memory.push_back(Tensor::full({(layout.page_bytes() + 3) / 4}, NAN));  // nothing may be read unwritten
      pages.push_back(memory.back().raw());
    }
    for (int64_t t = 0; t < n; ++t) {
      std::byte* page = memory[static_cast<size_t>(t / size)].raw();
      for (int64_t h = 0; h < layout.heads; ++h) {
        pass_through(k, t, h, layout.k_dim, layout.k_type, page + layout.k_offset(h, t % size));
        if (layout.v_dim > 0)
          pass_through(v, t, h, layout.v_dim, layout.v_type, page + layout.v_offset(h, t % size));
      }
    }
  }
  static void pass_through(Tensor& x, int64_t t, int64_t h, int64_t dim, DType type, std::byte* row) {
    float* at = x.data<float>() + t * x.cols() + h * dim;
    store_cache_row(at, dim, type, row);
    load_cache_row(row, dim, type, at);
  }
  ops::CachedSequence sequence(int64_t begin, int64_t n) const {
    ops::CachedSequence s;
    s.pages = pages.data();
    s.begin = begin;
    s.end = begin + n;
    s.slot = k.rows() - n;
    return s;
  }
};

AttentionReference<double> reference_of(const AttentionSpec& spec, const Tensor& q, const Tensor& k,
                                        const Tensor& v) {
  AttentionReference<double> problem;
  problem.spec = spec;
  problem.n_q = q.rows();
  problem.n_k = k.rows();
  problem.q = values_of(q);
  problem.k = values_of(k);
  problem.v = values_of(v);
  problem.forward();
  return problem;
}

struct Case {
  const char* name;
  AttentionSpec spec;
  int64_t n_q, n_k;
};

std::vector<Case> grid() {
  std::vector<Case> cases = {
      {"decode", make_spec(4, 2, 64, 64), 1, 333},     {"one token", make_spec(2, 2, 32, 32), 1, 1},
      {"mqa", make_spec(7, 1, 24, 24), 1, 70},         {"many heads", make_spec(20, 1, 32, 32), 1, 50},
      {"odd heads", make_spec(3, 3, 20, 33), 2, 270},  {"small heads", make_spec(2, 1, 7, 3), 1, 40},
      {"heads of 80", make_spec(2, 2, 80, 80), 1, 65}, {"a few queries", make_spec(4, 2, 32, 32), 4, 270},
      {"prompt", make_spec(4, 2, 32, 32), 40, 40},     {"chunk", make_spec(3, 1, 20, 33), 25, 150},
  };
  cases.push_back({"window", make_spec(2, 1, 32, 32), 1, 400});
  cases.back().spec.window = 100;
  cases.push_back({"window, chunk", make_spec(2, 1, 32, 32), 40, 200});
  cases.back().spec.window = 70;
  cases.push_back({"everything", make_spec(4, 2, 24, 20), 3, 300});
  cases.push_back({"everything, chunk", make_spec(4, 2, 24, 20), 40, 160});
  for (size_t i : {cases.size() - 2, cases.size() - 1}) {
    cases[i].spec.window = cases[i].n_k - 43;
    cases[i].spec.softcap = 2.0f;
    cases[i].spec.alibi_slopes = kSlopes;
  }
  return cases;
}

struct Inputs {
  Tensor q, k, v;
  explicit Inputs(const Case& c, uint64_t seed = 1)
      : q(random_tensor({c.n_q, c.spec.n_heads * c.spec.qk_dim}, seed)),
        k(random_tensor({c.n_k, c.spec.n_kv_heads * c.spec.qk_dim}, seed + 1)),
        v(random_tensor({c.n_k, c.spec.n_kv_heads * c.spec.v_dim}, seed + 2)) {}
};

Tensor attend(const Inputs& in, const Cache& cache, const AttentionSpec& spec) {
  Tensor out = Tensor::empty({in.q.rows(), int64_t{spec.n_heads} * spec.v_dim}, in.q.dtype());
  const ops::CachedSequence sequence = cache.sequence(0, in.q.rows());
  ops::attend_cached(in.q, {}, cache.layout, {&sequence, 1}, out, spec);
  return out;
}

// The kernels themselves, in calls as the op makes them, for one set.
std::vector<double> by_kernels(const CacheKernels& kernels, const Case& c, const Inputs& in,
                               const Cache& cache, bool few, CacheType k_type, CacheType v_type) {
  const AttentionSpec& spec = c.spec;
  const Tensor scratch = Tensor::full({static_cast<int64_t>(kernels.scratch_bytes(spec) / 4 + 16)}, NAN);
  std::vector<double> result(static_cast<size_t>(c.n_q * spec.n_heads * spec.v_dim));
  const int group = spec.n_heads / spec.n_kv_heads;
  for (int kv = 0; kv < spec.n_kv_heads; ++kv) {
    CachedHead head;
    head.pages = cache.pages.data();
    head.page_tokens = cache.layout.page_tokens;
    head.k_offset = cache.layout.k_offset(kv, 0);
    head.v_offset = cache.layout.v_offset(kv, 0);
    head.k_row = cache.layout.k_row_bytes();
    head.v_row = cache.layout.v_row_bytes();
    head.k_type = k_type;
    head.v_type = v_type;
    CacheQueries queries;
    queries.q = in.q.data<float>();
    queries.q_stride = in.q.cols();
    queries.count = c.n_q;
    queries.position = c.n_k - c.n_q;
    queries.key_end = c.n_k;
    if (!few) {
      std::vector<float> out(result.size(), NAN), lse(static_cast<size_t>(c.n_q * spec.n_heads));
      kernels.attend_many(spec, head, queries, kv * group, (kv + 1) * group, 0, c.n_q, out.data(),
                          int64_t{spec.n_heads} * spec.v_dim, lse.data(),
                          const_cast<std::byte*>(scratch.raw()));
      for (int64_t i = 0; i < c.n_q; ++i) {
        for (int64_t j = kv * group * spec.v_dim; j < (kv + 1) * group * spec.v_dim; ++j) {
          const auto at = static_cast<size_t>(i * spec.n_heads * spec.v_dim + j);
          result[at] = out[at];
        }
      }
      continue;
    }
    const int64_t heads = std::max<int64_t>(1, kCacheFewRows / c.n_q);
    for (int begin = kv * group; begin < (kv + 1) * group; begin += static_cast<int>(heads)) {
      const int end = std::min<int>(begin + static_cast<int>(heads), (kv + 1) * group);
      const auto rows = static_cast<size_t>((end - begin) * c.n_q), dim = static_cast<size_t>(spec.v_dim);
      std::vector<double> sums(rows), weighted(rows * dim), maxima(rows, -INFINITY);
      for (int64_t key = 0; key < c.n_k; key += kCacheChunk) {
        queries.key_begin = key;
        queries.key_end = std::min(c.n_k, key + kCacheChunk);
        std::vector<float> w(rows * dim), m(rows), s(rows);
        kernels.attend_few(spec, head, queries, begin, end, {w.data(), m.data(), s.data()},
                           const_cast<std::byte*>(scratch.raw()));
        for (size_t r = 0; r < rows; ++r) {
          if (s[r] == 0) continue;
          const double both = std::max(maxima[r], double{m[r]});
          const double before = std::exp2(maxima[r] - both), now = std::exp2(double{m[r]} - both);
          sums[r] = sums[r] * before + s[r] * now;
          for (size_t i = 0; i < dim; ++i)
            weighted[r * dim + i] = weighted[r * dim + i] * before + w[r * dim + i] * now;
          maxima[r] = both;
        }
      }
      for (size_t r = 0; r < rows; ++r) {
        const auto query = r / static_cast<size_t>(end - begin),
                   h = static_cast<size_t>(begin) + r % static_cast<size_t>(end - begin);
        for (size_t i = 0; i < dim; ++i)
          result[(query * static_cast<size_t>(spec.n_heads) + h) * dim + i] = weighted[r * dim + i] / sums[r];
      }
    }
  }
  return result;
}

// Both are float sums over the same values: a few hundred roundings of 2^-24.
constexpr double kSums = 1e-5;

TEST(CachedAttention, EveryTypeOnEverySetIsTheFormulaOnWhatTheCacheHolds) {
  constexpr CacheType kernel_types[] = {CacheType::f32,  CacheType::f16,  CacheType::bf16,
                                        CacheType::q8_0, CacheType::q5_1, CacheType::q4_0};
  for (const Case& c : grid()) {
    const Inputs in(c);
    for (size_t t = 0; t < std::size(kTypes); ++t) {
      const size_t other = (t + 2) % std::size(kTypes);  // keys and values of different types
      const Cache cache(layout_of(c.spec, kTypes[t], kTypes[other]), in.k, in.v);
      const auto expected = reference_of(c.spec, in.q, cache.k, cache.v);
      for (const Isa isa : available_isas()) {
        for (const bool few : {true, false}) {
          if (few && c.n_q > kCacheFewRows) continue;
          const auto found =
              by_kernels(cache_kernels_for(isa), c, in, cache, few, kernel_types[t], kernel_types[other]);
          EXPECT_TRUE(close(found, expected.out, kSums))
              << c.name << ", " << name(kTypes[t]) << ", " << isa_name(isa) << (few ? ", few" : ", many");
        }
      }
    }
  }
}

TEST(CachedAttention, TheOpIsTheFormula) {
  for (const Case& c : grid()) {
    const Inputs in(c);
    for (const DType type : kTypes) {
      const Cache cache(layout_of(c.spec, type, type), in.k, in.v);
      const auto expected = reference_of(c.spec, in.q, cache.k, cache.v);
      EXPECT_TRUE(close(values_of(attend(in, cache, c.spec)), expected.out, kSums))
          << c.name << ", " << name(type);
    }
  }
}

// How far rounding can move a value of a block whose largest magnitude is `most`.
double rounding(DType type, double most) {
  const double half = 0x1p-11;  // of an f16 that scales it
  switch (type) {
    case DType::f16:
      return half * most;
    case DType::bf16:
      return 0x1p-9 * most;
    case DType::q8_0:
      return most * (0.5 / 127 + half);
    case DType::q5_1:
      return most * (2 * 0.5 / 31 + 3 * half);  // from -most to most
    case DType::q4_0:
      return most * (1.0 / 8 + half);  // the end without a code: a whole step
    default:
      return 0;
  }
}

TEST(CachedAttention, IsWithinTheRoundingOfItsTypeOfWholeSequences) {
  const NoGrad off;
  const Case c{"", make_spec(4, 2, 64, 64), 80, 80};
  const Inputs in(c, 5);
  const Tensor whole = ops::attention(in.q, in.k, in.v, {{0, c.n_q}}, c.spec);
  const auto largest = [](const Tensor& x) {
    double most = 0;
    for (const double v : values_of(x)) most = std::max(most, std::abs(v));
    return most;
  };
  double q_sum = 0;  // of one query's magnitudes
  for (int64_t row = 0; row < c.n_q * c.spec.n_heads; ++row) {
    double sum = 0;
    for (int64_t i = 0; i < 64; ++i) sum += std::abs(double{in.q.data<float>()[row * 64 + i]});
    q_sum = std::max(q_sum, sum);
  }
  for (const DType type : kTypes) {
    const Cache cache(layout_of(c.spec, type, type), in.k, in.v);
    const Doubles found = values_of(attend(in, cache, c.spec)), expected = values_of(whole);
    // A score moves by at most s, a weight by a factor of e^2s, the mixture by that of the values' range.
    const double s = double{c.spec.scale} * q_sum * rounding(type, largest(in.k));
    const double bound = rounding(type, largest(in.v)) + (std::exp(2 * s) - 1) * 2 * largest(in.v) + kSums;
    double worst = 0;
    for (size_t i = 0; i < found.size(); ++i) worst = std::max(worst, std::abs(found[i] - expected[i]));
    EXPECT_LE(worst, bound) << name(type);
    const double most = type == DType::f32    ? kSums
                        : type == DType::f16  ? 2e-3
                        : type == DType::q8_0 ? 3e-2
                                              : bound;
    EXPECT_LE(worst, most) << name(type);
  }
}

TEST(CachedAttention, AnySizeOfPagesGivesTheSameBits) {
  for (const Case& c : grid()) {
    const Inputs in(c, 9);
    for (const DType type : kTypes) {
      const Tensor together = attend(in, Cache(layout_of(c.spec, type, type, 4096), in.k, in.v), c.spec);
      for (const int64_t tokens : {16, 32, 48, 64}) {
        EXPECT_TRUE(
            same_bits(attend(in, Cache(layout_of(c.spec, type, type, tokens), in.k, in.v), c.spec), together))
            << c.name << ", " << name(type) << ", pages of " << tokens;
      }
    }
  }
}

TEST(CachedAttention, AQueryIsTheSameInAnyCompany) {
  const AttentionSpec spec = make_spec(4, 2, 32, 32);
  for (const DType type : {DType::f32, DType::q8_0}) {
    std::vector<Cache> caches;
    std::vector<Tensor> alone;
    std::vector<ops::CachedSequence> sequences;
    Tensor q = random_tensor({9, 128}, 3), out = Tensor::empty({9, 128});
    int64_t begin = 0;
    for (const int64_t n : {1, 3, 5}) {
      const int64_t held = 150 * n;
      caches.emplace_back(layout_of(spec, type, type),
                          random_tensor({held, 64}, 20 + static_cast<uint64_t>(n)),
                          random_tensor({held, 64}, 30 + static_cast<uint64_t>(n)));
      begin += n;
    }
    begin = 0;
    for (const Cache& cache : caches) {
      const int64_t n = cache.k.rows() / 150;
      sequences.push_back(cache.sequence(begin, n));
      begin += n;
    }
    ops::attend_cached(q, {}, caches[0].layout, sequences, out, spec);
    for (const ops::CachedSequence& s : sequences) {
      for (int64_t i = s.begin; i < s.end; ++i) {
        ops::CachedSequence one = s;
        one.begin = 0;
        one.end = 1;
        one.slot += i - s.begin;
        Tensor row = Tensor::empty({1, 128});
        ops::attend_cached(q.row_view(i, i + 1), {}, caches[0].layout, {&one, 1}, row, spec);
        EXPECT_TRUE(same_bits(row, out.row_view(i, i + 1))) << name(type) << " row " << i;
      }
    }
  }
}

TEST(CachedAttention, ThreadsAndBatchInvarianceDoNotChangeBits) {
  const NoGrad off;
  const Case c{"", make_spec(4, 1, 64, 64), 40, 700};
  const Inputs in(c);
  const Cache cache(layout_of(c.spec, DType::q8_0, DType::f16), in.k, in.v);
  const int threads = num_threads();
  const Tensor several = attend(in, cache, c.spec);
  set_num_threads(1);
  EXPECT_TRUE(same_bits(attend(in, cache, c.spec), several));
  set_num_threads(threads);
  const BatchInvariant each_alone;
  const Tensor invariant = attend(in, cache, c.spec);
  for (const int64_t i : {0, 17, 39}) {
    ops::CachedSequence one = cache.sequence(0, 40 - i);
    one.end = 1;
    Tensor row = Tensor::empty({1, 256});
    ops::attend_cached(in.q.row_view(i, i + 1), {}, cache.layout, {&one, 1}, row, c.spec);
    EXPECT_TRUE(same_bits(row, invariant.row_view(i, i + 1)));
  }
}

// Sinks meet queries of their own: the formula with both sets of scores in one softmax.
TEST(CachedAttention, SinksMeetTheirOwnQueries) {
  constexpr int64_t sinks = 5, window = 60;
  for (const int64_t n_q : {1, 4, 90}) {
    AttentionSpec spec = make_spec(4, 2, 32, 32);
    spec.window = window;
    const Case c{"", spec, n_q, 200};
    const Inputs in(c);
    const Tensor q_sinks = random_tensor(in.q.shape(), 77);
    const Cache cache(layout_of(spec, DType::f32, DType::f32), in.k, in.v);
    ops::CachedSequence sequence = cache.sequence(0, n_q);
    sequence.first_slot = sequence.sinks = sinks;
    Tensor out = Tensor::empty(in.q.shape());
    ops::attend_cached(in.q, q_sinks, cache.layout, {&sequence, 1}, out, spec);
    Doubles expected;
    for (int64_t i = 0; i < n_q; ++i) {
      for (int h = 0; h < 4; ++h) {
        const int64_t position = 200 - n_q + i;
        std::vector<double> weights(200);
        double sum = 0;
        for (int64_t j = 0; j <= position; ++j) {
          if (j >= sinks && j <= position - window) continue;
          const Tensor& q = j < sinks ? q_sinks : in.q;
          double score = 0;
          for (int64_t d = 0; d < 32; ++d)
            score += double{q.data<float>()[i * 128 + h * 32 + d]} *
                     double{in.k.data<float>()[j * 64 + h / 2 * 32 + d]};
          sum += weights[static_cast<size_t>(j)] = std::exp(score * double{spec.scale});
        }
        for (int64_t d = 0; d < 32; ++d) {
          double value = 0;
          for (int64_t j = 0; j <= position; ++j)
            value +=
                weights[static_cast<size_t>(j)] / sum * double{in.v.data<float>()[j * 64 + h / 2 * 32 + d]};
          expected.push_back(value);
        }
      }
    }
    EXPECT_TRUE(close(values_of(out), expected, kSums)) << n_q << " queries";
  }
}

TEST(CachedAttention, KeysCanBeTheValues) {
  const AttentionSpec spec = make_spec(6, 1, 40, 32);  // of 40, the first 32
  for (const int64_t n_q : {1, 50}) {
    for (const DType type : kTypes) {
      const Tensor q = random_tensor({n_q, 240}, 1), k = random_tensor({150, 40}, 2);
      const CacheLayout layout{1, 40, 0, type, type, 16};
      const Cache cache(layout, k, k);
      Tensor out = Tensor::empty({n_q, 192});
      const ops::CachedSequence sequence = cache.sequence(0, n_q);
      ops::attend_cached(q, {}, layout, {&sequence, 1}, out, spec);
      const auto expected = reference_of(spec, q, cache.k, ops::slice_cols(cache.k, 0, 32));
      EXPECT_TRUE(close(values_of(out), expected.out, kSums)) << name(type) << ", " << n_q;
    }
  }
}

TEST(CachedAttention, Bf16QueriesGiveBf16) {
  const Case c{"", make_spec(4, 2, 32, 32), 3, 100};
  const Inputs in(c);
  const Cache cache(layout_of(c.spec, DType::bf16, DType::bf16), in.k, in.v);
  Inputs narrow = in;
  narrow.q = in.q.to(DType::bf16);
  const Tensor out = attend(narrow, cache, c.spec);
  EXPECT_EQ(out.dtype(), DType::bf16);
  const auto expected = reference_of(c.spec, narrow.q, cache.k, cache.v);
  EXPECT_TRUE(close(values_of(out), expected.out, 0x1p-8));
}

TEST(CacheRows, WhatIsNotFiniteShows) {
  for (const DType type : kTypes) {
    std::vector<float> x(40, 1.0f), back(40);
    x[35] = NAN;
    std::vector<std::byte> row(static_cast<size_t>(CacheLayout{1, 40, 0, type, type, 16}.k_row_bytes()));
    store_cache_row(x.data(), 40, type, row.data());
    load_cache_row(row.data(), 40, type, back.data());
    EXPECT_NEAR(back[0], 1, 0.01) << name(type);
    EXPECT_TRUE(std::isnan(back[35])) << name(type);
  }
}

TEST(CacheLayout, CountsItsBytes) {
  EXPECT_EQ((CacheLayout{8, 64, 64, DType::f32, DType::f32, 32}.bytes_per_token()), 2 * 8 * 64 * 4);
  EXPECT_EQ((CacheLayout{8, 64, 64, DType::q8_0, DType::q4_0, 32}.bytes_per_token()), 8 * (68 + 36));
  EXPECT_EQ((CacheLayout{8, 64, 64, DType::f16, DType::q5_1, 32}.page_bytes()), 32 * 8 * (128 + 48));
  EXPECT_EQ((CacheLayout{1, 576, 0, DType::f16, DType::f16, 16}.page_bytes()), 16 * 1152);
  EXPECT_THROW(check(CacheLayout{1, 64, 64, DType::q4_k, DType::f32, 32}), Error);
  EXPECT_THROW(check(CacheLayout{1, 64, 64, DType::f32, DType::f32, 20}), Error);
}

TEST(Hadamard, IsOrthogonalAndItsOwnInverse) {
  const Tensor a = random_tensor({5, 128}, 1), b = random_tensor({5, 128}, 2);
  const Tensor ra = ops::hadamard_heads(a, 32), rb = ops::hadamard_heads(b, 32);
  EXPECT_TRUE(close(values_of(ops::hadamard_heads(ra, 32)), values_of(a), 1e-6));
  for (int64_t head = 0; head < 20; ++head) {
    double plain = 0, rotated = 0;
    for (int64_t i = head * 32; i < (head + 1) * 32; ++i) {
      plain += double{a.data<float>()[i]} * double{b.data<float>()[i]};
      rotated += double{ra.data<float>()[i]} * double{rb.data<float>()[i]};
    }
    EXPECT_NEAR(rotated, plain, 2e-5);
  }
  EXPECT_THROW(ops::hadamard_heads(a, 24), Error);
}

}  // namespace
}  // namespace qkv::test
