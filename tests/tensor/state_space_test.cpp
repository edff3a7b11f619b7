// The convolution and the selective scan against plain recurrences in double precision: values, gradients by
// finite differences, sequences that do not see each other, and going on from a state.
#include <gmock/gmock.h>

#include "tests/support/ssm_reference.h"
#include "tests/support/test_paths.h"
#include "tests/tensor/tensor_testing.h"

namespace qkv::test {
namespace {

ops::PackedSequences packed(const std::vector<int64_t>& lengths) {
  ops::PackedSequences sequences{{0}};
  for (int64_t n : lengths) sequences.offsets.push_back(sequences.offsets.back() + n);
  return sequences;
}

class StateSpaceOps : public ::testing::TestWithParam<std::tuple<OpCase, Entry>> {};

TEST_P(StateSpaceOps, MatchTheReferenceAndItsGradients) {
  check_op(std::get<0>(GetParam()), std::get<1>(GetParam()));
}

// A sequence shorter than the taps, an empty one, and one of length 1.
OpCase conv_case(int64_t channels, int64_t taps, bool bias, bool silu) {
  const auto sequences = packed({2, 0, 7, 1, 5});
  OpCase c;
  c.name = "conv_" + std::to_string(channels) + "x" + std::to_string(taps) + (bias ? "_bias" : "") +
           (silu ? "_silu" : "");
  c.inputs = {{Shape{15, channels}}, {Shape{channels, taps}, false}};
  if (bias) c.inputs.push_back({Shape{channels}, false});
  c.op = [=](const std::vector<Tensor>& in) {
    return ops::causal_conv1d(in[0], in[1], bias ? in[2] : Tensor(), sequences, silu);
  };
  c.reference = [=](const std::vector<Doubles>& in) {
    return reference::causal_conv1d(in[0], in[1], bias ? in[2] : Doubles(), sequences.offsets, channels, taps,
                                    silu);
  };
  return c;
}

// Inputs: u, delta, log of -a, b, c, then skip, z and bias if `full`.
reference::Scan<double> reference_scan(const std::vector<Doubles>& in, int64_t channels, int64_t states,
                                       int64_t groups, bool full, bool softplus) {
  reference::Scan<double> scan;
  scan.u = in[0];
  scan.delta = in[1];
  scan.a = reference::map<double>([](double v) { return -std::exp(v); }, in[2]);
  scan.b = in[3];
  scan.c = in[4];
  if (full) {
    scan.skip = in[5];
    scan.z = in[6];
    scan.bias = in[7];
  }
  scan.channels = channels;
  scan.states = states;
  scan.groups = groups;
  scan.softplus = softplus;
  return scan;
}

ops::ScanInputs scan_inputs(const std::vector<Tensor>& in, bool full) {
  ops::ScanInputs scan{in[0], in[1], ops::decay_rates(in[2]), in[3], in[4], {}, {}, {}};
  if (full) {
    scan.skip = in[5];
    scan.z = in[6];
    scan.delta_bias = in[7];
  }
  return scan;
}

OpCase scan_case(std::vector<int64_t> lengths, int64_t channels, int64_t states, int64_t groups, bool full) {
  const auto sequences = packed(lengths);
  const int64_t rows = sequences.offsets.back();
  OpCase c;
  c.name = "scan_" + std::to_string(rows) + "x" + std::to_string(channels) + "x" + std::to_string(states) +
           "_groups" + std::to_string(groups) + (full ? "_full" : "");
  c.inputs = {{Shape{rows, channels}},
              {Shape{rows, channels}, true, full ? 1.0 : 0.3},
              {Shape{channels, states}, false},
              {Shape{rows, groups * states}},
              {Shape{rows, groups * states}}};
  if (full)
    c.inputs.insert(c.inputs.end(),
                    {{Shape{channels}, false}, {Shape{rows, channels}}, {Shape{channels}, false}});
  c.op = [=](const std::vector<Tensor>& in) {
    return ops::selective_scan(scan_inputs(in, full), sequences, {groups, full});
  };
  c.reference = [=](const std::vector<Doubles>& in) {
    return reference::selective_scan(reference_scan(in, channels, states, groups, full, full),
                                     sequences.offsets);
  };
  return c;
}

// Inputs: x, dt, log of -a, b, c, then skip and bias if `full`.
OpCase ssd_case(std::vector<int64_t> lengths, int64_t heads, int64_t head_dim, int64_t states, int64_t groups,
                bool full) {
  const auto sequences = packed(lengths);
  const int64_t rows = sequences.offsets.back();
  OpCase c;
  c.name = "ssd_" + std::to_string(rows) + "x" + std::to_string(heads) + "x" + std::to_string(head_dim) +
           "x" + std::to_string(states) + "_groups" + std::to_string(groups) + (full ? "_full" : "");
  c.inputs = {{Shape{rows, heads * head_dim}},
              {Shape{rows, heads}, true, full ? 1.0 : 0.3},
              {Shape{heads}, false},
              {Shape{rows, groups * states}},
              {Shape{rows, groups * states}}};
  if (full) c.inputs.insert(c.inputs.end(), {{Shape{heads}, false}, {Shape{heads}, false}});
  // Limits that a few steps reach; without softplus there must be none below, or the slope has a corner at
  // zero.
  const float least = full ? 0.1f : -std::numeric_limits<float>::infinity(), most = full ? 3.0f : 100.0f;
  c.op = [=](const std::vector<Tensor>& in) {
    return ops::ssd({in[0], in[1], ops::decay_rates(in[2]), in[3], in[4], full ? in[5] : Tensor(),
                     full ? in[6] : Tensor()},
                    sequences, {groups, full, least, most});
  };
  c.reference = [=](const std::vector<Doubles>& in) {
    reference::Ssd<double> ssd;
    ssd.x = in[0];
    ssd.dt = in[1];
    ssd.a = reference::map<double>([](double v) { return -std::exp(v); }, in[2]);
    ssd.b = in[3];
    ssd.c = in[4];
    if (full) {
      ssd.skip = in[5];
      ssd.bias = in[6];
    }
    ssd.heads = heads;
    ssd.head_dim = head_dim;
    ssd.states = states;
    ssd.groups = groups;
    ssd.softplus = full;
    ssd.least = static_cast<double>(least);
    ssd.most = static_cast<double>(most);
    return reference::ssd(ssd, sequences.offsets);
  };
  return c;
}

OpCase split_case() {
  OpCase c;
  c.name = "split_cols";
  c.inputs = {{Shape{3, 9}}};
  // The middle piece is not used: its gradient is zero.
  c.op = [](const std::vector<Tensor>& in) {
    const auto parts = ops::split_cols(in[0], {2, 3, 4});
    return ops::concat_cols({parts[2], parts[0]});
  };
  c.reference = [](const std::vector<Doubles>& in) {
    return reference::concat_cols(reference::slice_cols(in[0], 3, 9, 5, 9), 4,
                                  reference::slice_cols(in[0], 3, 9, 0, 2), 2, 3);
  };
  return c;
}

std::string case_name(const ::testing::TestParamInfo<std::tuple<OpCase, Entry>>& info) {
  const char* entries[] = {"f32", "bf16", "bf16_inner"};
  return std::get<0>(info.param).name + "_" + entries[static_cast<int>(std::get<1>(info.param))];
}

INSTANTIATE_TEST_SUITE_P(
    All, StateSpaceOps,
    ::testing::Combine(::testing::Values(conv_case(20, 4, true, true), conv_case(3, 1, false, false),
                                         conv_case(33, 3, true, false), conv_case(16, 4, false, true),
                                         scan_case({3, 0, 1, 6}, 19, 5, 1, true),
                                         scan_case({9}, 16, 4, 1, false), scan_case({2, 5}, 40, 3, 2, true),
                                         scan_case({66, 64}, 2, 2, 1, true),
                                         ssd_case({2, 0, 5, 1}, 4, 3, 5, 2, true),
                                         ssd_case({7}, 2, 17, 4, 1, false),
                                         ssd_case({100, 193}, 2, 1, 2, 1, true), split_case()),
                       ::testing::Values(Entry::f32_leaf, Entry::bf16_leaf, Entry::bf16_inner)),
    case_name);

TEST(CausalConv, GoingOnFromAStateGivesTheBitsOfTheWhole) {
  const int64_t channels = 21, taps = 4, rows = 13;
  for (const DType type : {DType::f32, DType::bf16}) {
    const Tensor x = random_tensor({rows, channels}, 1, type), w = random_tensor({channels, taps}, 2),
                 bias = random_tensor({channels}, 3);
    const Tensor whole = ops::causal_conv1d(x, w, bias, packed({rows}), true);
    for (const std::vector<int64_t>& pieces : {std::vector<int64_t>{1, 1, 1, 1, 1, 8}, {2, 11}, {7, 0, 6}}) {
      const Tensor state = Tensor::zeros({taps - 1, channels});
      int64_t at = 0;
      for (const int64_t n : pieces) {
        const Tensor y = ops::causal_conv1d(x.row_view(at, at + n), w, bias, packed({n}), true, {state});
        EXPECT_TRUE(same_bits(y, whole.row_view(at, at + n))) << "tokens " << at << " to " << at + n;
        at += n;
      }
      EXPECT_TRUE(same_bits(state, x.row_view(rows - taps + 1, rows).to(DType::f32)));
    }
  }
}

TEST(SelectiveScan, GoingOnFromAStateGivesTheBitsOfTheWhole) {
  const int64_t channels = 37, states = 6, rows = 150;
  for (const DType type : {DType::f32, DType::bf16}) {
    const ops::ScanInputs in{random_tensor({rows, channels}, 1, type),
                             random_tensor({rows, channels}, 2, type),
                             ops::decay_rates(random_tensor({channels, states}, 3)),
                             random_tensor({rows, states}, 4, type),
                             random_tensor({rows, states}, 5, type),
                             random_tensor({channels}, 6),
                             random_tensor({rows, channels}, 7, type),
                             random_tensor({channels}, 8)};
    const auto piece = [&](int64_t begin, int64_t end) {
      ops::ScanInputs part = in;
      for (Tensor* t : {&part.u, &part.delta, &part.b, &part.c, &part.z}) *t = t->row_view(begin, end);
      return part;
    };
    const Tensor whole = ops::selective_scan(in, packed({rows}));
    // Two sequences at a time: each goes on from its own state.
    const Tensor first = Tensor::zeros({states, channels}), second = Tensor::zeros({states, channels});
    int64_t at = 0;
    for (const int64_t n : {1, 1, 70, 0, 3}) {
      ops::ScanInputs both = piece(at, at + n);
      const ops::ScanInputs other = piece(at + 75, at + 75 + n);
      for (auto member : {&ops::ScanInputs::u, &ops::ScanInputs::delta, &ops::ScanInputs::b,
                          &ops::ScanInputs::c, &ops::ScanInputs::z}) {
        both.*member = ops::concat_rows({both.*member, other.*member});
      }
      const Tensor y = ops::selective_scan(both, packed({n, n}), {}, {first, second});
      EXPECT_TRUE(same_bits(y.row_view(0, n), whole.row_view(at, at + n)));
      const Tensor alone = ops::selective_scan(piece(75, at + 75 + n), packed({at + n}));
      EXPECT_TRUE(same_bits(y.row_view(n, 2 * n), alone.row_view(at, at + n)));
      at += n;
    }
    reference::Scan<double> scan;
    const ops::ScanInputs half = piece(0, 75);
    scan.u = values_of(half.u);
    scan.delta = values_of(half.delta);
    scan.a = values_of(half.a);
    scan.b = values_of(half.b);
    scan.c = values_of(half.c);
    scan.bias = values_of(half.delta_bias);
    scan.channels = channels;
    scan.states = states;
    Doubles h, transposed;
    reference::selective_scan(scan, {0, 75}, &h);
    for (int64_t n = 0; n < states; ++n) {
      for (int64_t d = 0; d < channels; ++d) transposed.push_back(h[reference::at(d, states, n)]);
    }
    EXPECT_TRUE(close(first, transposed, 3e-6));
  }
}

TEST(SelectiveScan, SavesAStateEvery64Tokens) {
  const int64_t rows = 1024, channels = 64, states = 16;
  const Tensor u = random_leaf({rows, channels}, 1), delta = random_tensor({rows, channels}, 2);
  const Tensor b = random_tensor({rows, states}, 3), c = random_tensor({rows, states}, 4);
  const Tensor a = ops::decay_rates(random_tensor({channels, states}, 5));
  const uint64_t before = memory_use().current;
  const Tensor y = ops::selective_scan({u, delta, a, b, c, {}, {}, {}}, packed({rows}));
  const uint64_t kept = memory_use().current - before;
  // The output, a state for every 64 tokens, the rates transposed.
  const uint64_t expected = 4 * (rows * channels + rows / 64 * states * channels + states * channels);
  EXPECT_EQ(kept, expected);
}

TEST(Ssd, GoingOnFromAStateGivesTheValuesOfTheWhole) {
  const int64_t heads = 4, head_dim = 24, states = 10, groups = 2, rows = 250;
  const ops::SsdInputs in{random_tensor({rows, heads * head_dim}, 1),
                          random_tensor({rows, heads}, 2),
                          ops::decay_rates(random_tensor({heads}, 3)),
                          random_tensor({rows, groups * states}, 4),
                          random_tensor({rows, groups * states}, 5),
                          random_tensor({heads}, 6),
                          random_tensor({heads}, 7)};
  const ops::SsdOptions options{groups};
  const auto piece = [&](int64_t begin, int64_t end) {
    ops::SsdInputs part = in;
    for (Tensor* t : {&part.x, &part.dt, &part.b, &part.c}) *t = t->row_view(begin, end);
    return part;
  };
  const Tensor whole = ops::ssd(in, packed({rows}), options);
  const Doubles expected = values_of(whole);
  // Few tokens go one by one, many by chunks; both at once in one pass.
  const Tensor first = Tensor::zeros({heads, states, head_dim}),
               second = Tensor::zeros({heads, states, head_dim});
  int64_t at = 0, other = 0;
  for (const auto& [n, m] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 100}, {17, 1}, {0, 97}, {200, 16}, {32, 36}}) {
    ops::SsdInputs both = piece(at, at + n);
    const ops::SsdInputs beside = piece(other, other + m);
    for (auto member : {&ops::SsdInputs::x, &ops::SsdInputs::dt, &ops::SsdInputs::b, &ops::SsdInputs::c}) {
      both.*member = ops::concat_rows({both.*member, beside.*member});
    }
    const Doubles y = values_of(ops::ssd(both, packed({n, m}), options, {first, second}));
    const auto part = [](const Doubles& values, int64_t begin, int64_t end) {
      return Doubles(values.begin() + begin * heads * head_dim, values.begin() + end * heads * head_dim);
    };
    EXPECT_TRUE(close(part(y, 0, n), part(expected, at, at + n), 5e-6))
        << "tokens " << at << " to " << at + n;
    EXPECT_TRUE(close(part(y, n, n + m), part(expected, other, other + m), 5e-6))
        << "tokens " << other << " to " << other + m;
    at += n;
    other += m;
  }
  EXPECT_TRUE(close(first, values_of(second), 5e-6));
}

TEST(StateSpace, RefusesWhatDoesNotFit) {
  const Tensor x = Tensor::zeros({4, 8}), w = Tensor::zeros({8, 4});
  EXPECT_THAT(error_of([&] {
                ops::causal_conv1d(x, Tensor::zeros({7, 4}), {}, packed({4}), true);
              }),
              ::testing::HasSubstr("expected a weight (8, K), found f32 (7, 4)"));
  EXPECT_THAT(error_of([&] { ops::causal_conv1d(x, w, {}, packed({3}), true); }),
              ::testing::HasSubstr("do not cover the 4 tokens"));
  EXPECT_THAT(error_of([&] {
                ops::causal_conv1d(x, w, {}, packed({4}), true, {Tensor::zeros({4, 8})});
              }),
              ::testing::HasSubstr("expected states f32 (3, 8), found f32 (4, 8)"));
  EXPECT_THAT(error_of([&] {
                ops::causal_conv1d(x, w, {}, packed({2, 2}), true, {Tensor::zeros({3, 8})});
              }),
              ::testing::HasSubstr("a state for each of 2 sequences, found 1"));
  EXPECT_THAT(error_of([&] {
                ops::causal_conv1d(random_leaf({4, 8}, 1), w, {}, packed({4}), true, {Tensor::zeros({3, 8})});
              }),
              ::testing::HasSubstr("has no gradient"));
  const Tensor a = Tensor::zeros({8, 2}), b = Tensor::zeros({4, 2});
  EXPECT_THAT(error_of([&] {
                ops::selective_scan({x, x, a, b, Tensor::zeros({4, 3}), {}, {}, {}}, packed({4}));
              }),
              ::testing::HasSubstr("expected b and c f32 (4, 2), found f32 (4, 3)"));
  EXPECT_THAT(error_of([&] {
                ops::selective_scan({x, x, a, b, b, {}, {}, {}}, packed({4}), {3, true});
              }),
              ::testing::HasSubstr("3 groups do not divide 8 channels"));
}

}  // namespace
}  // namespace qkv::test
