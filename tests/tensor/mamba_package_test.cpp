// Vectors of the mamba package's CUDA kernels (f32), optional data beside the checkout: the convolution, the
// selective scan with its gradients, and one step of it.
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "tests/support/test_paths.h"
#include "tests/tensor/tensor_testing.h"

namespace qkv::test {
namespace {

// f32 against f32, each a few roundings from the truth.
constexpr double kTolerance = 1e-5;

struct Array {
  Doubles values;
  std::vector<int64_t> shape;
};

void flatten(const nlohmann::json& data, Doubles& to) {
  if (!data.is_array()) return to.push_back(data.is_number() ? data.get<double>() : std::nan(""));
  for (const auto& item : data) flatten(item, to);
}

class MambaPackage : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string path = shared("data/reference/mamba/mamba_reference_cases.json");
    if (!std::filesystem::exists(path)) GTEST_SKIP() << "reference vectors not found at " << path;
    std::ifstream file(path);
    std::string text((std::istreambuf_iterator<char>(file)), {});
    for (size_t at = text.find("NaN"); at != std::string::npos; at = text.find("NaN", at))
      text.replace(at, 3, "\"\"");
    cases_ = nlohmann::json::parse(text);
  }
  Array read(const std::string& pointer) const {
    const auto& stored = cases_.at(nlohmann::json::json_pointer(pointer));
    Array array;
    flatten(stored.at("data"), array.values);
    array.shape = stored.at("shape").get<std::vector<int64_t>>();
    return array;
  }
  nlohmann::json cases_;
};

// (batch, width, length) -> (batch * length, width).
Doubles tokens_first(const Array& array) {
  const int64_t batch = array.shape[0], width = array.shape[1], length = array.shape[2];
  Doubles result;
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t t = 0; t < length; ++t) {
      for (int64_t w = 0; w < width; ++w)
        result.push_back(array.values[static_cast<size_t>((b * width + w) * length + t)]);
    }
  }
  return result;
}

Tensor packed_leaf(const Array& array) {
  return tensor_of(tokens_first(array), {array.shape[0] * array.shape[2], array.shape[1]})
      .set_requires_grad(true);
}
Tensor leaf(const Array& array) {
  return tensor_of(array.values, Shape(array.shape)).set_requires_grad(true);
}

ops::PackedSequences batch_of(int64_t batch, int64_t length) {
  ops::PackedSequences sequences{{0}};
  for (int64_t b = 1; b <= batch; ++b) sequences.offsets.push_back(b * length);
  return sequences;
}

TEST_F(MambaPackage, CausalConv) {
  const std::string first = "/dw_causal_conv/channels_first_silu/",
                    last = "/dw_causal_conv/channels_last_identity/";
  {
    const Tensor x = packed_leaf(read(first + "inputs/x")), w = leaf(read(first + "inputs/weight")),
                 bias = leaf(read(first + "inputs/bias"));
    const Tensor y = ops::causal_conv1d(x, w, bias, batch_of(2, 5), true);
    EXPECT_TRUE(close(y, tokens_first(read(first + "outputs/y")), kTolerance));
  }
  const Array x = read(last + "inputs/x");
  const Tensor in = tensor_of(x.values, {x.shape[0] * x.shape[1], x.shape[2]});
  const Tensor y =
      ops::causal_conv1d(in, leaf(read(last + "inputs/weight")), {}, batch_of(x.shape[0], x.shape[1]), false);
  EXPECT_TRUE(close(y, read(last + "outputs/y").values, kTolerance));
}

TEST_F(MambaPackage, SelectiveScan) {
  for (const std::string name : {"minimal", "time_varying_3d", "full"}) {
    SCOPED_TRACE(name);
    const std::string root = "/selective_scan/" + name + "/";
    const auto& inputs = cases_.at(nlohmann::json::json_pointer(root + "inputs"));
    const auto input = [&](const std::string& key) { return read(root + "inputs/" + key); };
    ops::ScanInputs in;
    in.u = packed_leaf(input("u"));
    in.delta = packed_leaf(input("delta"));
    in.a = leaf(input("A"));
    const int64_t rows = in.u.rows(), channels = in.u.cols(), states = in.a.dim(1);
    // b and c of every token, or (channels, states) for all tokens alike: then each channel is a group.
    const bool constant = input("B").shape.size() == 2;
    const auto per_token = [&](const Array& array) {
      if (!constant) return packed_leaf(array);
      Doubles repeated;
      for (int64_t t = 0; t < rows; ++t)
        repeated.insert(repeated.end(), array.values.begin(), array.values.end());
      return tensor_of(repeated, {rows, channels * states}).set_requires_grad(true);
    };
    in.b = per_token(input("B"));
    in.c = per_token(input("C"));
    if (inputs.contains("D")) in.skip = leaf(input("D"));
    if (inputs.contains("z")) in.z = packed_leaf(input("z"));
    if (inputs.contains("delta_bias")) in.delta_bias = leaf(input("delta_bias"));
    const ops::ScanOptions options{constant ? channels : 1, name != "minimal"};
    const Tensor y = ops::selective_scan(in, batch_of(2, 5), options);
    ASSERT_TRUE(close(y, tokens_first(read(root + "outputs/y")), kTolerance));
    if (name == "full") continue;             // some of its stored gradients are NaN
    backward(y, Tensor::full(y.shape(), 1));  // the loss was the sum
    const auto expected = [&](const std::string& key) { return read(root + "gradients/" + key); };
    EXPECT_TRUE(close(in.u.grad(), tokens_first(expected("u")), kTolerance));
    EXPECT_TRUE(close(in.delta.grad(), tokens_first(expected("delta")), kTolerance));
    EXPECT_TRUE(close(in.a.grad(), expected("A").values, kTolerance));
    const auto of_states = [&](const Tensor& grad, const Array& array) {
      if (!constant) return close(grad, tokens_first(array), kTolerance);
      return close(reference::sum_rows(values_of(grad), rows, channels * states), array.values, kTolerance);
    };
    EXPECT_TRUE(of_states(in.b.grad(), expected("B")));
    EXPECT_TRUE(of_states(in.c.grad(), expected("C")));
  }
}

TEST_F(MambaPackage, OneStep) {
  const std::string root = "/selective_state_update/baseline_full/";
  const auto input = [&](const std::string& key) { return leaf(read(root + "inputs/" + key)).detach(); };
  const Array before = read(root + "inputs/state"),
              after = read(root + "outputs/updated_state");  // (batch, channels, states)
  const int64_t batch = before.shape[0], channels = before.shape[1], n = before.shape[2];
  const auto state_of = [&](const Array& array, int64_t b) {  // (states, channels)
    Doubles values;
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t d = 0; d < channels; ++d)
        values.push_back(array.values[static_cast<size_t>((b * channels + d) * n + i)]);
    }
    return values;
  };
  std::vector<Tensor> states;
  for (int64_t b = 0; b < batch; ++b) states.push_back(tensor_of(state_of(before, b), {n, channels}));
  const ops::ScanInputs in{input("x"), input("dt"), input("A"), input("B"),
                           input("C"), input("D"),  input("z"), input("dt_bias")};
  const Tensor y = ops::selective_scan(in, batch_of(batch, 1), {1, true}, states);
  EXPECT_TRUE(close(y, read(root + "outputs/y").values, kTolerance));
  for (int64_t b = 0; b < batch; ++b)
    EXPECT_TRUE(close(states[static_cast<size_t>(b)], state_of(after, b), kTolerance));
}

}  // namespace
}  // namespace qkv::test
