// GGUF files of several architectures against llama.cpp's results for them (f32 cache, flash attention off).
// The files are optional data beside the checkout.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "qkv/models/bundle.h"
#include "tests/support/test_paths.h"

namespace qkv {
namespace {

struct File {
  const char* name;
  const char* path;      // without .gguf
  const char* expected;  // without .logits.json
};

void PrintTo(const File& file, std::ostream* out) {
  *out << file.name;
}

class GgufReference : public testing::TestWithParam<File> {
 protected:
  void SetUp() override {
    const std::string path = test::shared(std::string("data/") + GetParam().path + ".gguf");
    const std::string expected =
        test::shared(std::string("data/reference/") + GetParam().expected + ".logits.json");
    if (!std::filesystem::exists(path)) GTEST_SKIP() << "reference file not found at " << path;
    LoadOptions options;
    options.tokenizer_required = false;
    bundle_ = load_bundle(path, options);
    expected_ = load_json(expected);
    for (const auto& token : expected_["tokens"]) tokens_.push_back(token.get<int32_t>());
  }

  // The largest difference from rows of expected numbers.
  static double difference(const Tensor& found, const Json& rows) {
    double largest = 0;
    EXPECT_EQ(static_cast<int64_t>(rows.size()), found.rows());
    for (int64_t r = 0; r < found.rows(); ++r) {
      const Json& row = rows[static_cast<size_t>(r)];
      EXPECT_EQ(static_cast<int64_t>(row.size()), found.cols());
      for (int64_t c = 0; c < found.cols(); ++c) {
        largest = std::max(largest, std::abs(double{found.data<float>()[r * found.cols() + c]} -
                                             row[static_cast<size_t>(c)].get<double>()));
      }
    }
    return largest;
  }

  Bundle bundle_;
  Json expected_;
  std::vector<int32_t> tokens_;
};

// llama.cpp looks GELU up in a table of 16-bit floats, and takes the tanh form also for models that are
// defined by the other: without that rounding the GELU models (bert, gpt2, gptneox) differ by up to 1e-3.
TEST_P(GgufReference, GivesLlamaCppsNumbers) {
  const NoGrad off;
  const Model& model = *bundle_.model;
  const auto n = static_cast<int64_t>(tokens_.size());
  Pass pass = Pass::whole({n});
  pass.ggml_gelu = true;
  const Tensor hidden = model.forward(tokens_, pass);
  if (expected_.contains("logits")) {
    EXPECT_LT(difference(model.logits(hidden), expected_["logits"]), 1e-4);
    return;
  }
  Tensor mean = Tensor::zeros({1, hidden.cols()});  // sentence embeddings
  for (int64_t t = 0; t < n; ++t) {
    for (int64_t c = 0; c < hidden.cols(); ++c)
      mean.data<float>()[c] += hidden.data<float>()[t * hidden.cols() + c] / static_cast<float>(n);
  }
  EXPECT_LT(difference(mean, expected_["embedding"]), 1e-4);
}

INSTANTIATE_TEST_SUITE_P(
    Files, GgufReference,
    testing::Values(File{"bert", "reference/gguf_arch/bert_mean", "gguf_arch/bert_mean"},
                    File{"deepseek2", "reference/gguf_arch/deepseek2_v2", "gguf_arch/deepseek2_v2"},
                    File{"gpt2", "reference/gguf_arch/gpt2", "gguf_arch/gpt2"},
                    File{"gptneox", "reference/gguf_arch/gptneox_pythia", "gguf_arch/gptneox_pythia"},
                    File{"llama", "reference/gguf_arch/llama", "gguf_arch/llama"},
                    File{"llama_tied_yarn", "reference/gguf_arch/llama_tied_yarn",
                         "gguf_arch/llama_tied_yarn"},
                    File{"mamba", "reference/gguf_arch/mamba", "gguf_arch/mamba"},
                    File{"mixtral", "reference/gguf_arch/mixtral_moe", "gguf_arch/mixtral_moe"},
                    File{"qwen2", "reference/gguf_arch/qwen2", "gguf_arch/qwen2"},
                    File{"stories", "models/stories260K-f32", "stories/stories260K-f32"}),
    [](const auto& info) { return std::string(info.param.name); });

// llama.cpp rounds activations to the types of its products (8 bits beside quantized weights), which moves
// logits by up to 0.7; the distributions are close.
using QuantizedGgufReference = GgufReference;

TEST_P(QuantizedGgufReference, GivesNearlyLlamaCppsDistributions) {
  const NoGrad off;
  const auto n = static_cast<int64_t>(tokens_.size());
  const Tensor logits = bundle_.model->logits(bundle_.model->forward(tokens_, Pass::whole({n})));
  const auto log_softmax = [](std::vector<double> row) {
    const double most = *std::max_element(row.begin(), row.end());
    double sum = 0;
    for (const double x : row) sum += std::exp(x - most);
    for (double& x : row) x -= most + std::log(sum);
    return row;
  };
  double divergence = 0;  // of the reference from ours, mean over the tokens
  for (int64_t t = 0; t < n; ++t) {
    const float* row = logits.data<float>() + t * logits.cols();
    const auto found = log_softmax({row, row + logits.cols()});
    const auto expected = log_softmax(expected_["logits"][static_cast<size_t>(t)].get<std::vector<double>>());
    ASSERT_EQ(found.size(), expected.size());
    for (size_t i = 0; i < found.size(); ++i)
      divergence += std::exp(expected[i]) * (expected[i] - found[i]) / static_cast<double>(n);
  }
  EXPECT_LT(divergence, 1e-2);
}

INSTANTIATE_TEST_SUITE_P(Files, QuantizedGgufReference,
                         testing::Values(File{"F16", "models/stories3M-F16", "stories/stories3M-F16"},
                                         File{"Q8_0", "models/stories3M-Q8_0", "stories/stories3M-Q8_0"},
                                         File{"Q5_1", "models/stories3M-Q5_1", "stories/stories3M-Q5_1"},
                                         File{"Q4_0", "models/stories3M-Q4_0", "stories/stories3M-Q4_0"},
                                         File{"IQ4_NL", "models/stories3M-IQ4_NL",
                                              "stories/stories3M-IQ4_NL"}),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace qkv
