// Finding an architecture, and what is said of an unknown one.
#include "qkv/models/registry.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/support/test_paths.h"

namespace qkv {
namespace {

Json config(const char* text) {
  return parse_json(text, "test");
}

TEST(Registry, ByTypeAndByClass) {
  EXPECT_EQ(find_architecture(config(R"({"model_type": "llama"})"), "c").hf_class, "LlamaForCausalLM");
  EXPECT_EQ(find_architecture(config(R"({"architectures": ["LlamaForCausalLM"]})"), "c").model_type, "llama");
  // Another head on a known body: its type decides, and the weights say what does not fit.
  EXPECT_EQ(
      find_architecture(config(R"({"model_type": "llama", "architectures": ["LlamaModel"]})"), "c").hf_class,
      "LlamaForCausalLM");
}

TEST(Registry, UnknownArchitecturesNameTheNearestAndWhatIsMissing) {
  const std::string error = test::error_of(
      [] { find_architecture(config(R"({"model_type": "lama", "architectures": ["X"]})"), "c.json"); });
  EXPECT_EQ(error.find("c.json: key 'model_type': architecture 'lama' has no forward pass and no weight "
                       "table in this program "
                       "(nearest known: llama"),
            0u)
      << error;
  EXPECT_EQ(test::error_of([] { find_architecture(config("{}"), "c.json"); }),
            "c.json: key 'model_type': expected the name of an architecture, found nothing");
}

TEST(Registry, EveryRowIsComplete) {
  for (const Architecture* row : architectures()) {
    EXPECT_FALSE(row->model_type.empty());
    EXPECT_FALSE(row->hf_class.empty()) << row->model_type;
    EXPECT_NE(row->make, nullptr) << row->model_type;
  }
}

}  // namespace
}  // namespace qkv
