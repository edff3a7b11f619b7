// Types by what they cost a model: gradients against differences, predicted divergences against measured
// ones, sizes against files, and the choice against others.
#include "qkv/compress/allocate.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "qkv/compress/adaptive.h"
#include "qkv/compress/allocation_report.h"
#include "qkv/compress/compressed_model.h"
#include "qkv/compress/gradient_walk.h"
#include "qkv/compress/sensitivity.h"
#include "qkv/core/atomic_file.h"
#include "qkv/core/error.h"
#include "tests/compress/compress_support.h"

namespace qkv::test {
namespace {

namespace fs = std::filesystem;

// Rows that every type fits.
Json wide_config(const Json& changes = Json::object()) {
  Json config = llama_config({{"hidden_size", 256},
                              {"intermediate_size", 256},
                              {"num_hidden_layers", 2},
                              {"max_position_embeddings", 64}});
  config.update(changes);
  return config;
}

TokenSequences sequences_of(size_t count, size_t length) {
  Rng rng(9);
  TokenSequences sequences(count);
  for (auto& sequence : sequences) {
    for (size_t t = 0; t < length; ++t) sequence.push_back(static_cast<int32_t>(rng.below(272)));
  }
  return sequences;
}

class Adaptive : public testing::Test {
 protected:
  void SetUp() override {
    auto model = random_model(wide_config());
    write_model(*model, directory_ / "model");
    source_ = open_checkpoint(directory_ / "model");
    parent_ = load_bundle(directory_ / "model");
    text_ = words(4000);
  }

  AdaptiveModel parent() {
    AdaptiveModel parent;
    parent.model = dynamic_cast<Decoder*>(parent_.model.get());
    parent.tokenizer = parent_.tokenizer.get();
    parent.calibration = text_;
    parent.measure = [this](const Model& model) {
      WindowOptions options;
      options.context = 64;
      options.max_windows = 8;
      return measure_divergence(model, *parent_.model, *parent_.tokenizer, text_, options);
    };
    return parent;
  }

  static AdaptiveOptions options(uint64_t bytes) {
    AdaptiveOptions options;
    options.file_bytes = bytes;
    options.context = 64;
    options.tokens = 512;
    options.types = {DType::q2_k, DType::iq4_xs, DType::q4_k, DType::q5_k,
                     DType::q6_k, DType::q8_0,   DType::f16};
    return options;
  }

  TemporaryDirectory directory_;
  std::string text_;
  std::unique_ptr<Checkpoint> source_;
  Bundle parent_;
};

// The gradients that a layer is traced with are those of the loss: moving its weights along any direction
// changes the loss as the products of tokens say.
TEST(GradientWalk, GradientsAreDerivatives) {
  auto owner = random_model(wide_config());
  auto& model = dynamic_cast<Decoder&>(*owner);
  const TokenSequences sequences = sequences_of(2, 24);
  GradientWalk walk(model, sequences, 5);
  const auto loss = [&] {
    const NoGrad off;
    const Tensor hidden = model.forward(walk.inputs(), Pass::whole(walk.lengths()));
    return double{model.cross_entropy(hidden, walk.targets()).item()};
  };
  const double before = loss();
  std::map<std::string, LayerTrace> traces;
  while (walk.left() > 0) {
    for (LayerTrace& trace : walk.step()) traces[trace.name] = trace;
  }
  EXPECT_EQ(loss(), before);  // the model is as it was
  EXPECT_EQ(traces.size(), 14U);
  model.visit_linears("", [&](const std::string& name, Linear& linear) {
    const LayerTrace& trace = traces.at(name);
    const Tensor weight = matrix_of(linear).clone();
    Tensor direction = Tensor::empty(weight.shape());
    Rng rng(7, weight.elements());
    for (int64_t i = 0; i < direction.elements(); ++i) direction.data<float>()[i] = rng.normal();
    const NoGrad off;
    const Tensor change = ops::linear(trace.inputs, direction);
    double expected = 0;
    for (int64_t i = 0; i < change.elements(); ++i)
      expected += double{change.data<float>()[i]} * trace.gradients.data<float>()[i];
    // Central difference: its error falls with the square of the step, rounding grows with its inverse.
    const auto moved = [&](float step) {
      Tensor other = weight.clone();
      for (int64_t i = 0; i < other.elements(); ++i)
        other.data<float>()[i] += step * direction.data<float>()[i];
      replace_matrix(linear, other);
      const double value = loss();
      replace_matrix(linear, weight);
      return value;
    };
    const float step = 2e-4f;
    const double found = (moved(step) - moved(-step)) / (2 * double{step});
    // f32 losses of about 300 have errors of 1e-4 after all that went into them, divided by the step.
    EXPECT_NEAR(found, expected, 0.02 * std::abs(expected) + 1.0) << name;
  });
}

// What is predicted in closed form is what changing one tensor at a time does, and the sum what changing all
// does.
TEST_F(Adaptive, PredictionsAreMeasuredDivergences) {
  QuantizeOptions quantize;
  const QuantizePlan plan = plan_quantization(*source_, quantize);
  std::vector<TensorCosts> costs = possible_types(plan, quantize, {DType::q4_k, DType::q6_k});
  auto& model = dynamic_cast<Decoder&>(*parent_.model);
  CalibrationOptions calibration;
  calibration.context = 64;
  calibration.sequences = 16;
  const TokenSequences sequences =
      calibration_sequences(model.info(), *parent_.tokenizer, text_, calibration);
  Sensitivity sensitivity(*source_, plan, quantize, model, sequences);
  const std::vector<float> before = logits_of(model, sequences[0]);
  sensitivity.measure(costs);
  double predicted = 0, logarithms = 0;
  ASSERT_EQ(costs.size(), 16U);
  for (TensorCosts& tensor : costs) {
    const std::string& name = plan.tensors[tensor.tensor].name;
    EXPECT_TRUE(tensor.measured) << name;
    // Six bits have sixteenth parts of the errors of four.
    EXPECT_GT(tensor.types[0].cost, 4 * tensor.types[1].cost) << name;
    predicted += tensor.types[1].cost;
    const double closed = tensor.types[1].cost;
    sensitivity.probe(tensor, 1, 1 << 20);
    if (name == "output.weight") continue;  // measured from the beginning
    // A mean of 1024 squares whose factors differ much from token to token (some hundred count), corrected by
    // 16 sequences: a third off is ordinary for one of 15 tensors, a factor of two and a half is not.
    EXPECT_LT(std::abs(std::log(closed / tensor.probed)), std::log(2.5)) << name;
    logarithms += std::log(closed / tensor.probed) / 15;
    EXPECT_DOUBLE_EQ(tensor.types[1].cost, tensor.probed);
  }
  EXPECT_LT(std::abs(logarithms), std::log(1.5));     // nor are they all off to one side
  EXPECT_EQ(logits_of(model, sequences[0]), before);  // nothing is left changed
  QuantizeOptions pure = quantize;
  pure.type = FileType::q6_k;
  pure.pure = true;
  const QuantizePlan six = plan_quantization(*source_, pure);
  const CompressedModel together(*source_, six, pure);
  WindowOptions windows;
  windows.context = 64;
  windows.max_windows = 16;
  const double measured =
      measure_divergence(together.model(), model, *parent_.tokenizer, text_, windows).kl.value;
  EXPECT_NEAR(predicted / measured, 1.0, 0.35);
}

TEST_F(Adaptive, SizesAreThoseOfFiles) {
  QuantizeOptions quantize;
  const uint64_t target = 700'000;
  AdaptiveResult result = allocate_types(*source_, quantize, options(target), parent());
  EXPECT_LE(result.allocation.file_bytes, target);
  EXPECT_TRUE(result.allocation.exact);
  EXPECT_EQ(gguf_bytes(result.plan), result.allocation.file_bytes);
  ASSERT_TRUE(result.measured.has_value());
  const std::string path = directory_ / "out.gguf";
  write_quantized(*source_, result.plan, quantize, path, {}, std::move(result.tensors));
  EXPECT_EQ(fs::file_size(path), result.allocation.file_bytes);
  // What was measured is what the file gives.
  const Bundle file = load_bundle(path);
  EXPECT_DOUBLE_EQ(parent().measure(*file.model).kl.value, result.measured->kl.value);
  std::set<DType> types;
  const auto written = open_checkpoint(path);
  for (const auto& entry : written->entries()) {
    if (is_block(entry.type)) types.insert(entry.type);
  }
  EXPECT_GT(types.size(), 1U);
}

TEST_F(Adaptive, TheSameEveryTimeAndBetterThanAMix) {
  QuantizeOptions quantize;
  const QuantizePlan mix = plan_quantization(*source_, quantize);
  AdaptiveOptions asked = options(gguf_bytes(mix));
  asked.probe = AdaptiveOptions::Probe::never;
  const AdaptiveResult first = allocate_types(*source_, quantize, asked, parent()),
                       second = allocate_types(*source_, quantize, asked, parent());
  EXPECT_EQ(first.allocation.choices, second.allocation.choices);
  EXPECT_EQ(first.measured->kl.value, second.measured->kl.value);
  EXPECT_LE(first.allocation.file_bytes, gguf_bytes(mix));
  Allocator allocator(mix, first.costs);
  std::vector<DType> types;
  for (const auto& tensor : mix.tensors) types.push_back(tensor.to);
  const Allocation fixed = allocator.of_types(types);
  EXPECT_EQ(fixed.file_bytes, gguf_bytes(mix));
  EXPECT_LE(first.allocation.predicted, fixed.predicted);
  // More bytes never cost more.
  double before = std::numeric_limits<double>::infinity();
  uint64_t bytes = 0;
  for (const CurvePoint& point : first.curve) {
    EXPECT_GT(point.file_bytes, bytes);
    EXPECT_LE(point.predicted, before);
    before = point.predicted;
    bytes = point.file_bytes;
  }
  EXPECT_GT(first.curve.size(), 10U);
}

TEST_F(Adaptive, WhatIsFixedStaysAndWhatCannotBeIsRefused) {
  QuantizeOptions quantize;
  quantize.tensor_types = {{"ffn_down", DType::q8_0}};
  AdaptiveModel none;
  AdaptiveOptions asked = options(0);
  asked.file_bytes.reset();
  asked.bits_per_weight = 5.0;
  const AdaptiveResult result = allocate_types(*source_, quantize, asked, none);
  EXPECT_FALSE(result.by_divergence);
  EXPECT_LE(result.plan.bits_per_weight(), 5.0);
  for (const auto& tensor : result.plan.tensors) {
    if (tensor.name.find("ffn_down") == std::string::npos) continue;
    EXPECT_EQ(tensor.to, DType::q8_0);
  }
  asked.bits_per_weight = 2.0;
  EXPECT_THROW(allocate_types(*source_, quantize, asked, none), Error);
  asked.bits_per_weight.reset();
  EXPECT_THROW(allocate_types(*source_, quantize, asked, none), Error);  // nothing to aim for
  asked.max_divergence = 0.01;
  EXPECT_THROW(allocate_types(*source_, quantize, asked, none), Error);  // and nothing to measure on
  asked.types = {DType::iq2_xxs};                                        // which need importances
  asked.max_divergence.reset();
  asked.bits_per_weight = 5.0;
  EXPECT_THROW(allocate_types(*source_, quantize, asked, none), Error);
}

TEST_F(Adaptive, MeetsADivergenceAndReports) {
  QuantizeOptions quantize;
  AdaptiveOptions asked = options(0);
  asked.file_bytes.reset();
  asked.max_divergence = 0.02;
  const AdaptiveResult result = allocate_types(*source_, quantize, asked, parent());
  ASSERT_TRUE(result.measured.has_value());
  EXPECT_LE(result.measured->kl.value, 0.02);
  EXPECT_GT(result.probes.correlation, 0.8);
  // What was tried and is smaller does not meet it.
  size_t failed = 0;
  for (const CurvePoint& point : result.curve) {
    if (!point.measured || point.file_bytes >= result.allocation.file_bytes) continue;
    EXPECT_GT(point.measured->kl.value, 0.02) << point.file_bytes;
    ++failed;
  }
  EXPECT_GT(failed, 0U);
  const std::string page = directory_ / "report.html";
  write_allocation_report(page, result, {"model", "out.gguf", "text.txt", "text.txt", ""});
  const std::string html = read_file(page);
  EXPECT_NE(html.find("blk.1.ffn_down.weight"), std::string::npos);
  EXPECT_NE(html.find("would save"), std::string::npos);
  const Json json = allocation_json(result);
  EXPECT_EQ(json["tensors"].size(), 16U);
  EXPECT_TRUE(json["exact"].get<bool>());
}

// With a divergence that falls by a factor for every byte, what it finds is within the tolerance of the
// smallest size.
TEST_F(Adaptive, SearchEndsAtTheLimit) {
  QuantizeOptions quantize;
  const QuantizePlan plan = plan_quantization(*source_, quantize);
  std::vector<TensorCosts> costs = possible_types(plan, quantize);
  measure_errors(*source_, plan, quantize, costs);
  const Allocator allocator(plan, costs);
  for (const double limit : {0.5, 0.05, 0.001}) {
    size_t measured = 0;
    const auto divergence = [&](const Allocation& allocation) {
      ++measured;
      return 3.0 * allocation.predicted;
    };
    const Allocation found =
        smallest_within(allocator, {.limit = limit, .tolerance = 0.01, .most = 20}, divergence);
    EXPECT_LE(3.0 * found.predicted, limit);
    const auto smaller = static_cast<uint64_t>(0.98 * static_cast<double>(found.file_bytes));
    EXPECT_LE(measured, 21U);
    if (smaller <= allocator.smallest_file()) continue;
    EXPECT_GT(3.0 * allocator.within(smaller).predicted, limit) << limit;
  }
  EXPECT_THROW(smallest_within(allocator, {.limit = 0.1}, [](const Allocation&) { return 1.0; }), Error);
}

}  // namespace
}  // namespace qkv::test
