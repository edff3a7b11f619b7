#include "qkv/eval/logits.h"

#include <gtest/gtest.h>

#include "qkv/core/atomic_file.h"
#include "qkv/formats/safetensors.h"
#include "tests/eval/eval_support.h"
#include "tests/support/test_paths.h"

namespace qkv::test {
namespace {

class LogitsFiles : public testing::Test {
 protected:
  std::string file(const std::string& name, std::string_view text) {
    write_file(directory_ / name, text);
    return directory_ / name;
  }
  std::string tensors(const std::string& name, const NamedTensors& outputs) {
    std::vector<TensorEntry> entries;
    for (const auto& [key, tensor] : outputs)
      entries.push_back({.name = key, .type = tensor.dtype(), .shape = tensor.shape()});
    SafetensorsWriter writer(directory_ / name, entries, TensorOrder::given);
    for (const auto& [key, tensor] : outputs) writer.write(key, tensor);
    writer.finish();
    return directory_ / name;
  }
  TemporaryDirectory directory_;
  Bundle bundle_ = byte_bundle();
};

TEST_F(LogitsFiles, EqualRowsAreOneTensor) {
  const auto rows = read_id_rows(file("ids.json", "[[1, 2, 3], [200, 100, 0]]"));
  const NamedTensors outputs = compute_outputs(*bundle_.model, rows);
  ASSERT_EQ(outputs.size(), 1u);
  EXPECT_EQ(outputs[0].first, "logits");
  EXPECT_EQ(outputs[0].second.shape(), (Shape{2, 3, 257}));
  const NoGrad off;
  const Tensor second = bundle_.model->logits(bundle_.model->forward(rows[1], Pass::whole({3})));
  for (int64_t i = 0; i < second.elements(); ++i)
    EXPECT_EQ(outputs[0].second.data<float>()[3 * 257 + i], second.data<float>()[i]);
}

TEST_F(LogitsFiles, UnequalRowsAreNumbered) {
  const auto rows = read_id_rows(file("ids.json", R"({"input_ids": [[1], [2, 3]]})"));
  const NamedTensors outputs = compute_outputs(*bundle_.model, rows);
  ASSERT_EQ(outputs.size(), 2u);
  EXPECT_EQ(outputs[1].first, "logits.1");
  EXPECT_EQ(outputs[1].second.shape(), (Shape{2, 257}));
}

TEST_F(LogitsFiles, ComparisonFindsTheLargestDifference) {
  const std::vector<std::vector<int32_t>> rows = {{1, 2, 3}, {4, 5, 6}};
  const NamedTensors outputs = compute_outputs(*bundle_.model, rows);
  const std::string same = tensors("same.safetensors", outputs);
  const auto equal = compare_outputs(outputs, same);
  EXPECT_EQ(equal[0].max_difference, 0);
  EXPECT_EQ(equal[0].same_top, 1);
  EXPECT_NEAR(equal[0].mean_kl, 0, 1e-12);
  EXPECT_EQ(equal[0].rows, 6);

  Tensor changed = outputs[0].second.clone();
  changed.data<float>()[5 * 257 + 9] += 0.5f;
  const auto differs = compare_outputs({{"logits", changed}}, same);
  EXPECT_NEAR(differs[0].max_difference, 0.5, 1e-6);
  EXPECT_GT(differs[0].mean_kl, 0);
  const std::vector<std::vector<int32_t>> mask = {{1, 1, 1}, {1, 1, 0}};
  EXPECT_EQ(compare_outputs({{"logits", changed}}, same, mask)[0].max_difference,
            0);  // the changed row is padding
  changed.data<float>()[0] = NAN;
  EXPECT_TRUE(std::isinf(compare_outputs({{"logits", changed}}, same)[0].max_difference));
}

TEST_F(LogitsFiles, MaskedTokensAreNotRun) {
  const std::vector<std::vector<int32_t>> rows = {{1, 2, 3}, {4, 5, 6}};
  const auto mask = read_mask_rows(file("mask.json", "[[1, 1, 1], [1, 1, 0]]"), rows);
  const NamedTensors outputs = compute_outputs(*bundle_.model, rows, mask);
  for (int64_t v = 0; v < 257; ++v) EXPECT_EQ(outputs[0].second.data<float>()[5 * 257 + v], 0);
}

TEST_F(LogitsFiles, BadInputIsNamed) {
  EXPECT_NE(error_of([&] {
              read_id_rows(file("a.json", "[[1], [2.5]]"));
            }).find("row 2: expected token ids, found 2.5"),
            std::string::npos);
  EXPECT_NE(error_of([&] { read_id_rows(file("a.json", "[]")); }).find("found an empty list"),
            std::string::npos);
  EXPECT_NE(
      error_of([&] { read_id_rows(file("a.json", "[1, 2]")); }).find("row 1: expected a list of integers"),
      std::string::npos);
  const std::vector<std::vector<int32_t>> rows = {{1, 2, 3}};
  EXPECT_NE(error_of([&] { read_mask_rows(file("m.json", "[[0, 1, 1]]"), rows); }).find("ones, then zeros"),
            std::string::npos);
  EXPECT_NE(error_of([&] { read_mask_rows(file("m.json", "[[1, 1]]"), rows); }).find("expected 3 values"),
            std::string::npos);
  EXPECT_NE(error_of([&] {
              compute_outputs(*bundle_.model, {{300}});
            }).find("expected token ids below 257, found 300"),
            std::string::npos);
  const std::string other = tensors("other.safetensors", {{"logits", Tensor::zeros({1, 2})}});
  EXPECT_NE(error_of([&] {
              compare_outputs({{"logits", Tensor::zeros({1, 3})}}, other);
            }).find("found (1, 2)"),
            std::string::npos);
}

}  // namespace
}  // namespace qkv::test
