// Models layer by layer: the linear layers that a walk reaches, what they multiply, and the forward pass in
// pieces.
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <set>

#include "qkv/core/error.h"
#include "qkv/models/decoder.h"
#include "qkv/nn/observed_weight.h"
#include "tests/models/tiny_models.h"
#include "tests/support/test_paths.h"

namespace qkv {
namespace {

const std::vector<int32_t> kTokens = {3, 17, 5, 9, 30, 2, 8, 1, 39};
const std::vector<int64_t> kLengths = {5, 4};

std::unique_ptr<Model> tiny(const test::TinyModel& config) {
  auto model = make_model(parse_json(config.config, config.name), config.name);
  initialize_weights(*model, 5, 0.3f);
  return model;
}

class Layers : public testing::TestWithParam<size_t> {
 protected:
  const test::TinyModel& config() const { return test::tiny_models()[GetParam()]; }
};

TEST_P(Layers, LinearLayersAreNamedAsTheirParameters) {
  const auto model = tiny(config());
  std::map<std::string, Shape> parameters;
  model->visit("", [&](const std::string& name, Tensor& parameter) { parameters[name] = parameter.shape(); });
  std::set<std::string> seen;
  model->visit_linears("", [&](const std::string& name, Linear& linear) {
    EXPECT_TRUE(seen.insert(name).second) << name;
    ASSERT_TRUE(parameters.contains(name + ".weight")) << name;
    EXPECT_EQ(parameters[name + ".weight"], linear.weight().shape()) << name;
  });
  // Every matrix of a block belongs to one, but for what a recurrence has.
  for (const auto& [name, shape] : parameters) {
    const bool recurrent = name.find(".ssm.conv") != std::string::npos || name.ends_with(".a_log");
    if (!name.starts_with("blocks.") || shape.rank() != 2 || recurrent) continue;
    EXPECT_TRUE(seen.contains(name.substr(0, name.size() - 7))) << name;
  }
}

TEST_P(Layers, PiecesGiveWhatForwardGives) {
  const NoGrad off;
  const auto model = tiny(config());
  const auto& decoder = dynamic_cast<const Decoder&>(*model);
  const Pass pass = Pass::whole(kLengths);
  Tensor x = decoder.embed(kTokens, pass);
  for (int64_t i = 0; i < model->info().layers; ++i) x = decoder.run_layer(static_cast<size_t>(i), x, pass);
  const Tensor pieces = decoder.finish(x, pass), whole = model->forward(kTokens, pass);
  ASSERT_EQ(pieces.shape(), whole.shape());
  EXPECT_EQ(std::memcmp(pieces.raw(), whole.raw(), whole.bytes()), 0);
}

TEST_P(Layers, ObserversSeeEveryInputAndChangeNothing) {
  const NoGrad off;
  const auto model = tiny(config());
  const Tensor before = model->forward(kTokens, Pass::whole(kLengths));
  std::map<std::string, int64_t> rows;
  size_t linears = 0;
  {
    std::vector<std::unique_ptr<InputObservation>> observations;
    model->visit_linears("", [&](const std::string& name, Linear& linear) {
      ++linears;
      observations.push_back(
          std::make_unique<InputObservation>(linear, [&rows, name, &linear](const Tensor& x) {
            EXPECT_EQ(x.cols(), linear.weight().shape()[1]) << name;
            rows[name] += x.rows();
          }));
    });
    const Tensor during = model->forward(kTokens, Pass::whole(kLengths));
    EXPECT_EQ(std::memcmp(during.raw(), before.raw(), before.bytes()), 0);
  }
  for (const auto& [name, count] : rows) {
    if (name.find("experts.") != std::string::npos) continue;  // those take turns
    EXPECT_EQ(count, 9) << name;
  }
  EXPECT_LE(rows.size(), linears);
  if (std::string(config().name) != "mixtral") {
    EXPECT_EQ(rows.size(), linears);
  }
  const std::map<std::string, int64_t> counted = rows;
  const Tensor after = model->forward(kTokens, Pass::whole(kLengths));
  EXPECT_EQ(std::memcmp(after.raw(), before.raw(), before.bytes()), 0);
  EXPECT_EQ(rows, counted) << "observed after the end";
}

INSTANTIATE_TEST_SUITE_P(Tiny, Layers, testing::Range<size_t>(0, 9),
                         [](const auto& info) { return std::string(test::tiny_models()[info.param].name); });

}  // namespace
}  // namespace qkv
