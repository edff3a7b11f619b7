// File types and their mixes, importance matrices there and back, and whole checkpoints through the
// quantizer.
#include "qkv/compress/quantize.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "qkv/core/atomic_file.h"
#include "qkv/core/error.h"
#include "qkv/core/parallel.h"
#include "qkv/formats/gguf.h"
#include "qkv/models/bundle.h"
#include "tests/models/tiny_models.h"
#include "tests/support/test_paths.h"

namespace qkv::test {
namespace {

// The tensors of a Llama with grouped queries, as GGUF has them.
std::vector<TensorEntry> llama_tensors(int64_t layers, bool tied = false) {
  std::vector<TensorEntry> entries = {{"token_embd.weight", DType::f16, {1000, 512}},
                                      {"output_norm.weight", DType::f32, {512}}};
  if (!tied) entries.push_back({"output.weight", DType::f16, {1000, 512}});
  for (int64_t i = 0; i < layers; ++i) {
    const std::string layer = fmt::format("blk.{}.", i);
    for (const char* name : {"attn_q", "attn_output"})
      entries.push_back({layer + name + ".weight", DType::f16, {512, 512}});
    for (const char* name : {"attn_k", "attn_v"})
      entries.push_back({layer + name + ".weight", DType::f16, {256, 512}});
    for (const char* name : {"ffn_gate", "ffn_up"})
      entries.push_back({layer + name + ".weight", DType::f16, {1024, 512}});
    entries.push_back({layer + "ffn_down.weight", DType::f16, {512, 1024}});
    entries.push_back({layer + "attn_norm.weight", DType::f32, {512}});
  }
  return entries;
}

std::map<std::string, std::optional<DType>> mix_of(FileType type, const std::vector<TensorEntry>& entries,
                                                   ModelShape model) {
  std::map<std::string, std::optional<DType>> types;
  const auto list = mixed_types(type, model, entries);
  for (size_t i = 0; i < entries.size(); ++i) types[entries[i].name] = list[i];
  return types;
}

TEST(FileTypes, NamesAndNumbers) {
  EXPECT_EQ(file_type_from_name("q4_k_m").number, 15U);
  EXPECT_EQ(file_type_from_name("IQ3_XS").number, 22U);
  EXPECT_EQ(file_types().size(), 33U);
  EXPECT_THROW(file_type_from_name("Q4_K_L"), Error);
}

// What llama.cpp gives the matrices of a 16-layer model.
TEST(FileTypes, MixOfFourBits) {
  ModelShape model{.architecture = "llama", .layers = 16, .heads_per_kv_head = 2, .tied = false};
  auto types = mix_of(FileType::q4_k_m, llama_tensors(16), model);
  EXPECT_EQ(types["output.weight"], DType::q6_k);
  EXPECT_EQ(types["token_embd.weight"], DType::q4_k);
  EXPECT_EQ(types["output_norm.weight"], std::nullopt);
  for (int i = 0; i < 16; ++i) {
    const bool more = i < 2 || i >= 14 || (i - 2) % 3 == 2;
    EXPECT_EQ(types[fmt::format("blk.{}.attn_v.weight", i)], more ? DType::q6_k : DType::q4_k) << i;
    EXPECT_EQ(types[fmt::format("blk.{}.ffn_down.weight", i)], more ? DType::q6_k : DType::q4_k) << i;
    EXPECT_EQ(types[fmt::format("blk.{}.attn_q.weight", i)], DType::q4_k) << i;
  }
  // A tied embedding is the head, too.
  model.tied = true;
  types = mix_of(FileType::q4_k_m, llama_tensors(2, true), model);
  EXPECT_EQ(types["token_embd.weight"], DType::q6_k);
}

TEST(FileTypes, OtherMixes) {
  ModelShape model{.architecture = "llama", .layers = 16, .heads_per_kv_head = 4, .tied = false};
  const auto entries = llama_tensors(16);
  EXPECT_EQ(mix_of(FileType::q2_k, entries, model)["blk.3.attn_v.weight"], DType::q4_k);
  EXPECT_EQ(mix_of(FileType::q2_k, entries, model)["blk.3.ffn_down.weight"], DType::q3_k);
  EXPECT_EQ(mix_of(FileType::q3_k_l, entries, model)["blk.3.attn_output.weight"], DType::q5_k);
  EXPECT_EQ(mix_of(FileType::iq2_xxs, entries, model)["token_embd.weight"], DType::q2_k);
  EXPECT_EQ(mix_of(FileType::iq2_xxs, entries, model)["output.weight"], DType::q5_k);
  EXPECT_EQ(mix_of(FileType::iq2_xxs, entries, model)["blk.1.ffn_down.weight"], DType::q2_k);
  EXPECT_EQ(mix_of(FileType::iq2_xxs, entries, model)["blk.2.ffn_down.weight"], DType::iq2_xxs);
  EXPECT_EQ(mix_of(FileType::iq1_s, entries, model)["blk.2.attn_output.weight"], DType::iq2_xxs);
  EXPECT_EQ(mix_of(FileType::q8_0, entries, model)["output.weight"], DType::q8_0);
  EXPECT_EQ(mix_of(FileType::f16, entries, model)["output.weight"], DType::f16);
  EXPECT_EQ(mix_of(FileType::q4_0, entries, model)["blk.0.ffn_down.weight"], DType::q4_0);
  model.has_importance = true;
  EXPECT_EQ(mix_of(FileType::q4_0, entries, model)["blk.0.ffn_down.weight"], DType::q4_1);
  EXPECT_EQ(mix_of(FileType::mxfp4_moe, entries, model)["blk.0.attn_q.weight"], DType::q8_0);
  EXPECT_EQ(mix_of(FileType::mxfp4_moe, {{"blk.0.ffn_up_exps.weight", DType::f16, {4, 64, 64}}},
                   model)["blk.0.ffn_up_exps.weight"],
            DType::mxfp4);
}

TEST(FileTypes, WhatIsNoMatrix) {
  EXPECT_TRUE(is_quantizable("blk.0.attn_q.weight", {8, 8}));
  for (const char* name : {"blk.0.attn_q_norm.weight", "blk.0.ffn_gate_inp.weight", "blk.0.ssm_conv1d.weight",
                           "position_embd.weight", "blk.0.attn_q.bias", "blk.0.time_mix_w1.weight"}) {
    EXPECT_FALSE(is_quantizable(name, {8, 8})) << name;
  }
  EXPECT_FALSE(is_quantizable("blk.0.attn_q.weight", {8}));
}

TEST(FileTypes, RowsThatDoNotFit) {
  EXPECT_EQ(fitting_type(DType::q4_k, 512), DType::q4_k);
  EXPECT_EQ(fitting_type(DType::q4_k, 192), DType::q5_0);
  EXPECT_EQ(fitting_type(DType::q6_k, 192), DType::q8_0);
  EXPECT_EQ(fitting_type(DType::iq3_s, 192), DType::iq4_nl);
  EXPECT_EQ(fitting_type(DType::q2_k, 192), DType::q4_0);
  EXPECT_EQ(fitting_type(DType::q4_0, 40), DType::f16);
  EXPECT_EQ(fitting_type(DType::f16, 7), DType::f16);
}

// ---- importances ----

Importance sample_importance() {
  Importance importance;
  importance.matrices["blk.0.ffn_down.weight"] = {{1.5f, 6.0f, 0.0f, 3.0f}, {3}};
  importance.matrices["blk.0.ffn_up_exps.weight"] = {{2, 4, 9, 9, 0, 0}, {2, 3, 0}};
  importance.datasets = {"text.txt"};
  importance.chunk_tokens = 3;
  importance.chunks = 1;
  return importance;
}

TEST(Importances, ThereAndBack) {
  const TemporaryDirectory directory;
  const Importance importance = sample_importance();
  write_importance(directory / "i.gguf", importance);
  const Importance gguf = read_importance(directory / "i.gguf");
  ASSERT_EQ(gguf.matrices.size(), 2U);
  EXPECT_EQ(gguf.matrices.at("blk.0.ffn_up_exps.weight").counts, (std::vector<int64_t>{2, 3, 0}));
  EXPECT_EQ(gguf.datasets, importance.datasets);
  EXPECT_EQ(gguf.chunks, 1);
  EXPECT_EQ(gguf.chunk_tokens, 3);
  // Experts without a token count as any other column.
  EXPECT_EQ(gguf.matrices.at("blk.0.ffn_up_exps.weight").means(), (std::vector<float>{1, 2, 3, 3, 1, 1}));
  write_importance(directory / "i.dat", importance);
  const Importance dat = read_importance(directory / "i.dat");
  ASSERT_EQ(dat.matrices.size(), 2U);
  for (const auto& [name, matrix] : importance.matrices)
    EXPECT_EQ(dat.matrices.at(name).means(), matrix.means()) << name;
  EXPECT_EQ(dat.datasets, importance.datasets);
}

TEST(Importances, DamagedFilesAreRefused) {
  const TemporaryDirectory directory;
  write_importance(directory / "i.dat", sample_importance());
  const std::string whole = read_file(directory / "i.dat");
  for (size_t length = 0; length < whole.size(); length += 3) {
    write_file(directory / "cut.dat", whole.substr(0, length));
    // After the last entry a file may end: older ones do.
    if (length >= whole.size() - 16) continue;
    EXPECT_THROW(read_importance(directory / "cut.dat"), Error) << length;
  }
  for (size_t at = 0; at < whole.size(); ++at) {
    std::string other = whole;
    other[at] = static_cast<char>(other[at] ^ 0xFF);
    write_file(directory / "other.dat", other);
    try {
      read_importance(directory / "other.dat");
    } catch (const Error&) {
    }
  }
  Importance bad = sample_importance();
  bad.matrices["blk.0.ffn_down.weight"].sums[1] = -1;
  write_importance(directory / "bad.gguf", bad);
  EXPECT_THROW(read_importance(directory / "bad.gguf"), Error);
}

TEST(Importances, OfAnotherModel) {
  Importance importance = sample_importance();
  const std::vector<TensorEntry> own = {{"blk.0.ffn_down.weight", DType::f16, {8, 4}},
                                        {"blk.0.ffn_up_exps.weight", DType::f16, {3, 5, 2}}};
  EXPECT_NO_THROW(importance.require_of(own, "i"));
  EXPECT_THROW(importance.require_of({own[0]}, "i"), Error);
  EXPECT_THROW(importance.require_of({{"blk.0.ffn_down.weight", DType::f16, {4, 8}}, own[1]}, "i"), Error);
}

// ---- whole checkpoints ----

TEST(QuantizeCheckpoint, EveryArchitectureInEveryPlainType) {
  const TemporaryDirectory directory;
  for (const TinyModel& tiny : tiny_models()) {
    const std::string source = directory / tiny.name;
    std::filesystem::create_directory(source);
    write_tiny_model(tiny, source, DType::f32);
    const auto checkpoint = open_checkpoint(source);
    for (const FileType type : {FileType::q8_0, FileType::q4_k_m}) {
      QuantizeOptions options{.type = type};
      const QuantizePlan plan = plan_quantization(*checkpoint, options);
      const std::string output = directory / (std::string(tiny.name) + ".gguf");
      write_quantized(*checkpoint, plan, options, output);
      const GgufFile file(output);
      EXPECT_EQ(file.metadata().integer("general.file_type"), traits(type).number);
      EXPECT_EQ(file.entries().size(), plan.tensors.size());
      // The model loads and every weight is near what it was.
      LoadOptions load;
      load.tokenizer_required = false;
      EXPECT_NO_THROW(load_bundle(output, load)) << tiny.name;
      const QuantizePlan exact = plan_quantization(*checkpoint, {.type = FileType::f32});
      for (size_t i = 0; i < plan.tensors.size(); ++i) {
        const std::vector<float> expected = make_tensor(*checkpoint, exact.conversion.tensors[i]).to_floats();
        const std::vector<float> found = file.read(plan.tensors[i].name).to_floats();
        double error = 0, size = 0;
        for (size_t k = 0; k < expected.size(); ++k) {
          error += std::pow(static_cast<double>(expected[k] - found[k]), 2);
          size += std::pow(static_cast<double>(expected[k]), 2);
        }
        EXPECT_LE(error, (type == FileType::q8_0 ? 1e-4 : 0.01) * size)
            << tiny.name << " " << plan.tensors[i].name;
      }
    }
  }
}

TEST(QuantizeTensor, DoesNotDependOnThreads) {
  Tensor values = Tensor::empty({37, 768});
  Rng rng(1);
  for (int64_t i = 0; i < values.elements(); ++i) values.data<float>()[i] = rng.normal();
  const int threads = num_threads();
  set_num_threads(1);
  const Tensor one = quantize_tensor(values, DType::q4_k, nullptr, "t");
  set_num_threads(3);
  const Tensor three = quantize_tensor(values, DType::q4_k, nullptr, "t");
  set_num_threads(threads);
  EXPECT_EQ(std::memcmp(one.raw(), three.raw(), one.bytes()), 0);
}

TEST(QuantizeTensor, ExpertsHaveTheirOwnImportances) {
  Tensor values = Tensor::empty({2, 3, 256});
  Rng rng(2);
  std::vector<float> importance;
  for (int64_t i = 0; i < values.elements(); ++i) values.data<float>()[i] = rng.normal();
  for (int i = 0; i < 512; ++i) importance.push_back(std::exp(2 * rng.normal()));
  const Tensor both = quantize_tensor(values, DType::q3_k, &importance, "t");
  for (int64_t e = 0; e < 2; ++e) {
    const std::vector<float> own(importance.begin() + 256 * e, importance.begin() + 256 * (e + 1));
    const Tensor one = quantize_tensor(values.row_view(e, e + 1), DType::q3_k, &own, "t");
    EXPECT_EQ(std::memcmp(one.raw(), both.raw() + static_cast<size_t>(e) * one.bytes(), one.bytes()), 0) << e;
  }
}

TEST(QuantizeTensor, ZerosStayZerosInEveryType) {
  const std::vector<float> importance(256, 2.0f), none(256, 0.0f);
  for (int i = 0; i < kDTypeCount; ++i) {
    const auto type = static_cast<DType>(i);
    if (!block_type(type)) continue;
    for (const std::vector<float>* weights :
         {static_cast<const std::vector<float>*>(nullptr), &importance, &none}) {
      const Tensor zeros = quantize_tensor(Tensor::zeros({3, 256}), type, weights, "t").to(DType::f32);
      for (const float value : zeros.to_floats()) ASSERT_EQ(value, 0.0f) << name(type);
    }
  }
}

TEST(QuantizeTensor, NamesWhatIsNotFinite) {
  Tensor values = Tensor::zeros({4, 64});
  values.data<float>()[64 * 2 + 5] = NAN;
  try {
    quantize_tensor(values, DType::q8_0, nullptr, "tensor 'x'");
    FAIL() << "expected an error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what())
                  .find("tensor 'x': expected finite values up to 65504, found nan at row 2, column 5"),
              std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace qkv::test
