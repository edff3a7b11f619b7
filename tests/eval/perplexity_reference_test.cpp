// Perplexities of trained models by llama.cpp's protocol against llama.cpp's own. The files are optional data
// beside the checkout.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "qkv/core/atomic_file.h"
#include "qkv/eval/perplexity.h"
#include "qkv/models/bundle.h"
#include "qkv/models/registry.h"
#include "tests/support/test_paths.h"

namespace qkv {
namespace {

struct Reference {
  std::string model, text;
  int64_t context = 0;
  double perplexity = 0;
};

// Lines "MODEL TEXT c=CONTEXT Final estimate: PPL = VALUE +/- ERROR".
std::vector<Reference> references(const std::string& path) {
  std::vector<Reference> result;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    Reference reference;
    std::string context;
    std::istringstream words(line);
    words >> reference.model >> reference.text >> context;
    const size_t value = line.find("PPL = ");
    if (!context.starts_with("c=") || value == std::string::npos) continue;
    reference.context = std::stoll(context.substr(2));
    reference.perplexity = std::stod(line.substr(value + 6));
    result.push_back(reference);
  }
  return result;
}

TEST(PerplexityReference, IsLlamaCpps) {
  const std::string folder = test::shared("data/reference/stories/");
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "no references at " << folder;
  // One of every kind of block would take a minute more.
  const std::set<std::string> models = {"stories260K-f32.gguf", "stories3M-F16.gguf",
                                        "stories3M-Q4_K_M.gguf"};
  int compared = 0;
  for (const auto& reference : references(folder + "perplexity_reference.txt")) {
    const std::string path = test::shared("data/models/" + reference.model);
    if (!models.contains(reference.model) || !std::filesystem::exists(path)) continue;
    SCOPED_TRACE(reference.model);
    // Windows are longer than the context these models were trained for, as in the reference.
    const auto checkpoint = open_checkpoint(path);
    const ModelConfig stated = model_config(*checkpoint);
    Json config = *stated.config;
    config["max_position_embeddings"] = reference.context;
    const auto model = make_model(config, stated.where);
    load_weights(*model, *checkpoint, Residence::inference);
    const auto tokenizer = load_bundle(path).tokenizer;
    const std::string text = read_file(folder + "ppl_text_" + reference.text + ".txt");
    const Perplexity found = measure_perplexity(*model, *tokenizer, text, {.context = reference.context});
    std::printf("%-24s %9.4f, llama.cpp %9.4f (%+.3f %%)\n", reference.model.c_str(), found.perplexity,
                reference.perplexity, 100 * (found.perplexity / reference.perplexity - 1));
    // llama.cpp's cache is f16 here, and beside quantized weights it rounds activations to 8 bits.
    const bool plain = reference.model.find("f32") != std::string::npos;
    EXPECT_NEAR(found.perplexity / reference.perplexity, 1, plain ? 1e-3 : 1e-2);
    ++compared;
  }
  EXPECT_GT(compared, 0);
}

}  // namespace
}  // namespace qkv
