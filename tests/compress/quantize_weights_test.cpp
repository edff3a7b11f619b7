#include "qkv/compress/quantize_weights.h"

#include "qkv/formats/checkpoint.h"
#include "qkv/quant/four_bit.h"
#include "qkv/quant/llm_int8.h"
#include "qkv/quant/scaled_fp8.h"
#include "tests/compress/compress_support.h"

namespace qkv {
namespace {

WeightQuantizeOptions options_for(WeightMethod method) {
  WeightQuantizeOptions options;
  options.rounding.method = method;
  options.rounding.group = 32;
  options.text = test::words(1500);
  options.calibration.context = 64;
  return options;
}

std::map<std::string, Tensor> loaded(const std::string& path) {
  Bundle bundle = load_bundle(path);
  return test::parameters_of(*bundle.model);
}

bool is_matrix_of_block(const std::string& name, const Tensor& tensor) {
  return name.starts_with("blocks.") && tensor.shape().rank() == 2;
}

class QuantizeWeights : public testing::Test {
 protected:
  QuantizeWeights() {
    auto model = test::random_model(test::llama_config());
    original = test::parameters_of(*model);
    test::write_model(*model, source, DType::f32);
  }
  test::TemporaryDirectory work;
  const std::string source = work / "source";
  std::map<std::string, Tensor> original;
};

// What is read from the written directory is what the method made, to the bit; everything else is as it was.
TEST_F(QuantizeWeights, MethodsWithoutTextGiveTheirOwnValues) {
  struct Case {
    WeightMethod method;
    std::function<Tensor(const Tensor&)> expected;
    const char* quant_method;
  };
  const auto four_bits = [](const Tensor& w, const std::array<float, 16>& map) {
    const BlockCodes blocks = quantize_blockwise(w.span<float>(), kFourBitBlock, map);
    const std::vector<float> scales = nest_scales(blocks.scales).dequantize();
    Tensor result = Tensor::empty(w.shape());
    for (size_t i = 0; i < blocks.codes.size(); ++i)
      result.data<float>()[i] = map[blocks.codes[i]] * scales[i / 64];
    return result;
  };
  const std::vector<Case> cases = {
      {WeightMethod::rtn,
       [](const Tensor& w) {
         return round_to_nearest(w, {.bits = 4, .group = 32, .scale_type = DType::f16}).dequantize();
       },
       "compressed-tensors"},
      {WeightMethod::nf4, [&](const Tensor& w) { return four_bits(w, nf4_values()); }, "bitsandbytes"},
      {WeightMethod::fp4, [&](const Tensor& w) { return four_bits(w, fp4_values()); }, "bitsandbytes"},
      {WeightMethod::int8, [](const Tensor& w) { return Int8Weight(quantize_int8_rows(w)).dequantize(); },
       "bitsandbytes"},
      {WeightMethod::fp8,
       [](const Tensor& w) {
         const Fp8Matrix matrix = quantize_fp8(w, DType::f8_e4m3, 1, 0);
         Tensor result = matrix.values.to(DType::f32);
         for (int64_t i = 0; i < result.elements(); ++i)
           result.data<float>()[i] *= matrix.scales.data<float>()[i / w.cols()];
         return result;
       },
       "compressed-tensors"},
  };
  for (const auto& [method, expected, quant_method] : cases) {
    for (const char* name : {"out", "out.qkv"}) {
      const std::string output =
          work / (std::string(quant_method) + std::to_string(static_cast<int>(method)) + name);
      const WeightQuantizeReport report = quantize_weights(source, output, options_for(method));
      EXPECT_EQ(report.quantized, 21);
      EXPECT_EQ(report.kept, 0);
      EXPECT_LT(report.bytes, report.bytes_before);
      const auto stored = open_checkpoint(output);
      EXPECT_EQ(stored->stored().config()->at("quantization_config").at("quant_method"), quant_method);
      for (const auto& [parameter, values] : loaded(output)) {
        const Tensor& before = original.at(parameter);
        const Tensor wanted = is_matrix_of_block(parameter, before) ? expected(before) : before;
        // LLM.int8() spells 1 / 127 as bitsandbytes does, in its reader.
        const double tolerance = method == WeightMethod::int8 ? 1e-6 : 0;
        ASSERT_LE(test::largest_difference(values.to_floats(), wanted.to_floats()), tolerance)
            << parameter << ' ' << quant_method;
      }
    }
  }
}

TEST_F(QuantizeWeights, DirectoriesAndQkvFilesHoldTheSame) {
  for (const WeightMethod method : {WeightMethod::gptq, WeightMethod::awq, WeightMethod::smoothquant}) {
    const std::string directory = work / ("d" + std::to_string(static_cast<int>(method))),
                      file = directory + ".qkv";
    const WeightQuantizeReport report = quantize_weights(source, directory, options_for(method));
    EXPECT_EQ(report.layers.size(), 21u);
    quantize_weights(source, file, options_for(method));
    const auto a = loaded(directory), b = loaded(file);
    for (const auto& [name, values] : a) EXPECT_EQ(values.to_floats(), b.at(name).to_floats()) << name;
  }
}

// Of the same bits and groups over the text: less error of what the layers give.
TEST_F(QuantizeWeights, CalibratedMethodsLeaveLessError) {
  const std::string text = test::words(1500);
  const auto tokenizer = test::small_tokenizer();
  // Against the original model's logits.
  const std::vector<int32_t> tokens = [&] {
    auto all = tokenizer->encode(test::words(200));
    all.resize(64);
    return all;
  }();
  const Bundle reference = load_bundle(source);
  const std::vector<float> expected = test::logits_of(*reference.model, tokens);
  const auto error_of = [&](const WeightQuantizeOptions& options, const std::string& name) {
    quantize_weights(source, work / name, options);
    const std::vector<float> logits = test::logits_of(*load_bundle(work / name).model, tokens);
    double sum = 0;
    for (size_t i = 0; i < logits.size(); ++i) sum += (logits[i] - expected[i]) * (logits[i] - expected[i]);
    return sum;
  };
  WeightQuantizeOptions rtn = options_for(WeightMethod::rtn), asymmetric = rtn;
  asymmetric.rounding.asymmetric = true;
  const double plain = error_of(rtn, "rtn"), plain_asymmetric = error_of(asymmetric, "rtn-a");
  WeightQuantizeOptions ordered = options_for(WeightMethod::gptq);
  ordered.rounding.act_order = ordered.rounding.static_groups = true;
  EXPECT_LT(error_of(options_for(WeightMethod::gptq), "gptq"), 0.8 * plain);
  EXPECT_LT(error_of(ordered, "gptq-o"), 0.8 * plain);
  EXPECT_LT(error_of(options_for(WeightMethod::awq), "awq"), plain_asymmetric);
}

// The same types as the plain search gives, and nearer to the original: in the sum over all logits.
TEST_F(QuantizeWeights, GptqGoesToGgufInTheTypesOfAFileType) {
  const auto tokenizer = test::small_tokenizer();
  auto tokens = tokenizer->encode(test::words(100));
  tokens.resize(40);
  const std::vector<float> expected = test::logits_of(*load_bundle(source).model, tokens);
  const auto error_of = [&](const std::string& path) {
    const std::vector<float> logits = test::logits_of(*load_bundle(path).model, tokens);
    double sum = 0;
    for (size_t i = 0; i < logits.size(); ++i) sum += (logits[i] - expected[i]) * (logits[i] - expected[i]);
    return sum;
  };
  WeightQuantizeOptions options = options_for(WeightMethod::gptq);
  for (const FileType type : {FileType::q4_0, FileType::q4_1, FileType::q5_0, FileType::iq4_nl}) {
    options.blocks = {};
    options.blocks.type = type;
    const auto checkpoint = open_checkpoint(source);
    const QuantizePlan plan = plan_quantization(*checkpoint, options.blocks);
    write_quantized(*checkpoint, plan, options.blocks, work / "plain.gguf");
    for (const bool ordered : {false, true}) {
      options.rounding.act_order = ordered;
      const WeightQuantizeReport report = quantize_weights(source, work / "out.gguf", options);
      EXPECT_EQ(report.quantized, 21);
      EXPECT_EQ(report.layers.size(), 21u);
      const auto file = open_checkpoint(work / "out.gguf");
      for (const auto& tensor : plan.tensors) EXPECT_EQ(file->find(tensor.name)->type, tensor.to);
      EXPECT_EQ(report.bytes, plan.bytes_to);
      EXPECT_EQ(file->metadata().integer("general.file_type"), traits(type).number);
      EXPECT_LT(error_of(work / "out.gguf"), error_of(work / "plain.gguf")) << traits(type).name << ordered;
    }
  }
  options.blocks.type = FileType::iq2_xs;
  EXPECT_THAT(test::error_of([&] { quantize_weights(source, work / "x.gguf", options); }),
              testing::HasSubstr("found IQ2_XS; the nearest type is q2_k"));
  EXPECT_THAT(
      test::error_of([&] { quantize_weights(source, work / "x.gguf", options_for(WeightMethod::nf4)); }),
      testing::HasSubstr("expected the method gptq for a .gguf file, found nf4"));
}

// Fused, transposed and per-expert tensors: every reader's view of every architecture.
TEST(QuantizeArchitectures, LoadAndStayCloseToTheModel) {
  const std::vector<Json> configs = {
      {{"architectures", {"GPT2LMHeadModel"}},
       {"model_type", "gpt2"},
       {"vocab_size", 272},
       {"n_embd", 64},
       {"n_layer", 2},
       {"n_head", 4},
       {"n_positions", 64}},
      {{"architectures", {"GPTNeoXForCausalLM"}},
       {"model_type", "gpt_neox"},
       {"vocab_size", 272},
       {"hidden_size", 64},
       {"intermediate_size", 96},
       {"num_hidden_layers", 2},
       {"num_attention_heads", 4},
       {"max_position_embeddings", 64},
       {"rotary_pct", 0.25},
       {"hidden_act", "gelu"},
       {"use_parallel_residual", true}},
      test::llama_config({{"architectures", {"MixtralForCausalLM"}},
                          {"model_type", "mixtral"},
                          {"num_local_experts", 4},
                          {"num_experts_per_tok", 2}}),
      test::llama_config({{"architectures", {"Phi3ForCausalLM"}},
                          {"model_type", "phi3"},
                          {"original_max_position_embeddings", 64}}),
      {{"architectures", {"MambaForCausalLM"}},
       {"model_type", "mamba"},
       {"vocab_size", 272},
       {"hidden_size", 64},
       {"intermediate_size", 128},
       {"state_size", 8},
       {"conv_kernel", 4},
       {"time_step_rank", 4},
       {"expand", 2},
       {"num_hidden_layers", 2},
       {"layer_norm_epsilon", 1e-5},
       {"use_bias", false},
       {"use_conv_bias", true}},
  };
  for (const auto& config : configs) {
    test::TemporaryDirectory work;
    auto model = test::random_model(config);
    test::write_model(*model, work / "source", DType::f32);
    const auto original = test::parameters_of(*model);
    for (const WeightMethod method :
         {WeightMethod::rtn, WeightMethod::gptq, WeightMethod::awq, WeightMethod::smoothquant,
          WeightMethod::nf4, WeightMethod::int8, WeightMethod::fp8}) {
      WeightQuantizeOptions options = options_for(method);
      options.rounding.bits = method == WeightMethod::awq ? 4 : 8;
      options.rounding.act_order = true;
      options.calibration.sequences = 6;
      const std::string output = work / ("o" + std::to_string(static_cast<int>(method)));
      const WeightQuantizeReport report = quantize_weights(work / "source", output, options);
      EXPECT_GT(report.quantized, 0);
      const Bundle bundle = load_bundle(output);
      const std::vector<int32_t> tokens = {3, 17, 5, 9, 130, 2, 8, 1, 39};
      const std::vector<float> before = test::logits_of(*model, tokens),
                               after = test::logits_of(*bundle.model, tokens);
      double error = 0, all = 0;
      for (size_t i = 0; i < before.size(); ++i) {
        error += (before[i] - after[i]) * (before[i] - after[i]);
        all += before[i] * before[i];
      }
      // A row or column in the wrong place makes the logits unrelated: a ratio near 2. Four bits can cost
      // random weights a half, eight some hundredths.
      const bool four_bits = method == WeightMethod::awq || method == WeightMethod::nf4;
      EXPECT_LT(error, (four_bits ? 1 : 0.1) * all)
          << config.at("model_type") << ' ' << static_cast<int>(method);
    }
  }
}

TEST_F(QuantizeWeights, UnsuitableMatricesStayWithALineThatSaysSo) {
  auto model = test::random_model(test::llama_config({{"intermediate_size", 80}}));
  test::write_model(*model, work / "odd");
  const WeightQuantizeReport report =
      quantize_weights(work / "odd", work / "odd-q", options_for(WeightMethod::gptq));
  EXPECT_EQ(report.quantized, 12);
  EXPECT_EQ(report.kept, 9);
  EXPECT_THAT(report.notes,
              testing::Contains(
                  "'model.layers.0.mlp.down_proj.weight' stays as it is: 80 inputs are no multiple of 32"));
  EXPECT_EQ(loaded(work / "odd-q").at("blocks.1.mlp.down.weight").to_floats(),
            test::parameters_of(*model).at("blocks.1.mlp.down.weight").to_floats());
}

TEST_F(QuantizeWeights, MatricesOfZerosStayZeros) {
  auto model = test::random_model(test::llama_config());
  model->visit("", [](const std::string& name, Tensor& parameter) {
    if (name.starts_with("blocks.1.") && parameter.shape().rank() == 2) parameter.fill(0);
  });
  test::write_model(*model, work / "zeros");
  for (const WeightMethod method :
       {WeightMethod::rtn, WeightMethod::gptq, WeightMethod::awq, WeightMethod::smoothquant,
        WeightMethod::int8, WeightMethod::nf4, WeightMethod::fp4, WeightMethod::fp8}) {
    SCOPED_TRACE(static_cast<int>(method));
    const std::string output = work / fmt::format("zeros-{}", static_cast<int>(method));
    quantize_weights(work / "zeros", output, options_for(method));
    for (const auto& [name, values] : loaded(output)) {
      for (const float value : values.to_floats()) ASSERT_TRUE(std::isfinite(value)) << name;
      if (!name.starts_with("blocks.1.") || values.shape().rank() != 2) continue;
      for (const float value : values.to_floats()) ASSERT_EQ(value, 0.0f) << name;
    }
  }
}

TEST_F(QuantizeWeights, BadInputIsRefusedAndLeavesNothing) {
  const std::string output = work / "out";
  const auto refusal = [&](const std::string& input, const WeightQuantizeOptions& options) {
    const std::string error = test::error_of([&] { quantize_weights(input, output, options); });
    EXPECT_FALSE(std::filesystem::exists(output)) << error;
    return error;
  };
  WeightQuantizeOptions options = options_for(WeightMethod::gptq);
  options.text = "the cat";
  EXPECT_THAT(refusal(source, options),
              testing::StartsWith("calibration: expected a text of at least 64 tokens"));
  options = options_for(WeightMethod::awq);
  options.rounding.bits = 3;
  EXPECT_EQ(refusal(source, options), "awq: expected 4 bits, found 3");
  options = options_for(WeightMethod::gptq);
  options.rounding.bits = 5;
  EXPECT_EQ(refusal(source, options), "gptq: expected 2, 3, 4 or 8 bits, found 5");
  EXPECT_THAT(test::error_of(
                  [&] { quantize_weights(source, work / "x.safetensors", options_for(WeightMethod::rtn)); }),
              testing::HasSubstr("expected a directory, a .qkv or a .gguf file"));
  EXPECT_EQ(test::error_of([] { (void)weight_method_from_name("gptp"); }),
            "method: expected one of rtn, gptq, awq, smoothquant, int8, nf4, fp4, fp8; found 'gptp'; did you "
            "mean 'gptq'?");

  for (const float bad : {NAN, INFINITY}) {
    auto model = test::random_model(test::llama_config());
    model->visit("", [&](const std::string& name, Tensor& parameter) {
      if (name == "blocks.2.mlp.down.weight") parameter.data<float>()[5] = bad;
    });
    const std::string broken = work / (std::isnan(bad) ? "nan" : "infinite");
    test::write_model(*model, broken);
    for (const WeightMethod method :
         {WeightMethod::rtn, WeightMethod::nf4, WeightMethod::gptq, WeightMethod::awq})
      EXPECT_THAT(refusal(broken, options_for(method)),
                  testing::ContainsRegex("down.*expected finite numbers, found (nan|inf) at element 5"));
  }
}

}  // namespace
}  // namespace qkv
