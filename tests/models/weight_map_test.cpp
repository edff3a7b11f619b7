// Weight tables made concrete: names, shapes of fused and stacked tensors, and the rows each parameter owns.
#include <gtest/gtest.h>

#include <set>

#include "qkv/models/weight_map.h"
#include "tests/models/parts_model.h"
#include "tests/support/test_paths.h"

namespace qkv {
namespace {

using test::Parts;

TEST(WeightMap, FusedHeadsInterleaved) {
  const Placement q{.offset = 0, .run = 4, .stride = 12}, k{.offset = 4, .run = 4, .stride = 12},
      v{.offset = 8, .run = 4, .stride = 12};
  Parts model({{"blocks.2.attn.q.weight", {8, 5}},
               {"blocks.2.attn.k.weight", {8, 5}},
               {"blocks.2.attn.v.weight", {8, 5}}},
              {{"blocks.{}.attn.q", "layers.{}.qkv", "blk.{}.attn_qkv", q, {.offset = 0}},
               {"blocks.{}.attn.k", "layers.{}.qkv", "blk.{}.attn_qkv", k, {.offset = 8}},
               {"blocks.{}.attn.v", "layers.{}.qkv", "blk.{}.attn_qkv", v, {.offset = 16}}});
  const auto mappings = expand(model);
  ASSERT_EQ(mappings.size(), 3u);
  std::set<int64_t> hf_rows, gguf_rows;
  for (const auto& mapping : mappings) {
    EXPECT_EQ(mapping.hf.name, "layers.2.qkv.weight");
    EXPECT_EQ(mapping.hf.shape, (Shape{24, 5}));
    EXPECT_EQ(mapping.gguf.shape, (Shape{24, 5}));
    for (int64_t r = 0; r < 8; ++r) {
      hf_rows.insert(stored_row(mapping.hf.at, r, 8));
      gguf_rows.insert(stored_row(mapping.gguf.at, r, 8));
    }
  }
  EXPECT_EQ(hf_rows.size(), 24u);  // every stored row has exactly one owner
  EXPECT_EQ(gguf_rows.size(), 24u);
  EXPECT_EQ(stored_row(mappings[1].hf.at, 5, 8), 4 + 12 + 1);
  EXPECT_EQ(stored_row(mappings[1].gguf.at, 5, 8), 13);
}

TEST(WeightMap, ExpertsStackedInOneTensor) {
  std::vector<std::pair<std::string, Shape>> parts;
  for (int e = 0; e < 3; ++e)
    parts.emplace_back("blocks.0.moe.experts." + std::to_string(e) + ".up.weight", Shape{4, 6});
  Parts model(
      parts,
      {{"blocks.{}.moe.experts.{}.up", "l.{}.experts.{}.w3", "blk.{}.ffn_up_exps", {}, {.stacked = true}}});
  const auto mappings = expand(model);
  EXPECT_EQ(mappings[2].hf.name, "l.0.experts.2.w3.weight");
  EXPECT_EQ(mappings[2].hf.shape, (Shape{4, 6}));
  EXPECT_EQ(mappings[2].gguf.name, "blk.0.ffn_up_exps.weight");
  EXPECT_EQ(mappings[2].gguf.shape, (Shape{3, 4, 6}));
  EXPECT_EQ(stored_row(mappings[2].gguf.at, 1, 4), 9);
}

TEST(WeightMap, TransposedAndWholeNames) {
  Parts model(
      {{"blocks.1.mlp.up.weight", {12, 4}},
       {"blocks.1.mlp.up.bias", {12}},
       {"blocks.1.mixer.A_log", {8, 2}},
       {"blocks.1.mixer.conv.weight", {8, 3}}},
      {{"blocks.{}.mlp.up", "h.{}.c_fc", "blk.{}.ffn_up", {.transposed = true}, {}},
       {"blocks.{}.mixer.A_log", "m.{}.A_log", "blk.{}.ssm_a!", {}, {.values = StoredValues::minus_exp}},
       {"blocks.{}.mixer.conv", "m.{}.conv1d", "blk.{}.ssm_conv1d", {.shape = {8, 1, 3}}, {}}});
  const auto mappings = expand(model);
  EXPECT_EQ(mappings[0].hf.shape, (Shape{4, 12}));
  EXPECT_EQ(mappings[0].gguf.shape, (Shape{12, 4}));
  EXPECT_EQ(mappings[1].hf.name, "h.1.c_fc.bias");
  EXPECT_EQ(mappings[1].hf.shape, (Shape{12}));
  EXPECT_EQ(mappings[2].hf.name, "m.1.A_log");
  EXPECT_EQ(mappings[2].gguf.name, "blk.1.ssm_a");
  EXPECT_EQ(mappings[3].hf.shape, (Shape{8, 1, 3}));
  EXPECT_EQ(mappings[3].gguf.shape, (Shape{8, 3}));
}

TEST(WeightMap, RopeHalvesBecomeNeighbours) {
  const Placement turned{.rope_head = 6};
  std::vector<int64_t> rows;
  for (int64_t r = 0; r < 12; ++r) rows.push_back(stored_row(turned, r, 12));
  EXPECT_EQ(rows, (std::vector<int64_t>{0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11}));
}

TEST(WeightMap, UnknownParameterIsAnError) {
  Parts model({{"blocks.0.extra.weight", {2, 2}}}, {{"blocks.{}.attn.q", "a", "b"}});
  EXPECT_EQ(test::error_of([&] { expand(model); }),
            "parts: parameter 'blocks.0.extra.weight' is not in the weight table");
}

}  // namespace
}  // namespace qkv
