#include "qkv/core/metadata.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>

#include "tests/support/test_paths.h"

namespace qkv {
namespace {

using test::error_of;

TEST(Metadata, KeepsExactTypesAndConvertsOnReading) {
  Metadata data("[gguf] x");
  data.set("u8", uint8_t{200});
  data.set("i8", int8_t{-3});
  data.set("u32", uint32_t{4'000'000'000});
  data.set("u64", std::numeric_limits<uint64_t>::max());
  data.set("f32", 0.1f);
  data.set("text", "a string");  // not a bool
  data.set("list", std::vector<uint16_t>{1, 65535});
  data.set("big", std::vector<uint64_t>{uint64_t{1} << 63});
  EXPECT_EQ(data.integer("u8"), 200);
  EXPECT_EQ(data.integer("i8"), -3);
  EXPECT_EQ(data.integer("u32"), 4'000'000'000);
  EXPECT_EQ(data.number("i8"), -3.0);
  EXPECT_EQ(data.number("f32"), static_cast<double>(0.1f));
  EXPECT_EQ(data.string("text"), "a string");
  EXPECT_EQ(data.integers("list"), (std::vector<int64_t>{1, 65535}));
  EXPECT_EQ(data.numbers("big"), (std::vector<double>{9223372036854775808.0}));
  EXPECT_EQ(data.find_exactly<uint32_t>("u8"), nullptr) << "the width is kept";
  ASSERT_NE(data.find_exactly<uint8_t>("u8"), nullptr);
  EXPECT_EQ(data.find_exactly<uint8_t>("absent"), nullptr);
  EXPECT_EQ(exact_type_name(*data.find("u8")), "u8");
  EXPECT_EQ(exact_type_name(*data.find("f32")), "f32");
  EXPECT_EQ(exact_type_name(*data.find("list")), "list of u16");
  EXPECT_EQ(element_count(*data.find("list")), 2u);
  EXPECT_EQ(element_count(*data.find("text")), 1u);
  EXPECT_EQ(error_of([&] { data.integer("u64"); }),
            "[gguf] x: key 'u64': expected an integer, found an unsigned integer");
  EXPECT_EQ(error_of([&] { data.integers("big"); }),
            "[gguf] x: key 'big': expected a list of integers, found a list of unsigned integers");
  EXPECT_EQ(error_of([&] { data.integer("f32"); }),
            "[gguf] x: key 'f32': expected an integer, found a number");
  EXPECT_EQ(error_of([&] { data.strings("text"); }),
            "[gguf] x: key 'text': expected a list of strings, found a string");
  EXPECT_EQ(error_of([&] { data.boolean("absent"); }),
            "[gguf] x: key 'absent': expected true or false, found nothing");
}

TEST(Metadata, KeepsTheOrder) {
  Metadata data;
  for (const char* key : {"z", "a", "m", "b"}) data.set(key, true);
  data.set("a", uint32_t{1});
  data.erase("m");
  data.erase("absent");
  std::string keys;
  for (const auto& [key, value] : data.values()) keys += key;
  EXPECT_EQ(keys, "zab");
  EXPECT_EQ(data.integer("a"), 1);
  EXPECT_TRUE(data.boolean("b"));
  EXPECT_FALSE(data.has("m"));
}

}  // namespace
}  // namespace qkv
