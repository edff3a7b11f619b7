// Options of training: rates of single parameters, running means, projected gradients, rounding in forward,
// noise on embeddings, shifted sparse attention, the gradient noise scale.
#include <gtest/gtest.h>

#include <cmath>

#include "qkv/core/atomic_file.h"
#include "qkv/nn/attention.h"
#include "qkv/quant/trained_rounding.h"
#include "qkv/tensor/ops.h"
#include "qkv/train/recipes/sft.h"
#include "tests/support/test_paths.h"
#include "tests/train/tuning_support.h"

namespace qkv {
namespace {

using namespace test;

// Three vectors and a matrix, named as in models.
struct Parameters : Module {
  std::vector<std::pair<std::string, Tensor>> all;
  Parameters() {
    for (const char* name : {"embed.weight", "blocks.0.attn.q.weight", "blocks.2.attn.q.weight",
                             "x.lora_B.weight", "norm.weight"})
      all.emplace_back(name, Tensor::full({4}, 1).set_requires_grad(true));
  }
  void visit(const std::string& prefix, const ParameterVisitor& visitor) override {
    for (auto& [name, tensor] : all) visitor(prefix + name, tensor);
  }
  void give_gradients(float value) {
    for (auto& [name, tensor] : all) tensor.set_grad(Tensor::full({4}, value));
  }
};

OptimizerConfig plain_descent() {
  OptimizerConfig config;
  config.kind = "sgd";
  config.momentum = 0;
  config.lr = 1;
  config.weight_decay = 0;
  return config;
}

TEST(Rates, FollowLayersLoraPlusAndPatterns) {
  Parameters parameters;
  OptimizerConfig config = plain_descent();
  config.layer_decay = 0.5;
  config.lora_plus = 16;
  config.rates = {"^norm=0.25", "norm=9"};
  const auto optimizer = make_optimizer(parameters, config);
  parameters.give_gradients(1.0f / 64);
  optimizer->step(1, 1);
  // Layers 0 to 2: the embedding lies three below the top.
  const double rates[] = {0.125, 0.25, 1, 16, 0.25};
  for (size_t i = 0; i < 5; ++i)
    EXPECT_FLOAT_EQ(parameters.all[i].second.data<float>()[0], static_cast<float>(1 - rates[i] / 64))
        << parameters.all[i].first;
  config.rates = {"norm"};
  EXPECT_NE(test::error_of([&] {
              make_optimizer(parameters, config);
            }).find("expected pattern=factor, found 'norm'"),
            std::string::npos);
}

TEST(RunningMean, IsEvaluatedAndTheTrainedValuesComeBack) {
  Parameters parameters;
  OptimizerConfig config = plain_descent();
  config.ema_decay = 0.75;
  const auto optimizer = make_optimizer(parameters, config);
  float p = 1, mean = 1;
  for (const float gradient : {0.5f, -0.25f, 0.125f}) {
    parameters.give_gradients(gradient);
    optimizer->step(1, 1);
    p -= gradient;
    mean += 0.25f * (p - mean);
  }
  const Tensor& norm = parameters.all[4].second;
  EXPECT_FLOAT_EQ(norm.data<float>()[0], p);
  optimizer->use_averages(true);
  EXPECT_FLOAT_EQ(norm.data<float>()[0], mean);
  optimizer->use_averages(false);
  EXPECT_FLOAT_EQ(norm.data<float>()[0], p);
}

std::unique_ptr<Sft> sft_of(const Bundle& bundle, const TuneConfig& config = {}) {
  TuneConfig own = config;
  own.batch_tokens = 40;
  own.seed = 5;
  return std::make_unique<Sft>(*bundle.model, nullptr, samples_of(40), samples_of(10, 100), own);
}

double loss_after(Bundle& bundle, int64_t steps, const OptimizerConfig& optimizer) {
  test::TemporaryDirectory directory;
  const auto recipe = sft_of(bundle);
  TrainerConfig config = trainer_config(steps);
  config.optimizer = optimizer;
  Trainer(bundle, *recipe, config, directory.path(), Json::object()).run();
  return recipe->evaluate().loss;
}

TEST(GaLore, TrainsWithMomentsOfItsRank) {
  Bundle bundle = small_model();
  const double before = sft_of(bundle)->evaluate().loss;
  OptimizerConfig config;
  config.kind = "galore";
  config.rank = 4;
  config.rank_interval = 10;
  config.rank_scale = 1;
  config.lr = 5e-3;
  config.weight_decay = 0;
  EXPECT_LT(loss_after(bundle, 40, config), 0.8 * before);
  const auto optimizer = make_optimizer(*bundle.model, config);
  optimizer->restore(1);
  optimizer->visit_state([](const std::string& name, Tensor& state) {
    if (name == "blocks.0.mlp.gate.weight.m") {
      EXPECT_EQ(state.shape(), (Shape{48, 4}));
    }
    if (name == "blocks.0.mlp.down.weight.m") {
      EXPECT_EQ(state.shape(), (Shape{4, 48}));
    }
    if (name == "embed.weight.m") {
      EXPECT_EQ(state.shape(), (Shape{40, 32}));
    }
  });
}

TEST(Rounding, IsTheOneOfQuantizedFilesAndItsGradientPasses) {
  Tensor w = Tensor::empty({8, 64}), x = Tensor::empty({5, 64});
  Rng rng(2);
  for (Tensor* t : {&w, &x})
    for (int64_t i = 0; i < t->elements(); ++i) t->data<float>()[i] = rng.normal();
  for (const char* name : {"q4_0", "iq4_nl", "nf4", "int8", "int3-g32"}) {
    Tensor master = w.clone();
    master.set_requires_grad(true);
    const auto rounding = std::make_shared<const RoundTrip>(name);
    const Tensor rounded = (*rounding)(w);
    EXPECT_NE(rounded.to_floats(), w.to_floats()) << name;
    const RoundedWeight weight(std::make_unique<DenseWeight>(master), rounding);
    const Tensor y = weight.apply(x, {});
    EXPECT_EQ(y.to_floats(), ops::linear(x, rounded).to_floats()) << name;
    backward(ops::sum(y));
    // d sum / d w[n, k] is the sum of column k of x, whatever was rounded.
    for (int64_t k = 0; k < 64; ++k) {
      float sum = 0;
      for (int64_t t = 0; t < 5; ++t) sum += x.data<float>()[t * 64 + k];
      EXPECT_NEAR(master.grad().data<float>()[k], sum, 1e-5f);
    }
  }
  EXPECT_NE(test::error_of([] { RoundTrip("q9"); }).find("expected a GGUF block type"), std::string::npos);
  EXPECT_NE(test::error_of([] { RoundTrip("iq1_s"); }).find("no use without importances"), std::string::npos);
}

// At two bits rounding after training costs much, and training with it wins most of that back: on what was
// learned.
TEST(Rounding, InTrainingBeatsRoundingAfterwards) {
  const auto recipe_of = [](const Bundle& bundle) {
    TuneConfig config;
    config.batch_tokens = 80;
    return std::make_unique<Sft>(*bundle.model, nullptr, samples_of(16), samples_of(16), config);
  };
  const auto train = [&](Bundle& bundle, double lr) {
    test::TemporaryDirectory directory;
    const auto recipe = recipe_of(bundle);
    TrainerConfig config = trainer_config(40);
    config.accumulation = 1;
    config.optimizer.lr = lr;
    config.optimizer.weight_decay = 0;
    Trainer(bundle, *recipe, config, directory.path(), Json::object()).run();
    return recipe->evaluate().loss;
  };
  Bundle bundle = small_model(), rounded = small_model();
  const double dense = train(bundle, 1e-2);
  std::vector<Tensor> values;
  bundle.model->visit("", [&](const std::string&, Tensor& t) { values.push_back(t.clone()); });
  size_t i = 0;
  rounded.model->visit("", [&](const std::string&, Tensor& t) { t.copy_from(values[i++]); });
  round_in_forward(*rounded.model, "int2-g32");
  const double afterwards = recipe_of(rounded)->evaluate().loss, aware = train(rounded, 2e-3);
  EXPECT_GT(afterwards, dense + 0.1);
  EXPECT_LT(aware, dense + 0.5 * (afterwards - dense)) << dense << " " << afterwards;
}

TEST(EmbeddingNoise, IsOfTheRunsSeedAndOfTrainingOnly) {
  const Bundle bundle = small_model();
  TuneConfig config;
  config.embedding_noise = 5;
  const auto plain = sft_of(bundle), noisy = sft_of(bundle, config);
  const auto batch = plain->next();
  const float none = plain->loss(*batch, 0).item(), first = noisy->loss(*batch, 0).item();
  EXPECT_NE(none, first);
  EXPECT_EQ(first, noisy->loss(*batch, 0).item());
  EXPECT_NE(first, noisy->loss(*batch, uint64_t{1} << 20).item());
  EXPECT_EQ(plain->evaluate().loss, noisy->evaluate().loss);
}

class ShiftedAttention : public testing::Test {
 protected:
  ShiftedAttention() {
    config_.channels = 16;
    config_.n_heads = 4;
    config_.n_kv_heads = 2;
    config_.head_dim = 4;
    attention_ = std::make_unique<SelfAttention>(config_);
    uint64_t stream = 0;
    attention_->visit("", [&](const std::string&, Tensor& t) {
      t = Tensor::empty(t.shape());
      Rng rng(4, stream++);
      for (int64_t i = 0; i < t.elements(); ++i) t.data<float>()[i] = 0.5f * rng.normal();
    });
    x_ = Tensor::empty({8, 16});
    Rng rng(5);
    for (int64_t i = 0; i < x_.elements(); ++i) x_.data<float>()[i] = rng.normal();
  }
  std::vector<float> row(int64_t t, int64_t group, int64_t changed = -1) const {
    Tensor x = x_.clone();
    if (changed >= 0) {
      for (int64_t c = 0; c < 16; ++c) x.data<float>()[changed * 16 + c] += 1;
    }
    Pass pass = Pass::whole({8});
    pass.attention_group = group;
    const NoGrad off;
    return attention_->forward(x, pass, nullptr, 0).row_view(t, t + 1).to_floats();
  }
  AttentionConfig config_;
  std::unique_ptr<SelfAttention> attention_;
  Tensor x_;
};

TEST_F(ShiftedAttention, HalfOfTheHeadsSeeOverTheBordersOfGroups) {
  // In groups of 4, token 5 sees 4 and 5 with the first heads and 2 to 5 with the others; token 7 sees 4 to
  // 7, and 6 and 7.
  EXPECT_NE(row(5, 4), row(5, 4, 2));
  EXPECT_EQ(row(5, 4), row(5, 4, 1));
  EXPECT_NE(row(7, 4), row(7, 4, 4));
  EXPECT_EQ(row(7, 4), row(7, 4, 3));
  EXPECT_NE(row(7, 0), row(7, 0, 3));
}

TEST_F(ShiftedAttention, IsFullAttentionInOneGroup) {
  const std::vector<float> full = row(7, 0), grouped = row(7, 16);
  for (size_t i = 0; i < full.size(); ++i) EXPECT_NEAR(full[i], grouped[i], 1e-6f);
}

TEST(GradientNoise, TheScaleIsNoiseOverSignal) {
  // A gradient of squared norm 2 with noise of variance 6 per item, over 4 and over 16 items.
  NoiseScale scale;
  EXPECT_TRUE(std::isnan(scale.value()));
  for (int i = 0; i < 10; ++i) scale.note(2 + 6.0 / 4, 4, 2 + 6.0 / 16, 16);
  EXPECT_NEAR(scale.value(), 3, 1e-9);
}

TEST(GradientNoise, IsReportedByTheLoop) {
  test::TemporaryDirectory directory;
  Bundle bundle = small_model();
  const auto recipe = sft_of(bundle);
  TrainerConfig config = trainer_config(4);
  config.noise_scale = true;
  config.log_interval = 1;
  Trainer(bundle, *recipe, config, directory.path(), Json::object()).run();
  EXPECT_NE(read_file(directory / "metrics.jsonl").find("\"gradient_noise_scale\":"), std::string::npos);
  config.accumulation = 1;
  EXPECT_NE(test::error_of([&] {
              Trainer(bundle, *recipe, config, directory / "other", Json::object());
            }).find("at least 2"),
            std::string::npos);
}

}  // namespace
}  // namespace qkv
