// Loading and saving through weight tables: every kind of placement there and back, both namings, and what is
// refused.
#include "qkv/models/weights.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>

#include "qkv/formats/checkpoint.h"
#include "qkv/formats/safetensors.h"
#include "qkv/models/stored_names.h"
#include "qkv/models/stored_values.h"
#include "tests/models/parts_model.h"
#include "tests/support/test_paths.h"

namespace qkv {
namespace {

using test::Parts;
using Tensors = std::vector<std::pair<std::string, Tensor>>;

Tensor counting(Shape shape, float first = 1) {
  std::vector<float> values(static_cast<size_t>(shape.elements()));
  for (size_t i = 0; i < values.size(); ++i) values[i] = first + static_cast<float>(i);
  return Tensor::from(values, shape);
}

std::unique_ptr<Checkpoint> stored(const test::TemporaryDirectory& directory, const Tensors& tensors) {
  std::vector<TensorEntry> entries;
  std::map<std::string, Tensor> by_name(tensors.begin(), tensors.end());
  for (const auto& [name, tensor] : tensors) entries.push_back({name, tensor.dtype(), tensor.shape()});
  SafetensorsWriter writer(directory / "weights.safetensors", entries);
  for (const auto& entry : writer.entries()) writer.write(entry.name, by_name.at(entry.name));
  writer.finish();
  return open_checkpoint(directory / "weights.safetensors");
}

// Every row of the stored tensor is written by exactly one part and comes back from it.
void expect_round_trip(const std::vector<StoredTensor>& places, const Shape& stored_shape,
                       const Shape& part) {
  Tensor stored = Tensor::full(stored_shape, -1);
  std::vector<Tensor> parts;
  for (size_t i = 0; i < places.size(); ++i) {
    parts.push_back(counting(part, 1000.0f * static_cast<float>(i)));
    put_parameter(stored, places[i], parts.back());
  }
  for (float value : stored.to_floats()) EXPECT_GE(value, 0);
  for (size_t i = 0; i < places.size(); ++i) {
    EXPECT_EQ(take_parameter(stored, places[i], part).to_floats(), parts[i].to_floats());
  }
}

TEST(StoredValues, EveryPlacementInverts) {
  expect_round_trip({{"whole", {6, 5}, {}}}, {6, 5}, {6, 5});
  expect_round_trip({{"a", {12, 5}, {}}, {"a", {12, 5}, {.offset = 6}}}, {12, 5}, {6, 5});
  expect_round_trip({{"heads", {12, 5}, {.offset = 0, .run = 2, .stride = 6}},
                     {"heads", {12, 5}, {.offset = 2, .run = 2, .stride = 6}},
                     {"heads", {12, 5}, {.offset = 4, .run = 2, .stride = 6}}},
                    {12, 5}, {4, 5});
  expect_round_trip({{"turned", {8, 3}, {.rope_head = 4}}}, {8, 3}, {8, 3});
  expect_round_trip({{"turned", {8}, {.rope_head = 4}}}, {8}, {8});
  expect_round_trip({{"conv", {8, 1, 3}, {.shape = {8, 1, 3}}}}, {8, 1, 3}, {8, 3});
  expect_round_trip(
      {{"t", {5, 140}, {.transposed = true}}, {"t", {5, 140}, {.transposed = true, .offset = 70}}}, {5, 140},
      {70, 5});
  expect_round_trip({{"e", {2, 3, 4}, {.stacked = true}}, {"e", {2, 3, 4}, {.offset = 3, .stacked = true}}},
                    {2, 3, 4}, {3, 4});
}

TEST(StoredValues, TransposingMovesElementsOfEverySize) {
  const StoredTensor place{"t", {3, 70}, {.transposed = true}};
  const Tensor whole = counting({70, 3});
  for (DType type : {DType::f64, DType::f32, DType::bf16, DType::f16}) {
    const Tensor typed = whole.to(type);
    Tensor stored = Tensor::empty(place.shape, type);
    put_parameter(stored, place, typed);
    EXPECT_EQ(stored.to_floats()[1], whole.to_floats()[3]);
    EXPECT_EQ(take_parameter(stored, place, whole.shape()).to_floats(), typed.to_floats());
  }
}

TEST(StoredValues, HeadsTransposedOneByOne) {
  const StoredTensor place{"k_b", {2, 3, 5}, {.transposed = true, .shape = {2, 3, 5}}};
  const Tensor matrix = counting({10, 3});  // two heads of five rows
  Tensor stored = Tensor::empty(place.shape);
  put_parameter(stored, place, matrix);
  EXPECT_EQ(stored.to_floats()[1], matrix.to_floats()[3]);           // head 0: column 0, row 1
  EXPECT_EQ(stored.to_floats()[15 + 5], matrix.to_floats()[15 + 1]);  // head 1: column 1, row 0
  EXPECT_EQ(take_parameter(stored, place, matrix.shape()).to_floats(), matrix.to_floats());
  // Blocks lie along the stored dimension: read as what they stand for.
  const StoredTensor wide{"k_b", {2, 3, 32}, {.transposed = true, .shape = {2, 3, 32}}};
  const Tensor blocks = counting({2, 3, 32}).to(DType::q8_0);
  EXPECT_EQ(take_parameter(blocks, wide, {64, 3}).to_floats()[3], blocks.to(DType::f32).to_floats()[1]);
}

TEST(StoredValues, OneRunOfRowsIsBorrowed) {
  const Tensor stored = counting({12, 4});
  const Tensor part = take_parameter(stored, {"s", {12, 4}, {.offset = 4}}, {4, 4});
  EXPECT_EQ(part.raw(), stored.raw() + 64);
  const Tensor same_stride =
      take_parameter(stored, {"s", {12, 4}, {.offset = 2, .run = 2, .stride = 2}}, {4, 4});
  EXPECT_EQ(same_stride.raw(), stored.raw() + 32);
}

TEST(StoredValues, TransformedValues) {
  const Tensor gain = Tensor::from<float>({-0.5f, 0.25f}, {2});
  Tensor stored = Tensor::zeros({2});
  put_parameter(stored, {"n", {2}, {.values = StoredValues::plus_one}}, gain);
  EXPECT_EQ(stored.to_floats(), (std::vector<float>{0.5f, 1.25f}));
  EXPECT_EQ(take_parameter(stored, {"n", {2}, {.values = StoredValues::plus_one}}, {2}).to_floats(),
            gain.to_floats());
  const StoredTensor exponent{"a", {2}, {.values = StoredValues::minus_exp}};
  put_parameter(stored, exponent, gain);
  EXPECT_FLOAT_EQ(stored.to_floats()[0], -std::exp(-0.5f));
  EXPECT_NEAR(take_parameter(stored, exponent, {2}).to_floats()[0], -0.5f, 1e-6);
  EXPECT_EQ(test::error_of([&] {
              take_parameter(Tensor::from<float>({1, 2}, {2}), exponent, {2});
            }),
            "tensor 'a': expected -exp(w), which is negative, found 1");
}

// q and k fused in Hugging Face, apart and turned in GGUF, a bias that may be absent, and a tied head.
Parts fused_model() {
  Parts model({{"embed.weight", {6, 4}},
               {"blocks.0.attn.q.weight", {4, 4}},
               {"blocks.0.attn.k.weight", {4, 4}},
               {"blocks.0.attn.k.bias", {4}}},
              {{"embed", "base.embed", "token_embd"},
               {"head", "lm_head", "output"},
               {"blocks.{}.attn.q", "base.h.{}.qk", "blk.{}.attn_q", {.offset = 0}, {.rope_head = 4}},
               {"blocks.{}.attn.k.bias",
                "base.h.{}.k_bias!",
                "blk.{}.attn_k.bias!",
                {.optional = true},
                {.rope_head = 4, .optional = true}},
               {"blocks.{}.attn.k", "base.h.{}.qk", "blk.{}.attn_k", {.offset = 4}, {.rope_head = 4}}});
  model.info().tied_embeddings = true;
  return model;
}

const Tensor kEmbed = counting({6, 4}), kFused = counting({8, 4}, 100);

TEST(Weights, FusedFromHuggingFaceApartFromGguf) {
  const test::TemporaryDirectory directory;
  Parts model = fused_model();
  load_weights(model, *stored(directory, {{"base.embed.weight", kEmbed}, {"base.h.0.qk.weight", kFused}}),
               Residence::inference);
  EXPECT_EQ(model.parameter("blocks.0.attn.k.weight").to_floats()[0], 116);
  EXPECT_EQ(model.parameter("blocks.0.attn.k.bias").to_floats(), std::vector<float>(4, 0));

  const Tensor turned = counting({4, 4}, 200);
  load_weights(model,
               *stored(directory, {{"token_embd.weight", kEmbed},
                                   {"blk.0.attn_q.weight", turned},
                                   {"blk.0.attn_k.weight", turned},
                                   {"blk.0.attn_k.bias", counting({4})}}),
               Residence::trainable);
  EXPECT_EQ(model.parameter("blocks.0.attn.q.weight").to_floats()[4],
            208);  // row 1 of the head is stored third
  EXPECT_EQ(model.parameter("blocks.0.attn.k.bias").to_floats(), (std::vector<float>{1, 3, 2, 4}));
}

TEST(Weights, MatricesMayBeHeldInMemory) {
  const test::TemporaryDirectory directory;
  const auto checkpoint = stored(directory, {{"base.embed.weight", kEmbed}, {"base.h.0.qk.weight", kFused}});
  Parts mapped = fused_model(), held = fused_model();
  load_weights(mapped, *checkpoint, Residence::inference);
  load_weights(held, *checkpoint, Residence::memory);
  for (const char* name : {"embed.weight", "blocks.0.attn.q.weight", "blocks.0.attn.k.weight"}) {
    EXPECT_EQ(held.parameter(name).to_floats(), mapped.parameter(name).to_floats()) << name;
    EXPECT_NE(held.parameter(name).raw(), mapped.parameter(name).raw()) << name;
  }
}

TEST(Weights, BaseModelPrefixMayBeAbsentOrNew) {
  const test::TemporaryDirectory directory;
  for (const std::string prefix : {"", "base.", "wrapper.base."}) {
    Parts model = fused_model();
    load_weights(model,
                 *stored(directory, {{prefix + "embed.weight", kEmbed}, {prefix + "h.0.qk.weight", kFused}}),
                 Residence::inference);
    EXPECT_EQ(model.parameter("embed.weight").to_floats(), kEmbed.to_floats());
  }
}

TEST(Weights, SavingAssemblesFusedTensors) {
  const test::TemporaryDirectory directory;
  Parts model = fused_model();
  load_weights(model, *stored(directory, {{"base.embed.weight", kEmbed}, {"base.h.0.qk.weight", kFused}}),
               Residence::trainable);
  save_weights(model, directory.path(), DType::f32, 1 << 20);
  const auto saved = open_checkpoint(directory / "model.safetensors");
  EXPECT_EQ(saved->read("base.h.0.qk.weight").to_floats(), kFused.to_floats());
  EXPECT_EQ(saved->entries().size(), 3u);

  Parts restored = fused_model();
  restored.visit("",
                 [](const std::string&, Tensor& parameter) { parameter = Tensor::zeros(parameter.shape()); });
  const Tensor held = restored.parameter("blocks.0.attn.k.weight");
  restore_weights(restored, *saved);
  EXPECT_EQ(held.to_floats()[0], 116);  // in place
}

TEST(Weights, WhatMayStandBesideTheWeights) {
  const test::TemporaryDirectory directory;
  Parts model = fused_model();
  load_weights(model,
               *stored(directory, {{"base.embed.weight", kEmbed},
                                   {"base.h.0.qk.weight", kFused},
                                   {"lm_head.weight", kEmbed},
                                   {"base.h.0.rotary_emb.inv_freq", counting({2})}}),
               Residence::inference);
  EXPECT_EQ(model.parameter("embed.weight").to_floats(), kEmbed.to_floats());
}

TEST(Weights, MissingExtraMisshapenAndMistypedTensorsAreErrors) {
  const test::TemporaryDirectory directory;
  const std::string where = directory / "weights.safetensors";
  Parts model = fused_model();
  const auto error = [&](const Tensors& tensors) {
    return test::error_of([&] { load_weights(model, *stored(directory, tensors), Residence::inference); });
  };
  EXPECT_EQ(error({{"base.embed.weight", kEmbed}, {"base.h.0.kq.weight", kFused}}),
            where +
                ": tensor 'base.h.0.qk.weight' is missing (expected shape (8, 4)); did you mean "
                "'base.h.0.kq.weight'?");
  EXPECT_EQ(
      error({{"base.embed.weight", kEmbed}, {"base.h.0.qk.weight", kFused}, {"base.h.1.qk.weight", kFused}}),
      where + ": tensor 'base.h.1.qk.weight' (8, 4) is not part of parts");
  EXPECT_EQ(error({{"base.embed.weight", kEmbed}, {"base.h.0.qk.weight", counting({8, 5})}}),
            where + ": tensor 'base.h.0.qk.weight': expected shape (8, 4), found (8, 5)");
  EXPECT_EQ(error({{"base.embed.weight", Tensor::zeros({6, 4}, DType::i32)}, {"base.h.0.qk.weight", kFused}}),
            where + ": tensor 'base.embed.weight': expected floating point, found i32");
  EXPECT_EQ(error({{"something", kEmbed}, {"else", kEmbed}}),
            where +
                ": expected tensors such as 'base.embed.weight' (Hugging Face) or 'token_embd.weight' "
                "(GGUF), found 'else' "
                "and 1 others");
}

}  // namespace
}  // namespace qkv
