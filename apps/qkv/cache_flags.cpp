#include "cache_flags.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "qkv/core/error.h"
#include "qkv/tensor/cached_attention.h"

namespace qkv {
namespace {

// StreamingLLM's four: fewer lose quality, more gain nothing.
constexpr int64_t kUsualSinks = 4;

DType cache_type(const char* flag, const std::string& text, DType compute_type) {
  if (text == "auto") return compute_type;
  const std::optional<DType> type = dtype_from_name(text);
  require(type && is_cache_type(*type), "{}: expected auto, f32, f16, bf16, q8_0, q5_1 or q4_0, found '{}'",
          flag, text);
  return *type;
}

}  // namespace

void CacheFlags::add_to(CLI::App& command) {
  command
      .add_option("--cache-type-k", k_type,
                  "Type of cached keys: auto (that of activations), f32, f16, bf16, q8_0, q5_1, q4_0")
      ->type_name("TYPE");
  command.add_option("--cache-type-v", v_type, "Type of cached values, likewise")->type_name("TYPE");
  command.add_flag("--cache-rotate-k", rotate_k,
                   "Rotate keys and queries by a Hadamard matrix: better q4_0 and q5_1 keys");
  command
      .add_option("--cache-window", window,
                  "Remember only so many of the latest tokens, and the first ones; 0: all (default: 0)")
      ->type_name("N");
  command.add_option("--cache-sinks", sinks, "With a window: how many of the first tokens (default: 4)")
      ->type_name("N");
}

bool CacheFlags::any() const {
  return k_type != "auto" || v_type != "auto" || rotate_k || window != 0 || sinks >= 0;
}

CacheOptions CacheFlags::options(DType compute_type) const {
  CacheOptions options;
  options.k_type = cache_type("--cache-type-k", k_type, compute_type);
  options.v_type = cache_type("--cache-type-v", v_type, compute_type);
  options.rotate_k = rotate_k;
  require(window >= 0, "--cache-window: expected a number of tokens, or 0 for all, found {}", window);
  require(window > 0 || sinks <= 0, "--cache-sinks: expected --cache-window beside it");
  options.window = window;
  options.sinks = window == 0 ? 0 : sinks < 0 ? kUsualSinks : sinks;
  return options;
}

std::string cache_sentence(const CacheOptions& options) {
  std::string text = options.k_type == options.v_type
                         ? std::string(name(options.k_type))
                         : fmt::format("{} keys, {} values", name(options.k_type), name(options.v_type));
  if (options.rotate_k) text += ", rotated";
  if (options.window > 0) text += fmt::format(", {} tokens after {} sinks", options.window, options.sinks);
  return text;
}

}  // namespace qkv
