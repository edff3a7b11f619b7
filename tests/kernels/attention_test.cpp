// Flash attention kernels against the plain formula in double precision, against reference vectors, and
// across instruction sets.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "qkv/kernels/kernels.h"
#include "tests/support/attention_reference.h"
#include "tests/support/golden_safetensors.h"
#include "tests/support/test_paths.h"

namespace qkv {
namespace {

using test::AttentionReference;

// How a caller cuts the work: heads of a group together or apart, and queries per call.
struct Split {
  bool whole_group = true;
  int64_t queries = INT64_MAX;
};

struct Results {
  std::vector<float> out, lse, dq, dk, dv;
};

// 64-byte aligned memory full of NaN, with a guard behind it: nothing may be read before it is written.
class ScratchMemory {
 public:
  explicit ScratchMemory(size_t bytes) : bytes_(bytes), memory_(bytes + 128, 0xFF) {
    data_ = memory_.data() + (64 - reinterpret_cast<uintptr_t>(memory_.data()) % 64) % 64;
  }
  void* get() { return data_; }
  bool guard_intact() const {
    const unsigned char* end = memory_.data() + memory_.size();
    return std::count(static_cast<const unsigned char*>(data_) + bytes_, end, 0xFF) ==
           end - data_ - static_cast<ptrdiff_t>(bytes_);
  }

 private:
  size_t bytes_;
  std::vector<unsigned char> memory_;
  unsigned char* data_;
};

constexpr int64_t kGap = 3;  // elements between tokens that belong to someone else
constexpr float kSentinel = 12345.0f;

template <typename T>
std::vector<T> with_gaps(const std::vector<double>& values, int64_t tokens, int64_t width) {
  std::vector<T> result(static_cast<size_t>(tokens * (width + kGap)), from_float<T>(kSentinel));
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t c = 0; c < width; ++c) {
      result[static_cast<size_t>(t * (width + kGap) + c)] =
          from_float<T>(static_cast<float>(values[static_cast<size_t>(t * width + c)]));
    }
  }
  return result;
}

template <typename T>
std::vector<float> without_gaps(const std::vector<T>& values, int64_t tokens, int64_t width) {
  std::vector<float> result;
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t c = 0; c < width + kGap; ++c) {
      const float value = to_float(values[static_cast<size_t>(t * (width + kGap) + c)]);
      if (c < width) {
        result.push_back(value);
      } else {
        EXPECT_EQ(value, to_float(from_float<T>(kSentinel))) << "written between tokens, token " << t;
      }
    }
  }
  return result;
}

template <typename T>
Results run(const Kernels& kernels, const AttentionReference<double>& problem, Split split = {}) {
  const auto& spec = problem.spec;
  const auto& table = kernels.typed<T>();
  const int64_t n_q = problem.n_q, n_k = problem.n_k;
  const int64_t q_width = spec.n_heads * spec.qk_dim, out_width = spec.n_heads * spec.v_dim;
  const int64_t k_width = spec.n_kv_heads * spec.qk_dim, v_width = spec.n_kv_heads * spec.v_dim;
  const auto q = with_gaps<T>(problem.q, n_q, q_width), k = with_gaps<T>(problem.k, n_k, k_width);
  const auto v = with_gaps<T>(problem.v, n_k, v_width), dout = with_gaps<T>(problem.dout, n_q, out_width);
  auto out = with_gaps<T>(std::vector<double>(problem.dout.size(), NAN), n_q, out_width);
  auto dq = with_gaps<T>(std::vector<double>(problem.q.size(), NAN), n_q, q_width);
  auto dk = with_gaps<float>(std::vector<double>(problem.k.size(), 0), n_k, k_width);
  auto dv = with_gaps<float>(std::vector<double>(problem.v.size(), 0), n_k, v_width);
  Results results;
  results.lse.assign(static_cast<size_t>(n_q * spec.n_heads), NAN);

  AttentionSequence<T> sequence{q.data(), k.data(), v.data(), out.data(), results.lse.data(), n_q, n_k};
  sequence.q_stride = q_width + kGap;
  sequence.k_stride = k_width + kGap;
  sequence.v_stride = v_width + kGap;
  sequence.out_stride = out_width + kGap;

  const int group = spec.n_heads / spec.n_kv_heads;
  const auto each_part = [&](auto&& part) {
    for (int kv = 0; kv < spec.n_kv_heads; ++kv) {
      const int step = split.whole_group ? group : 1;
      for (int head = kv * group; head < (kv + 1) * group; head += step) {
        for (int64_t begin = 0; begin < n_q;) {
          const int64_t end = split.queries < n_q - begin ? begin + split.queries : n_q;
          part(kv, head, head + step, begin, end);
          begin = end;
        }
      }
    }
  };
  ScratchMemory forward_memory(table.attention_scratch_bytes(spec, 0));
  each_part([&](int, int head, int head_end, int64_t begin, int64_t end) {
    table.attention_forward(spec, sequence, head, head_end, begin, end, forward_memory.get());
  });
  EXPECT_TRUE(forward_memory.guard_intact());
  each_part([&](int kv, int head, int head_end, int64_t begin, int64_t end) {
    ScratchMemory memory(table.attention_scratch_bytes(spec, (end - begin) * (head_end - head)));
    const AttentionGradients<T> gradients{
        dout.data(),    dq.data(),     dk.data() + kv * spec.qk_dim, dv.data() + kv * spec.v_dim,
        k_width + kGap, v_width + kGap};
    table.attention_backward(spec, sequence, gradients, head, head_end, begin, end, memory.get());
    EXPECT_TRUE(memory.guard_intact());
  });
  results.out = without_gaps(out, n_q, out_width);
  results.dq = without_gaps(dq, n_q, q_width);
  results.dk = without_gaps(dk, n_k, k_width);
  results.dv = without_gaps(dv, n_k, v_width);
  return results;
}

// Largest |a - b| / max(1, largest |b|): absolute for values of order one, relative to the tensor for larger
// ones.
template <typename B>
double difference(const std::vector<float>& a, const std::vector<B>& b) {
  if (a.size() != b.size()) return INFINITY;
  double largest = 1, worst = 0;
  for (const B value : b) {
    if (std::isfinite(value)) largest = std::max(largest, std::abs(static_cast<double>(value)));
  }
  for (size_t i = 0; i < a.size(); ++i) {
    const double x = a[i], y = static_cast<double>(b[i]);
    if (x == y) continue;  // equal infinities
    const double error = std::abs(x - y) / largest;
    if (!(error <= worst)) worst = std::isnan(error) ? INFINITY : error;
  }
  return worst;
}

template <typename Expected>
void expect_close(const Results& found, const Expected& expected, double tolerance, const std::string& what) {
  EXPECT_LE(difference(found.out, expected.out), tolerance) << what << ": out";
  EXPECT_LE(difference(found.lse, expected.lse), tolerance) << what << ": lse";
  EXPECT_LE(difference(found.dq, expected.dq), tolerance) << what << ": dq";
  EXPECT_LE(difference(found.dk, expected.dk), tolerance) << what << ": dk";
  EXPECT_LE(difference(found.dv, expected.dv), tolerance) << what << ": dv";
}

// Rounds every input to what the storage type holds.
template <typename T>
void round_inputs(AttentionReference<double>& problem) {
  for (auto* values : {&problem.q, &problem.k, &problem.v, &problem.dout}) {
    for (double& x : *values) x = static_cast<double>(to_float(from_float<T>(static_cast<float>(x))));
  }
}

template <typename T = float>
AttentionReference<double> random_problem(const AttentionSpec& spec, int64_t n_q, int64_t n_k,
                                          unsigned seed) {
  AttentionReference<double> problem;
  problem.spec = spec;
  problem.n_q = n_q;
  problem.n_k = n_k;
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal;
  const auto fill = [&](std::vector<double>& values, int64_t n) {
    values.resize(static_cast<size_t>(n));
    for (double& x : values) x = normal(generator);
  };
  fill(problem.q, n_q * spec.n_heads * spec.qk_dim);
  fill(problem.k, n_k * spec.n_kv_heads * spec.qk_dim);
  fill(problem.v, n_k * spec.n_kv_heads * spec.v_dim);
  fill(problem.dout, n_q * spec.n_heads * spec.v_dim);
  round_inputs<T>(problem);
  problem.forward();
  problem.backward();
  return problem;
}

AttentionSpec make_spec(int n_heads, int n_kv_heads, int qk_dim, int v_dim) {
  AttentionSpec spec;
  spec.n_heads = n_heads;
  spec.n_kv_heads = n_kv_heads;
  spec.qk_dim = qk_dim;
  spec.v_dim = v_dim;
  spec.scale = static_cast<float>(1.0 / std::sqrt(qk_dim));
  return spec;
}

constexpr float kSlopes[] = {0.5f, 0.0625f, 0.25f, 0.00390625f, 0.125f, 0.015625f, 1.0f, 0.03125f};

struct Case {
  std::string name;
  AttentionSpec spec;
  int64_t n_q, n_k;
};

std::vector<Case> grid() {
  std::vector<Case> cases;
  const auto add = [&](std::string name, AttentionSpec spec, int64_t n_q, int64_t n_k, auto&& change) {
    change(spec);
    cases.push_back({std::move(name), spec, n_q, n_k});
  };
  const auto plain = [](AttentionSpec&) {};
  for (int dim : {1, 3, 8, 16, 20, 24, 64, 80, 96, 128, 192, 256}) {
    add("dim " + std::to_string(dim), make_spec(2, 1, dim, dim), 37, 37, plain);
  }
  add("qk 192, v 128", make_spec(2, 2, 192, 128), 45, 45, plain);
  add("qk 24, v 20", make_spec(3, 3, 24, 20), 45, 45, plain);
  add("qk 7, v 33", make_spec(2, 2, 7, 33), 45, 51, plain);
  for (int64_t n : {1, 2, 5, 6, 7, 8, 95, 96, 97, 192, 200, 301}) {
    add("causal " + std::to_string(n), make_spec(2, 2, 16, 16), n, n, plain);
    add("bidirectional " + std::to_string(n), make_spec(2, 1, 16, 16), n, n + 3,
        [](auto& s) { s.causal = false; });
  }
  for (int64_t window : {1, 2, 16, 95, 96, 97, 150, 1000}) {
    add("window " + std::to_string(window), make_spec(2, 1, 16, 16), 310, 310,
        [&](auto& s) { s.window = window; });
  }
  add("window, bidirectional", make_spec(2, 1, 16, 16), 210, 230,
      [](auto& s) { s.window = 40, s.causal = false; });
  add("decode", make_spec(8, 2, 64, 64), 1, 333, plain);
  add("decode, window", make_spec(8, 2, 64, 64), 1, 333, [](auto& s) { s.window = 100; });
  add("chunked prefill", make_spec(4, 2, 32, 32), 70, 270, plain);
  add("rows without keys", make_spec(4, 2, 16, 16), 210, 90, plain);
  add("rows without keys, window", make_spec(4, 2, 16, 16), 130, 20, [](auto& s) { s.window = 3; });
  add("mqa", make_spec(7, 1, 24, 24), 120, 120, plain);
  add("softcap", make_spec(4, 2, 16, 16), 130, 130, [](auto& s) { s.softcap = 1.5f; });
  add("alibi", make_spec(8, 4, 16, 16), 130, 130, [](auto& s) { s.alibi_slopes = kSlopes; });
  add("alibi, bidirectional", make_spec(8, 4, 16, 16), 30, 40,
      [](auto& s) { s.alibi_slopes = kSlopes, s.causal = false; });
  add("large scores", make_spec(2, 2, 64, 64), 100, 100, [](auto& s) { s.scale = 1.0f; });
  add("negative scale", make_spec(2, 2, 16, 16), 100, 100, [](auto& s) { s.scale = -0.5f; });
  add("everything", make_spec(8, 2, 24, 20), 150, 230,
      [](auto& s) { s.window = 70, s.softcap = 2.0f, s.alibi_slopes = kSlopes; });
  add("everything, rows without keys", make_spec(8, 2, 20, 33), 230, 190,
      [](auto& s) { s.window = 70, s.softcap = 2.0f, s.alibi_slopes = kSlopes; });
  return cases;
}

// Scores of magnitude s carry an absolute float rounding of about s * 2^-23, hence the wider bound of one
// case.
double tolerance_of(const Case& c) {
  return c.name == "large scores" ? 4e-5 : 1e-5;
}

TEST(AttentionReference, GradientsAreThoseOfFiniteDifferences) {
  AttentionSpec spec = make_spec(4, 2, 5, 3);
  spec.window = 4;
  spec.softcap = 2;
  spec.alibi_slopes = kSlopes;
  auto problem = random_problem(spec, 6, 9, 1);
  const auto analytic = problem;
  const auto check = [&](std::vector<double>& values, const std::vector<double>& gradient, const char* name) {
    for (size_t i = 0; i < values.size(); ++i) {
      const double saved = values[i], step = 1e-5;
      values[i] = saved + step;
      const double above = problem.loss();
      values[i] = saved - step;
      const double below = problem.loss();
      values[i] = saved;
      EXPECT_NEAR((above - below) / (2 * step), gradient[i], 1e-8) << name << "[" << i << "]";
    }
  };
  check(problem.q, analytic.dq, "q");
  check(problem.k, analytic.dk, "k");
  check(problem.v, analytic.dv, "v");
}

TEST(Attention, MatchesTheFormulaOnEverySet) {
  for (const Case& c : grid()) {
    const auto problem = random_problem(c.spec, c.n_q, c.n_k, 7);
    for (Isa isa : available_isas()) {
      expect_close(run<float>(kernels_for(isa), problem), problem, tolerance_of(c),
                   c.name + ", " + isa_name(isa));
    }
  }
}

TEST(Attention, SplitWorkGivesTheSameResult) {
  for (const Case& c : grid()) {
    const auto problem = random_problem(c.spec, c.n_q, c.n_k, 8);
    for (Split split : {Split{false}, Split{true, 50}, Split{false, 33}}) {
      expect_close(run<float>(kernels(), problem, split), problem, tolerance_of(c), c.name + ", split");
    }
  }
}

TEST(Attention, SetsAgreeWithScalar) {
  for (const Case& c : grid()) {
    const auto problem = random_problem(c.spec, c.n_q, c.n_k, 9);
    const Results scalar = run<float>(kernels_for(Isa::scalar), problem);
    for (Isa isa : available_isas()) {
      expect_close(run<float>(kernels_for(isa), problem), scalar, tolerance_of(c),
                   c.name + ", " + isa_name(isa));
    }
  }
}

TEST(Attention, Bf16IsWithinItsRounding) {
  for (const Case& c : grid()) {
    const auto problem = random_problem<bf16>(c.spec, c.n_q, c.n_k, 10);
    for (Isa isa : available_isas()) {
      const std::string what = c.name + ", " + isa_name(isa);
      const Results found = run<bf16>(kernels_for(isa), problem);
      // out and dq are rounded to 8 bits; dk and dv are float, but delta comes from the rounded out.
      EXPECT_LE(difference(found.out, problem.out), 0x1p-8) << what;
      EXPECT_LE(difference(found.lse, problem.lse), tolerance_of(c)) << what;
      EXPECT_LE(difference(found.dv, problem.dv), tolerance_of(c)) << what;
      EXPECT_LE(difference(found.dq, problem.dq), 0x1p-6) << what;
      EXPECT_LE(difference(found.dk, problem.dk), 0x1p-6) << what;
    }
  }
}

TEST(Attention, RowsWithoutKeysAreZero) {
  const auto problem = random_problem(make_spec(2, 1, 16, 16), 12, 5, 11);
  const Results found = run<float>(kernels(), problem);
  for (int64_t i = 0; i < 7; ++i) {
    for (int h = 0; h < 2; ++h) {
      EXPECT_EQ(found.lse[problem.lse_at(i, h)], -INFINITY);
      for (size_t c = 0; c < 16; ++c) {
        EXPECT_EQ(found.out[problem.out_at(i, h) + c], 0.0f);
        EXPECT_EQ(found.dq[problem.out_at(i, h) + c], 0.0f);
      }
    }
  }
}

TEST(Attention, NotANumberStaysOne) {
  auto problem = random_problem(make_spec(1, 1, 16, 16), 200, 200, 12);
  problem.k[16 * 120 + 3] = NAN;  // key 120
  for (Isa isa : available_isas()) {
    const Results found = run<float>(kernels_for(isa), problem);
    for (int64_t i = 0; i < 200; ++i) {
      EXPECT_EQ(std::isnan(found.out[problem.out_at(i, 0)]), i >= 120) << isa_name(isa) << " row " << i;
    }
  }
}

TEST(Attention, TwoRunsGiveTheSameBits) {
  AttentionSpec spec = make_spec(4, 2, 24, 40);
  spec.window = 120;
  const auto problem = random_problem(spec, 300, 300, 13);
  const Results first = run<float>(kernels(), problem), second = run<float>(kernels(), problem);
  EXPECT_EQ(first.out, second.out);
  EXPECT_EQ(first.lse, second.lse);
  EXPECT_EQ(first.dq, second.dq);
  EXPECT_EQ(first.dk, second.dk);
  EXPECT_EQ(first.dv, second.dv);
}

class GoldenAttention : public ::testing::Test {
 protected:
  GoldenAttention() : tensors_(test::golden("attention/attention.safetensors")) {
    settings_ = nlohmann::json::parse(std::ifstream(test::golden("attention/attention.json")));
  }

  AttentionSpec spec_of(const nlohmann::json& c, int n_heads, int n_kv_heads, int qk_dim, int v_dim) {
    AttentionSpec spec = make_spec(n_heads, n_kv_heads, qk_dim, v_dim);
    spec.scale = c.at("scale");
    spec.causal = c.value("causal", true);
    if (c.contains("window") && !c["window"].is_null()) spec.window = c["window"];
    spec.softcap = c.value("softcap", 0.0f);
    if (c.contains("slopes")) {
      slopes_ = c["slopes"].get<std::vector<float>>();
      spec.alibi_slopes = slopes_.data();
    }
    return spec;
  }

  // Tokens [begin, end) of batch entry b, head-major or token-major, as (token, head, dim).
  std::vector<double> tokens(const std::string& name, int64_t b, int64_t begin, int64_t end,
                             bool head_major) const {
    const auto shape = tensors_.shape(name);
    const auto values = tensors_.values(name);
    const size_t last = shape.size() - 1;
    const int64_t heads = head_major ? shape[last - 2] : shape[last - 1], dim = shape[last];
    const int64_t length = head_major ? shape[last - 1] : shape[0];
    std::vector<double> result;
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t h = 0; h < heads; ++h) {
        const int64_t at = head_major ? ((b * heads + h) * length + t) * dim : (t * heads + h) * dim;
        result.insert(result.end(), values.begin() + at, values.begin() + at + dim);
      }
    }
    return result;
  }
  std::vector<double> lse(const std::string& name, int64_t b, int64_t heads, int64_t begin,
                          int64_t end) const {
    const auto shape = tensors_.shape(name);
    const auto values = tensors_.values(name);
    const int64_t length = shape.back();
    std::vector<double> result;
    for (int64_t h = 0; h < heads; ++h) {
      const auto row = values.begin() + (b * heads + h) * length;
      result.insert(result.end(), row + begin, row + end);
    }
    return result;
  }

  void check(const std::string& name, const AttentionSpec& spec, int64_t b, int64_t q_begin, int64_t q_end,
             int64_t k_begin, int64_t k_end, bool head_major) {
    AttentionReference<double> problem;
    problem.spec = spec;
    problem.n_q = q_end - q_begin;
    problem.n_k = k_end - k_begin;
    problem.q = tokens(name + ".q", b, q_begin, q_end, head_major);
    problem.k = tokens(name + ".k", b, k_begin, k_end, head_major);
    problem.v = tokens(name + ".v", b, k_begin, k_end, head_major);
    problem.dout = tokens(name + ".dout", b, q_begin, q_end, head_major);
    problem.out = tokens(name + ".out", b, q_begin, q_end, head_major);
    problem.lse = lse(name + ".lse", b, spec.n_heads, q_begin, q_end);
    problem.dq = tokens(name + ".dq", b, q_begin, q_end, head_major);
    problem.dk = tokens(name + ".dk", b, k_begin, k_end, head_major);
    problem.dv = tokens(name + ".dv", b, k_begin, k_end, head_major);
    for (Isa isa : available_isas()) {
      expect_close(run<float>(kernels_for(isa), problem), problem, 1e-5, name + ", " + isa_name(isa));
    }
  }

  test::GoldenSafetensors tensors_;
  nlohmann::json settings_;
  std::vector<float> slopes_;
};

TEST_F(GoldenAttention, EveryCase) {
  int cases = 0;
  for (const auto& [name, c] : settings_.items()) {
    if (name == "rope") continue;
    ++cases;
    if (c.contains("cu_seqlens")) {
      const auto bounds = c["cu_seqlens"].get<std::vector<int64_t>>();
      const AttentionSpec spec = spec_of(c, c["Hq"], c["Hkv"], c["D"], c["D"]);
      for (size_t s = 0; s + 1 < bounds.size(); ++s) {
        check(name, spec, 0, bounds[s], bounds[s + 1], bounds[s], bounds[s + 1], false);
      }
      continue;
    }
    const AttentionSpec spec = spec_of(c, c["Hq"], c["Hkv"], c["D"], c["Dv"]);
    for (int64_t b = 0; b < c["B"]; ++b) {
      int64_t k_begin = 0, k_end = c["Tk"];
      if (name == "keypad_full") {  // keys kept are a range; padding is simply not there
        const auto keep = tensors_.values(name + ".key_keep");
        const auto row = keep.begin() + b * k_end, end = row + k_end;
        const int64_t kept = std::count(row, end, 1.0);
        k_begin = std::find(row, end, 1.0) - row;
        k_end = k_begin + kept;
        ASSERT_EQ(std::count(row + k_begin, row + k_end, 1.0), kept);
      }
      check(name, spec, b, 0, c["Tq"], k_begin, k_end, true);
    }
  }
  EXPECT_EQ(cases, 16);
}

}  // namespace
}  // namespace qkv
