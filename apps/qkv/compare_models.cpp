#include "compare_models.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "console.h"
#include "qkv/core/progress.h"
#include "qkv/models/bundle.h"

namespace qkv {

Divergence compare_models(const std::string& path, const std::string& reference_path,
                          const std::string& text_file, int64_t context) {
  const std::string text = read_input(text_file);
  require_utf8(text, text_file);
  const Bundle reference = load_bundle(reference_path);
  LoadOptions load;
  load.tokenizer_required = false;
  const Bundle model = load_bundle(path, load);
  require_same_vocabulary(model.model->info(), model.tokenizer.get(), reference.model->info(),
                          *reference.tokenizer);
  WindowOptions options;
  options.context =
      std::min({context, model.model->info().max_positions, reference.model->info().max_positions});
  std::optional<Progress> progress;
  return measure_divergence(*model.model, *reference.model, *reference.tokenizer, text, options,
                            [&](int64_t done, int64_t total) {
                              if (!progress)
                                progress.emplace("comparing", static_cast<uint64_t>(total), "windows");
                              progress->update(static_cast<uint64_t>(done));
                            });
}

std::string comparison_sentence(const Divergence& result) {
  return fmt::format(
      "KL divergence {:.5g} +- {:.2g}, same top token {:.2f} %, perplexity {:.5g} (was {:.5g}), {} tokens",
      result.kl.value, result.kl.standard_error, 100 * result.same_top.value, result.perplexity.value,
      result.reference_perplexity.value, result.tokens);
}

Json comparison_json(const Divergence& result) {
  return {{"kl", result.kl.value},
          {"kl_standard_error", result.kl.standard_error},
          {"same_top", result.same_top.value},
          {"perplexity", result.perplexity.value},
          {"reference_perplexity", result.reference_perplexity.value},
          {"tokens", result.tokens}};
}

}  // namespace qkv
