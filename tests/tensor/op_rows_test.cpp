// Norms, softmax, rope, attention and losses: forward and every gradient against the reference, in f32 and bf16.
#include "tests/support/attention_reference.h"
#include "tests/tensor/tensor_testing.h"

namespace qkv::test {
namespace {

using Inputs = std::vector<Tensor>;
using Values = std::vector<Doubles>;

void add_norms(std::vector<OpCase>& cases) {
  for (const auto& [rows, cols] : std::vector<std::pair<int64_t, int64_t>>{{1, 3}, {5, 17}, {19, 9}, {2, 40}}) {
    const std::string size = std::to_string(rows) + "x" + std::to_string(cols);
    const Shape x{rows, cols};
    cases.push_back({"rms_norm_" + size, {{x}, {{cols}, false}}, [](const Inputs& in) { return ops::rms_norm(in[0], in[1], 1e-5f); },
                     [=](const Values& v) { return reference::rms_norm(v[0], v[1], rows, cols, 1e-5); }});
    cases.push_back({"rms_norm_plain_" + size, {{x}}, [](const Inputs& in) { return ops::rms_norm(in[0], {}, 1e-5f); },
                     [=](const Values& v) { return reference::rms_norm(v[0], {}, rows, cols, 1e-5); }});
    cases.push_back({"layer_norm_" + size, {{x}, {{cols}, false}, {{cols}, false}},
                     [](const Inputs& in) { return ops::layer_norm(in[0], in[1], in[2], 1e-5f); },
                     [=](const Values& v) { return reference::layer_norm(v[0], v[1], v[2], rows, cols, 1e-5); }, 1e-5});
    cases.push_back({"layer_norm_plain_" + size, {{x}}, [](const Inputs& in) { return ops::layer_norm(in[0], {}, {}, 1e-5f); },
                     [=](const Values& v) { return reference::layer_norm(v[0], {}, {}, rows, cols, 1e-5); }, 1e-5});
    cases.push_back({"layer_norm_no_bias_" + size, {{x}, {{cols}, false}},
                     [](const Inputs& in) { return ops::layer_norm(in[0], in[1], {}, 1e-5f); },
                     [=](const Values& v) { return reference::layer_norm(v[0], v[1], {}, rows, cols, 1e-5); }, 1e-5});
    // Gains minus one, and rows that take two rows of gains in turn.
    cases.push_back({"rms_norm_offset_" + size, {{x}, {{cols}, false}}, [](const Inputs& in) { return ops::rms_norm(in[0], in[1], 1e-5f, 1); },
                     [=](const Values& v) {
                       Doubles gain = v[1];
                       for (double& g : gain) g += 1;
                       return reference::rms_norm(v[0], gain, rows, cols, 1e-5);
                     }});
    const Shape doubled{2 * rows, cols};
    const auto in_turn = [=](const Values& v, const auto& norm) {
      Doubles y;
      for (int64_t r = 0; r < 2 * rows; ++r) {
        const auto row = [=](const Doubles& a, int64_t i) { return Doubles(a.begin() + i * cols, a.begin() + (i + 1) * cols); };
        const Doubles part = norm(row(v[0], r), row(v[1], r % 2), v.size() > 2 ? row(v[2], r % 2) : Doubles());
        y.insert(y.end(), part.begin(), part.end());
      }
      return y;
    };
    cases.push_back({"rms_norm_in_turn_" + size, {{doubled}, {{2, cols}, false}}, [](const Inputs& in) { return ops::rms_norm(in[0], in[1], 1e-5f); },
                     [=](const Values& v) {
                       return in_turn(v, [=](const Doubles& a, const Doubles& w, const Doubles&) { return reference::rms_norm(a, w, 1, cols, 1e-5); });
                     }});
    cases.push_back({"layer_norm_in_turn_" + size, {{doubled}, {{2, cols}, false}, {{2, cols}, false}},
                     [](const Inputs& in) { return ops::layer_norm(in[0], in[1], in[2], 1e-5f); },
                     [=](const Values& v) {
                       return in_turn(v, [=](const Doubles& a, const Doubles& w, const Doubles& b) { return reference::layer_norm(a, w, b, 1, cols, 1e-5); });
                     }, 1e-5});
    cases.push_back({"softmax_" + size, {{x, true, 2}}, [](const Inputs& in) { return ops::softmax(in[0]); },
                     [=](const Values& v) { return reference::softmax(v[0], rows, cols); }});
    cases.push_back({"log_softmax_" + size, {{x, true, 2}}, [](const Inputs& in) { return ops::log_softmax(in[0]); },
                     [=](const Values& v) { return reference::log_softmax(v[0], rows, cols); }});
  }
}

// What a mixture of experts is made of.
void add_routing(std::vector<OpCase>& cases) {
  const int64_t rows = 4, cols = 6;
  const std::vector<int32_t> chosen = {2, 5, 0, 1, 5, 3, 4, 2};  // two columns of every row
  cases.push_back({"gather_two_cols", {{{rows, cols}}}, [=](const Inputs& in) { return ops::gather_cols(in[0], chosen); },
                   [=](const Values& v) {
                     Doubles y;
                     for (size_t i = 0; i < chosen.size(); ++i) y.push_back(v[0][i / 2 * static_cast<size_t>(cols) + static_cast<size_t>(chosen[i])]);
                     return y;
                   }});
  cases.push_back({"normalize_rows", {{{rows, cols}}}, [](const Inputs& in) { return ops::normalize_rows(ops::softmax(in[0])); },
                   [=](const Values& v) { return reference::softmax(v[0], rows, cols); }});
  cases.push_back({"normalize_gathered_rows", {{{rows, cols}}},
                   [=](const Inputs& in) { return ops::normalize_rows(ops::gather_cols(ops::softmax(in[0]), chosen)); },
                   [=](const Values& v) {
                     const Doubles p = reference::softmax(v[0], rows, cols);
                     Doubles y;
                     for (size_t t = 0; t < static_cast<size_t>(rows); ++t) {
                       const double a = p[t * 6 + static_cast<size_t>(chosen[2 * t])], b = p[t * 6 + static_cast<size_t>(chosen[2 * t + 1])];
                       y.push_back(a / (a + b));
                       y.push_back(b / (a + b));
                     }
                     return y;
                   }});
  const std::vector<int64_t> places = {3, 0, 7, 5, 1, 8};  // row 2, 4 and 6 of nine belong to nobody
  cases.push_back({"combine_rows", {{{9, cols}}, {{3, 2}, false}}, [=](const Inputs& in) { return ops::combine_rows(in[0], places, in[1]); },
                   [=](const Values& v) {
                     Doubles y(static_cast<size_t>(3 * cols), 0.0);
                     for (size_t i = 0; i < places.size(); ++i) {
                       for (size_t c = 0; c < 6; ++c) y[i / 2 * 6 + c] += v[1][i] * v[0][static_cast<size_t>(places[i]) * 6 + c];
                     }
                     return y;
                   }});
}

void add_rope(std::vector<OpCase>& cases) {
  const int64_t rows = 3, heads = 2;
  for (const auto& [head_dim, rotary_dim] : std::vector<std::pair<int64_t, int64_t>>{{6, 6}, {16, 8}, {34, 34}}) {
    for (bool interleaved : {false, true}) {
      const Doubles angle = normal_values(rows * rotary_dim / 2, 7);
      ops::RopeTable table;
      table.cos = tensor_of(reference::map<double>([](double a) { return std::cos(a); }, angle), {rows, rotary_dim / 2});
      table.sin = tensor_of(reference::map<double>([](double a) { return std::sin(a); }, angle), {rows, rotary_dim / 2});
      table.head_dim = head_dim;
      table.rotary_dim = rotary_dim;
      table.interleaved = interleaved;
      cases.push_back({"rope_" + std::to_string(head_dim) + "_" + std::to_string(rotary_dim) + (interleaved ? "_interleaved" : ""),
                       {{{rows, heads * head_dim}}}, [=](const Inputs& in) { return ops::rope(in[0], table); },
                       [=, h = head_dim, r = rotary_dim](const Values& v) {
                         return reference::rope(v[0], values_of(table.cos), values_of(table.sin), rows, heads, h, r, interleaved);
                       }});
    }
  }
}

// The last part of every head turns; a part that all heads share is appended to each.
void add_head_parts(std::vector<OpCase>& cases) {
  const int64_t rows = 3, heads = 2, head_dim = 10, rotary_dim = 6, offset = 4;
  const Doubles angle = normal_values(rows * rotary_dim / 2, 7);
  ops::RopeTable table;
  table.cos = tensor_of(reference::map<double>([](double a) { return std::cos(a); }, angle), {rows, rotary_dim / 2});
  table.sin = tensor_of(reference::map<double>([](double a) { return std::sin(a); }, angle), {rows, rotary_dim / 2});
  table.head_dim = head_dim;
  table.rotary_dim = rotary_dim;
  table.offset = offset;
  table.interleaved = true;
  cases.push_back({"rope_of_the_last_part", {{{rows, heads * head_dim}}}, [=](const Inputs& in) { return ops::rope(in[0], table); },
                   [=](const Values& v) {
                     Doubles parts, y = v[0];
                     for (int64_t i = 0; i < rows * heads; ++i) {
                       for (int64_t c = 0; c < rotary_dim; ++c) parts.push_back(v[0][static_cast<size_t>(i * head_dim + offset + c)]);
                     }
                     const Doubles turned = reference::rope(parts, values_of(table.cos), values_of(table.sin), rows, heads, rotary_dim, rotary_dim, true);
                     for (int64_t i = 0; i < rows * heads; ++i) {
                       for (int64_t c = 0; c < rotary_dim; ++c) y[static_cast<size_t>(i * head_dim + offset + c)] = turned[static_cast<size_t>(i * rotary_dim + c)];
                     }
                     return y;
                   }});
  cases.push_back({"append_to_heads", {{{rows, heads * 4}}, {{rows, 3}}}, [=](const Inputs& in) { return ops::append_to_heads(in[0], in[1], heads); },
                   [=](const Values& v) {
                     Doubles y;
                     for (size_t i = 0; i < static_cast<size_t>(rows * heads); ++i) {
                       y.insert(y.end(), v[0].begin() + static_cast<std::ptrdiff_t>(4 * i), v[0].begin() + static_cast<std::ptrdiff_t>(4 * i + 4));
                       const auto shared = v[1].begin() + static_cast<std::ptrdiff_t>(i / 2 * 3);
                       y.insert(y.end(), shared, shared + 3);
                     }
                     return y;
                   }});
}

void add_attention(std::vector<OpCase>& cases) {
  static const float slopes[] = {0.5f, 0.25f, 0.125f, 0.0625f};
  struct Variant {
    const char* name;
    int kv_heads;
    bool causal;
    int64_t window;
    float softcap;
    bool alibi;
  };
  for (const Variant& variant : {Variant{"causal", 4, true, 0, 0, false}, Variant{"grouped", 2, true, 0, 0, false},
                                 Variant{"one_kv_head", 1, true, 0, 0, false}, Variant{"full", 2, false, 0, 0, false},
                                 Variant{"window_softcap", 2, true, 3, 2.0f, false}, Variant{"alibi", 2, true, 0, 0, true}}) {
    AttentionSpec spec;
    spec.n_heads = 4;
    spec.n_kv_heads = variant.kv_heads;
    spec.qk_dim = 6;
    spec.v_dim = 5;
    spec.scale = 0.5f;
    spec.causal = variant.causal;
    spec.window = variant.window;
    spec.softcap = variant.softcap;
    spec.alibi_slopes = variant.alibi ? slopes : nullptr;
    const std::vector<int64_t> offsets = {0, 4, 5, 11};
    const int64_t tokens = offsets.back();
    cases.push_back({std::string("attention_") + variant.name,
                     {{{tokens, 24}}, {{tokens, spec.n_kv_heads * 6}}, {{tokens, spec.n_kv_heads * 5}}},
                     [=](const Inputs& in) { return ops::attention(in[0], in[1], in[2], {offsets}, spec); },
                     [=](const Values& v) {
                       Doubles out;
                       for (size_t s = 0; s + 1 < offsets.size(); ++s) {
                         AttentionReference<double> one;
                         one.spec = spec;
                         one.n_q = one.n_k = offsets[s + 1] - offsets[s];
                         const auto part = [&](const Doubles& all) {
                           const auto width = static_cast<std::ptrdiff_t>(all.size()) / tokens;
                           return Doubles(all.begin() + offsets[s] * width, all.begin() + offsets[s + 1] * width);
                         };
                         one.q = part(v[0]);
                         one.k = part(v[1]);
                         one.v = part(v[2]);
                         one.forward();
                         out.insert(out.end(), one.out.begin(), one.out.end());
                       }
                       return out;
                     },
                     1e-5, 0x1p-6});
  }
}

void add_losses(std::vector<OpCase>& cases) {
  const int64_t rows = 6, channels = 5, vocabulary = 13;
  const std::vector<int32_t> targets = {3, ops::kIgnore, 12, 0, 3, 7};
  struct Variant {
    const char* name;
    ops::CrossEntropyOptions options;
  };
  std::vector<Variant> variants(6);
  variants[0].name = "plain";
  variants[1].name = "smoothed";
  variants[1].options.label_smoothing = 0.1f;
  variants[2].name = "z_loss";
  variants[2].options.z_loss = 0.02f;
  variants[3].name = "softcap";
  variants[3].options.softcap = 1.5f;
  variants[3].options.logit_scale = 0.5f;
  variants[4].name = "chunked";
  variants[4].options.chunk_rows = 4;
  variants[5].name = "everything";
  variants[5].options = {0.1f, 0.01f, 3.0f, 0.7f, 1};
  const std::vector<float> weights = {0.5f, 2.0f, -1.0f, 0.0f, 3.0f, 1.0f};
  const Doubles wide_weights(weights.begin(), weights.end());
  for (const Variant& variant : variants) {
    const ops::CrossEntropyOptions options = variant.options;
    const reference::LossOptions<double> exact{static_cast<double>(options.label_smoothing), static_cast<double>(options.z_loss),
                                               static_cast<double>(options.softcap), static_cast<double>(options.logit_scale)};
    const auto logits = [=](const Values& v) { return reference::linear(v[0], v[1], {}, rows, vocabulary, channels); };
    cases.push_back({std::string("cross_entropy_") + variant.name, {{{rows, vocabulary}, true, 2}},
                     [=](const Inputs& in) { return ops::cross_entropy(in[0], targets, options); },
                     [=](const Values& v) { return Doubles{reference::cross_entropy(v[0], vocabulary, targets, exact)}; }, 1e-5});
    cases.push_back({std::string("linear_cross_entropy_") + variant.name, {{{rows, channels}}, {{vocabulary, channels}, false}},
                     [=](const Inputs& in) { return ops::linear_cross_entropy(in[0], in[1], targets, options); },
                     [=](const Values& v) { return Doubles{reference::cross_entropy(logits(v), vocabulary, targets, exact)}; }, 1e-5, 0x1p-6});
    cases.push_back({std::string("linear_cross_entropy_weighted_") + variant.name, {{{rows, channels}}, {{vocabulary, channels}, false}},
                     [=](const Inputs& in) { return ops::linear_cross_entropy(in[0], in[1], targets, options, weights); },
                     [=](const Values& v) { return Doubles{reference::cross_entropy(logits(v), vocabulary, targets, exact, wide_weights)}; },
                     1e-5, 0x1p-6});
    const auto biased = [=](const Values& v) { return reference::linear(v[0], v[1], v[2], rows, vocabulary, channels); };
    const std::vector<OpInput> with_bias = {{{rows, channels}}, {{vocabulary, channels}, false}, {{vocabulary}, false}};
    cases.push_back({std::string("linear_cross_entropy_biased_") + variant.name, with_bias,
                     [=](const Inputs& in) { return ops::linear_cross_entropy(in[0], in[1], targets, options, weights, in[2]); },
                     [=](const Values& v) { return Doubles{reference::cross_entropy(biased(v), vocabulary, targets, exact, wide_weights)}; },
                     1e-5, 0x1p-6});
    if (options.label_smoothing != 0 || options.z_loss != 0) continue;
    cases.push_back({std::string("linear_log_probs_biased_") + variant.name, with_bias,
                     [=](const Inputs& in) { return ops::linear_log_probs(in[0], in[1], targets, options, in[2]); },
                     [=](const Values& v) {
                       const Doubles z = biased(v);
                       Doubles y;
                       for (size_t r = 0; r < targets.size(); ++r) {
                         const double* row = &z[r * static_cast<size_t>(vocabulary)];
                         y.push_back(targets[r] == ops::kIgnore ? 0 : -reference::cross_entropy_row(row, vocabulary, targets[r], exact));
                       }
                       return y;
                     }, 1e-5, 0x1p-6});
    cases.push_back({std::string("linear_log_probs_") + variant.name, {{{rows, channels}}, {{vocabulary, channels}, false}},
                     [=](const Inputs& in) { return ops::linear_log_probs(in[0], in[1], targets, options); },
                     [=](const Values& v) {
                       const Doubles z = logits(v);
                       Doubles y;
                       for (size_t r = 0; r < targets.size(); ++r) {
                         y.push_back(targets[r] == ops::kIgnore
                                         ? 0
                                         : -reference::cross_entropy_row(&z[r * static_cast<size_t>(vocabulary)], vocabulary, targets[r], exact));
                       }
                       return y;
                     },
                     1e-5, 0x1p-6});
  }
}

std::vector<OpCase> all_cases() {
  std::vector<OpCase> cases;
  add_norms(cases);
  add_routing(cases);
  add_rope(cases);
  add_head_parts(cases);
  add_attention(cases);
  add_losses(cases);
  return cases;
}

class RowsAndLosses : public ::testing::TestWithParam<OpCase> {};
TEST_P(RowsAndLosses, MatchTheReferenceInF32) { check_op(GetParam(), Entry::f32_leaf); }
TEST_P(RowsAndLosses, MatchTheReferenceInBf16) { check_op(GetParam(), Entry::bf16_inner); }
TEST_P(RowsAndLosses, MatchTheReferenceFromBf16Leaves) { check_op(GetParam(), Entry::bf16_leaf); }
INSTANTIATE_TEST_SUITE_P(Ops, RowsAndLosses, ::testing::ValuesIn(all_cases()), [](const auto& info) { return info.param.name; });

TEST(RowsAndLossesErrors, SayWhatDoesNotFit) {
  const Tensor x = random_tensor({3, 4}, 1);
  EXPECT_THROW(ops::rms_norm(x, random_tensor({3}, 2), 1e-5f), Error);
  EXPECT_THROW(ops::layer_norm(x, {}, random_tensor({4, 1}, 2), 1e-5f), Error);
  EXPECT_THROW(ops::cross_entropy(x, {0, 1}), Error);
  EXPECT_THROW(ops::cross_entropy(x, {0, 1, 4}), Error);
  EXPECT_THROW(ops::linear_cross_entropy(x, x, {0, 1, 3}), Error);
  EXPECT_THROW(ops::linear_cross_entropy(x, x, {0, -1, 2}), Error);
  EXPECT_THROW(ops::linear_cross_entropy(x, x, {0, 1, 2}, {}, {1.0f}), Error);
  ops::CrossEntropyOptions smoothed;
  smoothed.label_smoothing = 0.1f;
  EXPECT_THROW(ops::linear_log_probs(x, x, {0, 1, 2}, smoothed), Error);
  ops::RopeTable table{random_tensor({3, 2}, 1), random_tensor({3, 2}, 1), 3, 4, false};
  EXPECT_THROW(ops::rope(x, table), Error);
  AttentionSpec spec;
  spec.n_heads = 2;
  spec.n_kv_heads = 2;
  spec.qk_dim = spec.v_dim = 2;
  EXPECT_THROW(ops::attention(x, x, x, {{0, 2}}, spec), Error);
  spec.n_kv_heads = 3;
  EXPECT_THROW(ops::attention(x, x, x, {{0, 3}}, spec), Error);
}

}  // namespace
}  // namespace qkv::test
