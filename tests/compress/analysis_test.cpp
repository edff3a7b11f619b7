// The analysis of checkpoints: rounding errors against sums written out, and what it finds in models made to
// have it.
#include "qkv/compress/analysis.h"

#include <numeric>

#include "qkv/compress/analysis_report.h"
#include "qkv/core/error.h"
#include "qkv/core/parallel.h"
#include "tests/compress/compress_support.h"
#include "tests/report/html_check.h"

namespace qkv {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

Tensor noise(int64_t rows, int64_t columns, uint64_t seed, float size = 1) {
  Rng rng(seed);
  std::vector<float> values(static_cast<size_t>(rows * columns));
  for (float& value : values) value = size * rng.normal();
  return Tensor::from(values, {rows, columns});
}

TEST(TensorRoles, FromNames) {
  const auto role = [](const char* name) {
    const TensorRole found = role_of_tensor(name);
    return (found.layer ? std::to_string(*found.layer) : "-") + " " + found.role;
  };
  EXPECT_EQ(role("blk.3.attn_q.weight"), "3 attn_q");
  EXPECT_EQ(role("model.layers.12.self_attn.q_proj.weight"), "12 self_attn.q_proj");
  EXPECT_EQ(role("h.0.attn.c_attn.bias"), "0 attn.c_attn.bias");
  EXPECT_EQ(role("model.layers.1.block_sparse_moe.experts.7.w1.weight"), "1 block_sparse_moe.experts.*.w1");
  EXPECT_EQ(role("token_embd.weight"), "- token_embd");
  EXPECT_EQ(role("weight"), "- weight");
  EXPECT_EQ(role("7"), "7 tensor");
  EXPECT_EQ(role("layers.99999999999999999999.x"), "- layers.*.x");
  EXPECT_EQ(role(""), "- tensor");
}

TEST(RoundedForms, Names) {
  EXPECT_EQ(RoundedForm("FP8").name(), "f8_e4m3");
  EXPECT_EQ(RoundedForm("Q4_K").name(), "q4_k");
  const auto forms = rounded_forms("q4_k,nf4,Q4_K");
  ASSERT_EQ(forms.size(), 2u);
  EXPECT_EQ(forms[1].name(), "nf4");
  EXPECT_TRUE(rounded_forms("").empty());
  EXPECT_THAT(
      test::error_of([] { (void)rounded_forms("q8_0,q4_l"); }),
      testing::AllOf(StartsWith("type: expected one of q4_0, "), HasSubstr("found 'q4_l'; did you mean")));
  EXPECT_THAT(test::error_of([] { (void)rounded_forms("q8_k"); }), HasSubstr("found 'q8_k'"));
  EXPECT_THAT(test::error_of([] { (void)rounded_forms("q8_0,,nf4"); }), HasSubstr("found ''"));
  EXPECT_EQ(RoundedForm("q4_k").bits_per_weight(512), 4.5);
  EXPECT_EQ(RoundedForm("int4").bits_per_weight(512), 4.25);
  EXPECT_EQ(RoundedForm("nf4").bits_per_weight(512), 4.5);
  EXPECT_EQ(RoundedForm("fp8").bits_per_weight(64), 8.5);
  EXPECT_EQ(RoundedForm("q4_k").refusal(300), "rows of 300 are not whole blocks of q4_k");
  EXPECT_EQ(RoundedForm("int4").refusal(300), "");
}

// What a form can represent comes back; everything else within half a step of what the form's definition
// says.
TEST(RoundedForms, RoundAsTheirTypesDo) {
  const Tensor x = noise(6, 96, 5);
  const Tensor halves = RoundedForm("bf16").round(x, nullptr);
  EXPECT_EQ(halves.to_floats(), x.to(DType::bf16).to_floats());
  EXPECT_EQ(RoundedForm("bf16").round(halves, nullptr).to_floats(), halves.to_floats());
  const Tensor int8 = RoundedForm("int8").round(x, nullptr);
  for (int64_t r = 0; r < 6; ++r) {
    float largest = 0;
    for (int64_t c = 0; c < 96; ++c) largest = std::max(largest, std::abs(x.data<float>()[r * 96 + c]));
    for (int64_t c = 0; c < 96; ++c)  // scale 2 a / 255; the codes reach from -128 to 127
      EXPECT_NEAR(int8.data<float>()[r * 96 + c], x.data<float>()[r * 96 + c],
                  2 * largest / 255 * 0.5f + 1e-6f);
  }
  const Tensor fp8 = RoundedForm("fp8").round(x, nullptr);
  for (int64_t i = 0; i < x.elements(); ++i)  // three bits of mantissa, and the smallest numbers' spacing
    EXPECT_NEAR(fp8.data<float>()[i], x.data<float>()[i], std::abs(x.data<float>()[i]) / 16 + 1e-4f);
  // Blocks of 64 that reach over rows of 96: one scale for each.
  const Tensor nf4 = RoundedForm("nf4").round(x, nullptr);
  for (int64_t block = 0; block < 9; ++block) {
    float largest = 0;
    for (int64_t i = 64 * block; i < 64 * block + 64; ++i)
      largest = std::max(largest, std::abs(x.data<float>()[i]));
    for (int64_t i = 64 * block; i < 64 * block + 64;
         ++i)  // the widest gap of NF4's values is 0.304 of the largest
      EXPECT_NEAR(nf4.data<float>()[i], x.data<float>()[i], 0.153f * largest);
  }
  for (const char* name : {"q8_0", "int8", "int4", "nf4", "fp8", "f8_e5m2", "bf16"})
    for (const float value : RoundedForm(name).round(Tensor::zeros({2, 64}), nullptr).to_floats())
      EXPECT_EQ(value, 0);
}

TEST(RoundedForms, DoNotDependOnThreads) {
  const Tensor x = noise(300, 512, 6);
  const int before = num_threads();
  for (const char* name : {"q4_k", "nf4", "int4", "fp8"}) {
    set_num_threads(1);
    const std::vector<float> one = RoundedForm(name).round(x, nullptr).to_floats();
    set_num_threads(3);
    EXPECT_EQ(RoundedForm(name).round(x, nullptr).to_floats(), one) << name;
  }
  set_num_threads(before);
}

// The closed form against the outputs themselves, in double.
TEST(RoundingError, IsTheOutputsError) {
  const int64_t rows = 5, columns = 32, tokens = 40;
  const Tensor weight = noise(rows, columns, 1), rounded = RoundedForm("q4_0").round(weight, nullptr);
  Tensor inputs = noise(tokens, columns, 2);
  for (int64_t t = 0; t < tokens; ++t)  // dependent columns
    for (int64_t c = 1; c < columns; ++c)
      inputs.data<float>()[t * columns + c] += inputs.data<float>()[t * columns];
  double squared = 0, energy = 0, output = 0, output_energy = 0, independent = 0;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) {
      const double w = weight.data<float>()[r * columns + c], d = w - rounded.data<float>()[r * columns + c];
      squared += d * d;
      energy += w * w;
      for (int64_t t = 0; t < tokens; ++t)
        independent += std::pow(d * inputs.data<float>()[t * columns + c], 2);
    }
    for (int64_t t = 0; t < tokens; ++t) {
      double y = 0, dy = 0;
      for (int64_t c = 0; c < columns; ++c) {
        const double w = weight.data<float>()[r * columns + c], x = inputs.data<float>()[t * columns + c];
        y += w * x;
        dy += (w - rounded.data<float>()[r * columns + c]) * x;
      }
      output += dy * dy;
      output_energy += y * y;
    }
  }
  InputStatistics with(columns, true), without(columns, false);
  with.add(inputs);
  without.add(inputs);
  const RoundingError exact = rounding_error(weight, rounded, &with);
  // Products are sums of 40 terms in float: 40 * 2^-24 of sums of magnitudes that are within a few times the
  // result.
  EXPECT_NEAR(exact.output_squared, output, 1e-4 * output);
  EXPECT_NEAR(exact.output_energy, output_energy, 1e-4 * output_energy);
  EXPECT_NEAR(exact.squared, squared, 1e-12 * squared);
  EXPECT_NEAR(exact.relative(), std::sqrt(squared / energy), 1e-12);
  const RoundingError plain = rounding_error(weight, rounded, &without);
  EXPECT_NEAR(plain.output_squared, independent, 1e-9 * independent);
  EXPECT_EQ(rounding_error(weight, rounded, nullptr).relative_output(), 0);
  EXPECT_EQ(rounding_error(Tensor::zeros({2, 4}), Tensor::zeros({2, 4}), nullptr).relative(), 0);
}

class Analysis : public testing::Test {
 protected:
  CheckpointAnalysis analyze(const std::string& forms, const std::string& text = "") const {
    AnalysisOptions options;
    options.forms = rounded_forms(forms);
    options.text = text;
    options.calibration = {.context = 64, .sequences = 16};
    return analyze_checkpoint(*open_checkpoint(source), options);
  }
  static const TensorAnalysis& of(const CheckpointAnalysis& analysis, const std::string& name) {
    const auto found = std::find_if(analysis.tensors.begin(), analysis.tensors.end(),
                                    [&](const TensorAnalysis& tensor) { return tensor.entry.name == name; });
    if (found == analysis.tensors.end()) throw Error("no tensor " + name);
    return *found;
  }

  test::TemporaryDirectory work;
  const std::string source = work / "source";
};

TEST_F(Analysis, EveryTensorAndWhatTypesCostIt) {
  const auto model = test::random_model(test::llama_config({{"hidden_size", 256}}));
  test::write_model(*model, source);
  const CheckpointAnalysis analysis = analyze("q8_0,q4_k,nf4");
  EXPECT_EQ(analysis.tensors.size(), open_checkpoint(source)->entries().size());
  const TensorAnalysis& query = of(analysis, "model.layers.1.self_attn.q_proj.weight");
  EXPECT_EQ(query.place.layer, 1);
  ASSERT_EQ(query.errors.size(), 3u);
  const Tensor weight = test::parameters_of(*model).at("blocks.1.attn.q.weight");
  EXPECT_DOUBLE_EQ(query.errors[1].error.relative(),
                   rounding_error(weight, RoundedForm("q4_k").round(weight, nullptr), nullptr).relative());
  // Steps of a Gaussian's range: 8 bits are near 0.3 %, 4 bits near 7 %.
  EXPECT_LT(query.errors[0].error.relative(), 0.01);
  EXPECT_GT(query.errors[1].error.relative(), 0.03);
  EXPECT_LT(query.errors[1].error.relative(), 0.12);
  EXPECT_EQ(of(analysis, "model.layers.1.mlp.down_proj.weight").errors[1].note,
            "rows of 96 are not whole blocks of q4_k");
  EXPECT_TRUE(of(analysis, "model.norm.weight").errors.empty());
  EXPECT_FALSE(query.inputs.has_value());
  EXPECT_EQ(
      std::accumulate(query.histogram.counts.begin(), query.histogram.counts.end(), query.histogram.outside),
      weight.elements());
}

TEST_F(Analysis, ValuesThatAreNoNumbersAreCountedNotRounded) {
  const auto model = test::random_model(test::llama_config());
  model->visit("", [](const std::string& name, Tensor& parameter) {
    if (name == "blocks.0.mlp.up.weight") parameter.data<float>()[7] = NAN;
    if (name == "blocks.1.mlp.up.weight") parameter.data<float>()[7] = 1e6f;
  });
  test::write_model(*model, source);
  const CheckpointAnalysis analysis = analyze("q8_0");
  const TensorAnalysis& broken = of(analysis, "model.layers.0.mlp.up_proj.weight");
  EXPECT_EQ(broken.statistics.nans, 1);
  EXPECT_EQ(broken.errors.at(0).note, "has values that are NaN, infinite or beyond 65504");
  EXPECT_NE(of(analysis, "model.layers.1.mlp.up_proj.weight").errors.at(0).note, "");
  EXPECT_EQ(of(analysis, "model.layers.2.mlp.up_proj.weight").errors.at(0).note, "");
}

// GPT-2 stores its matrices turned; rounding goes along the inputs all the same.
TEST_F(Analysis, TurnedMatricesAreRoundedAlongTheirInputs) {
  const Json config = {{"architectures", {"GPT2LMHeadModel"}},
                       {"model_type", "gpt2"},
                       {"vocab_size", 272},
                       {"n_embd", 64},
                       {"n_layer", 1},
                       {"n_head", 4},
                       {"n_positions", 64}};
  const auto model = test::random_model(config);
  test::write_model(*model, source);
  const CheckpointAnalysis analysis = analyze("q4_0");
  const Tensor weight = test::parameters_of(*model).at("blocks.0.mlp.up.weight");
  const auto found = std::find_if(
      analysis.tensors.begin(), analysis.tensors.end(),
      [](const TensorAnalysis& tensor) { return tensor.entry.name.ends_with("mlp.c_fc.weight"); });
  ASSERT_NE(found, analysis.tensors.end());
  EXPECT_EQ(found->entry.shape, (Shape{64, 256}));
  EXPECT_DOUBLE_EQ(found->errors.at(0).error.relative(),
                   rounding_error(weight, RoundedForm("q4_0").round(weight, nullptr), nullptr).relative());
}

// More rows than one slab holds.
TEST_F(Analysis, LargeMatricesGoInSlabs) {
  const auto model =
      test::random_model(test::llama_config({{"vocab_size", 66000}, {"num_hidden_layers", 1}}));
  test::write_model(*model, source);
  const Tensor weight = test::parameters_of(*model).at("embed.weight");
  ASSERT_GT(weight.elements(), int64_t{1} << 22);
  const double whole = rounding_error(weight, RoundedForm("q8_0").round(weight, nullptr), nullptr).relative();
  EXPECT_NEAR(of(analyze("q8_0"), "model.embed_tokens.weight").errors.at(0).error.relative(), whole, 1e-12);
}

TEST_F(Analysis, CalibrationShowsInputsAndWhatRoundingDoesToOutputs) {
  const auto model = test::random_model(test::llama_config());
  // The norm before the second layer's feed-forward network lets channel 11 stand out, and that network's
  // gate is zero where it reads it: a matrix with that column is hurt by rounding, one without is not.
  model->visit("", [](const std::string& name, Tensor& parameter) {
    if (name == "blocks.1.mlp_norm.weight") {
      parameter.fill(1);
      parameter.data<float>()[11] = 40;
    }
  });
  test::write_model(*model, source);
  const CheckpointAnalysis analysis = analyze("q8_0,q4_0,q2_k", test::words(3000));
  EXPECT_TRUE(analysis.calibrated);
  const TensorAnalysis& up = of(analysis, "model.layers.1.mlp.up_proj.weight");
  ASSERT_TRUE(up.inputs.has_value());
  EXPECT_EQ(up.inputs->tokens, 16 * 64);
  ASSERT_GE(up.inputs->channels.outliers, 1);
  EXPECT_EQ(up.inputs->channels.largest[0].index, 11);
  EXPECT_GE(up.inputs->beyond_six, 1);
  EXPECT_GT(up.inputs->largest, 20);
  ASSERT_EQ(up.errors.size(), 3u);
  EXPECT_GT(up.errors[0].error.output_energy, 0);
  EXPECT_LT(up.errors[0].error.relative_output(), up.errors[1].error.relative_output());
  EXPECT_EQ(up.errors[2].note, "rows of 64 are not whole blocks of q2_k");
  const TensorAnalysis& embedding = of(analysis, "model.embed_tokens.weight");
  EXPECT_FALSE(embedding.inputs.has_value());
  EXPECT_EQ(embedding.errors.at(0).error.output_energy, 0);
  EXPECT_GT(embedding.errors.at(0).error.relative(), 0);

  EXPECT_THAT(test::error_of([&] { analyze("q8_0", "the cat"); }),
              StartsWith("calibration: expected a text of at least 64 tokens"));
}

TEST_F(Analysis, PageHasARowForEveryTensorAndNothingFromOutside) {
  const auto model = test::random_model(test::llama_config());
  test::write_model(*model, source);
  const CheckpointAnalysis analysis = analyze("q8_0,q4_0", test::words(3000));
  const std::string html = analysis_page("Analysis of <model>", "test", analysis).html();
  EXPECT_EQ(test::markup_fault(html), "");
  EXPECT_THAT(html, HasSubstr("Analysis of &lt;model&gt;"));
  for (const TensorAnalysis& tensor : analysis.tensors)
    EXPECT_THAT(html, HasSubstr("<td>" + tensor.entry.name + "</td>"));
  EXPECT_EQ(test::occurrences(html, "class=\"bars\""), analysis.tensors.size());
  for (const char* title :
       {"Error in q4_0", "Error of outputs in q4_0", "Largest input", "Kurtosis", "Entropy"})
    EXPECT_THAT(html, HasSubstr(title));
  for (const char* outside : {"http:", "https:", "src=", "href=", "@import", "<link"})
    EXPECT_EQ(html.find(outside), std::string::npos) << outside;
  // The parts that do not grow with the model are 30 kB; a row is a kilobyte or two.
  EXPECT_LT(html.size(), 60000 + 3000 * analysis.tensors.size());
}

}  // namespace
}  // namespace qkv
