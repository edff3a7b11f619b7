// Reference vectors of the state-space ops, computed in double precision by the reference functions of the
// mamba package.
#include "tests/support/golden_safetensors.h"
#include "tests/support/test_paths.h"
#include "tests/tensor/tensor_testing.h"

namespace qkv::test {
namespace {

const GoldenSafetensors& file() {
  static const GoldenSafetensors instance(golden("ssm/ssm.safetensors"));
  return instance;
}

// (batch, ..., length) -> (batch * length, ...), tokens packed.
Doubles tokens_first(const Doubles& values, const std::vector<int64_t>& shape) {
  const int64_t batch = shape.front(), length = shape.back();
  const int64_t width = static_cast<int64_t>(values.size()) / (batch * length);
  Doubles result(values.size());
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t w = 0; w < width; ++w) {
      for (int64_t t = 0; t < length; ++t) {
        result[static_cast<size_t>((b * length + t) * width + w)] =
            values[static_cast<size_t>((b * width + w) * length + t)];
      }
    }
  }
  return result;
}

Doubles packed_values(const std::string& name) {
  return tokens_first(file().values(name), file().shape(name));
}

Tensor packed_leaf(const std::string& name) {
  const Doubles values = packed_values(name);
  const int64_t rows = file().shape(name).front() * file().shape(name).back();
  return tensor_of(values, {rows, static_cast<int64_t>(values.size()) / rows}).set_requires_grad(true);
}

Tensor leaf(const std::string& name) {
  return tensor_of(file().values(name), Shape(file().shape(name))).set_requires_grad(true);
}

ops::PackedSequences batch_of(int64_t batch, int64_t length) {
  ops::PackedSequences sequences{{0}};
  for (int64_t b = 1; b <= batch; ++b) sequences.offsets.push_back(b * length);
  return sequences;
}

// f32 against double over short recurrences.
constexpr double kTolerance = 3e-6;

TEST(GoldenSsm, CausalConv) {
  const std::string name = "causal_conv1d_silu.";
  const auto shape = file().shape(name + "x");
  const Tensor x = packed_leaf(name + "x"), w = leaf(name + "weight"), bias = leaf(name + "bias");
  const Tensor y = ops::causal_conv1d(x, w, bias, batch_of(shape[0], shape[2]), true);
  EXPECT_TRUE(close(y, packed_values(name + "out"), kTolerance));
  backward(y, packed_leaf(name + "dout").detach());
  EXPECT_TRUE(close(x.grad(), packed_values(name + "dx"), kTolerance));
  EXPECT_TRUE(close(w.grad(), file().values(name + "dweight"), kTolerance));
  EXPECT_TRUE(close(bias.grad(), file().values(name + "dbias"), kTolerance));
}

TEST(GoldenSsm, SelectiveScan) {
  struct Case {
    std::string name;
    int64_t groups;
    bool skip_and_bias, gate;
  };
  for (const Case& c : {Case{"scan_full.", 1, true, true}, Case{"scan_plain.", 1, false, false},
                        Case{"scan_groups.", 3, true, true}, Case{"scan_noz.", 1, true, false}}) {
    SCOPED_TRACE(c.name);
    const auto shape = file().shape(c.name + "u");  // (batch, channels, length)
    const auto sequences = batch_of(shape[0], shape[2]);
    ops::ScanInputs in{packed_leaf(c.name + "u"),
                       packed_leaf(c.name + "delta"),
                       leaf(c.name + "A"),
                       packed_leaf(c.name + "B"),
                       packed_leaf(c.name + "C"),
                       {},
                       {},
                       {}};
    if (c.skip_and_bias) {
      in.skip = leaf(c.name + "D");
      in.delta_bias = leaf(c.name + "delta_bias");
    }
    if (c.gate) in.z = packed_leaf(c.name + "z");
    const ops::ScanOptions options{c.groups, c.skip_and_bias};
    const Tensor y = ops::selective_scan(in, sequences, options);
    EXPECT_TRUE(close(y, packed_values(c.name + "out"), kTolerance));
    backward(y, packed_leaf(c.name + "dout").detach());
    EXPECT_TRUE(close(in.u.grad(), packed_values(c.name + "du"), kTolerance));
    EXPECT_TRUE(close(in.delta.grad(), packed_values(c.name + "ddelta"), kTolerance));
    EXPECT_TRUE(close(in.a.grad(), file().values(c.name + "dA"), kTolerance));
    EXPECT_TRUE(close(in.b.grad(), packed_values(c.name + "dB"), kTolerance));
    EXPECT_TRUE(close(in.c.grad(), packed_values(c.name + "dC"), kTolerance));
    if (c.skip_and_bias) {
      EXPECT_TRUE(close(in.skip.grad(), file().values(c.name + "dD"), kTolerance));
      EXPECT_TRUE(close(in.delta_bias.grad(), file().values(c.name + "ddelta_bias"), kTolerance));
    }
    if (c.gate) {
      EXPECT_TRUE(close(in.z.grad(), packed_values(c.name + "dz"), kTolerance));
    }

    const NoGrad off;
    std::vector<Tensor> states;
    for (int64_t b = 0; b < shape[0]; ++b) states.push_back(Tensor::zeros({in.a.dim(1), shape[1]}));
    ops::selective_scan(in, sequences, options, states);
    Doubles last;  // (batch, channels, states)
    for (const Tensor& state : states) {
      for (int64_t d = 0; d < shape[1]; ++d) {
        for (int64_t n = 0; n < state.dim(0); ++n) last.push_back(state.data<float>()[n * shape[1] + d]);
      }
    }
    EXPECT_TRUE(close(last, file().values(c.name + "last_state"), kTolerance));
  }
}

TEST(GoldenSsm, Ssd) {
  // Tokens first already; every head has a group of its own.
  const auto shape = file().shape("ssd.x");  // (batch, length, heads, head_dim)
  const int64_t rows = shape[0] * shape[1], heads = shape[2], head_dim = shape[3],
                states = file().shape("ssd.B")[3];
  const auto matrix = [&](const std::string& name) {
    const Doubles values = file().values("ssd." + name);
    return tensor_of(values, {rows, static_cast<int64_t>(values.size()) / rows}).set_requires_grad(true);
  };
  const ops::SsdInputs in{matrix("x"), matrix("dt"), leaf("ssd.A"), matrix("B"), matrix("C"), {}, {}};
  const ops::SsdOptions options{heads, false};
  const Tensor y = ops::ssd(in, batch_of(shape[0], shape[1]), options);
  EXPECT_TRUE(close(y, file().values("ssd.out"), kTolerance));
  backward(y, matrix("dout").detach());
  EXPECT_TRUE(close(in.x.grad(), file().values("ssd.dx"), kTolerance));
  EXPECT_TRUE(close(in.dt.grad(), file().values("ssd.ddt"), kTolerance));
  EXPECT_TRUE(close(in.a.grad(), file().values("ssd.dA"), kTolerance));
  EXPECT_TRUE(close(in.b.grad(), file().values("ssd.dB"), kTolerance));
  EXPECT_TRUE(close(in.c.grad(), file().values("ssd.dC"), kTolerance));

  const NoGrad off;
  std::vector<Tensor> last;
  for (int64_t b = 0; b < shape[0]; ++b) last.push_back(Tensor::zeros({heads, states, head_dim}));
  ops::ssd(in, batch_of(shape[0], shape[1]), options, last);
  Doubles found;  // (batch, heads, head_dim, states)
  for (const Tensor& state : last) {
    for (int64_t h = 0; h < heads; ++h) {
      for (int64_t p = 0; p < head_dim; ++p) {
        for (int64_t n = 0; n < states; ++n)
          found.push_back(state.data<float>()[(h * states + n) * head_dim + p]);
      }
    }
  }
  EXPECT_TRUE(close(found, file().values("ssd.final_state"), kTolerance));
}

}  // namespace
}  // namespace qkv::test
