#include "sampling_flags.h"

#include <CLI/CLI.hpp>
#include <charconv>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>

#include "qkv/core/error.h"

namespace qkv {
namespace {

const std::vector<std::string> kDefaultBreakers = {"\n", ":", "\"", "*"};

// "ID+BIAS", "ID-BIAS", or "ID-inf" to forbid.
std::pair<int32_t, float> parse_bias(const std::string& text) {
  const size_t sign = text.find_first_of("+-");
  int32_t id = 0;
  float bias = 0;
  const char* begin = text.data();
  const char* end = begin + text.size();
  bool good = sign != std::string::npos && sign > 0;
  if (good) {
    const auto number = std::from_chars(begin, begin + sign, id);
    const char* value = begin + sign + (text[sign] == '+' ? 1 : 0);
    const auto amount = std::from_chars(value, end, bias);
    good = number.ec == std::errc{} && number.ptr == begin + sign && amount.ec == std::errc{} &&
           amount.ptr == end;
  }
  require(good, "--logit-bias: expected a token's id and what to add, as in 15043+1.5 or 13-inf, found '{}'",
          text);
  return {id, bias};
}

// Tokens with one of the texts in them: what a repetition does not reach across.
std::vector<int32_t> tokens_with(const Tokenizer& tokenizer, const std::vector<std::string>& texts) {
  std::vector<int32_t> ids;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    const std::string& bytes = tokenizer.token_bytes(id);
    for (const std::string& text : texts) {
      if (text.empty() || bytes.find(text) == std::string::npos) continue;
      ids.push_back(id);
      break;
    }
  }
  return ids;
}

}  // namespace

void SamplingFlags::add_to(CLI::App& command) {
  const char* group = "Choosing tokens";
  const auto add = [&](const char* name, auto& value, const char* help, const char* type) {
    return command.add_option(name, value, help)->type_name(type)->group(group);
  };
  add("--temperature", temperature, "0: always the likeliest token (default: the model's, or 0.8)", "T");
  add("--top-k", top_k, "Choose among the K likeliest tokens; 0: all (default: the model's, or 0)", "K");
  add("--top-p", top_p,
      "Choose among the likeliest tokens with this probability together (default: the model's, or 0.95)",
      "P");
  add("--min-p", min_p,
      "Leave out tokens less likely than P times the likeliest (default: the model's, or 0)", "P");
  add("--typical-p", others.typical_p,
      "Choose among the most typical tokens with this probability together; 1: all", "P");
  add("--top-n-sigma", others.top_n_sigma,
      "Leave out logits more than N standard deviations below the largest; 0: none", "N");
  add("--epsilon-cutoff", others.epsilon, "Leave out tokens less likely than this; 0: none", "P");
  add("--eta-cutoff", others.eta, "The same, less strict where the distribution is flat; 0: none", "P");
  add("--xtc-probability", others.xtc_probability, "How often to exclude top choices; 0: never", "P");
  add("--xtc-threshold", others.xtc_threshold, "How likely a top choice is (default: 0.1)", "P");
  add("--dynatemp-range", others.temperature_range,
      "Temperature within so much of --temperature, by entropy; 0: fixed", "T");
  add("--dynatemp-exp", others.temperature_exponent, "How entropy maps to temperature (default: 1)", "X");
  add("--mirostat", others.mirostat, "1 or 2: hold the surprise at a level instead of all other filters",
      "VERSION");
  add("--mirostat-tau", others.mirostat_tau, "The level in bits (default: 5)", "BITS");
  add("--mirostat-eta", others.mirostat_eta, "How fast (default: 0.1)", "X");
  add("--repeat-penalty", repeat_penalty,
      "Make tokens seen before less likely; 1: no (default: the model's, or 1)", "X");
  add("--presence-penalty", others.presence_penalty, "Taken from the logit of every token seen before", "X");
  add("--frequency-penalty", others.frequency_penalty, "The same, times how often it was seen", "X");
  add("--repeat-window", others.repetition_window, "How many of the latest tokens count as seen; 0: all",
      "N");
  add("--no-repeat-ngram", others.no_repeat_ngram, "Never the same N tokens in a row twice; 0: allowed", "N");
  add("--dry-multiplier", others.dry_multiplier, "Penalty on going on with a repetition; 0: none", "X");
  add("--dry-base", others.dry_base, "How it grows with every repeated token (default: 1.75)", "X");
  add("--dry-allowed-length", others.dry_allowed_length,
      "Repetitions up to this length are free (default: 2)", "N");
  add("--dry-window", others.dry_window, "How many of the latest tokens are searched; 0: all", "N");
  add("--dry-breaker", dry_breakers,
      "Text that no repetition reaches across; may be repeated (default: newline, colon, quote, asterisk)",
      "TEXT")
      ->allow_extra_args(false);
  add("--logit-bias", logit_bias,
      "A token's id and what to add to its logit: 15043+1.5, 13-inf; may be repeated", "BIAS")
      ->allow_extra_args(false);
  add("--samplers", order,
      "Which filters, in which order, with ';' between: penalties, dry, temperature, top_k, top_p, min_p, "
      "typical_p, "
      "epsilon, eta, top_n_sigma, xtc; or 'llama.cpp' for that program's order",
      "NAMES");
  add("--seed", seed, "The same seed gives the same text (default: a new one each time)", "N");
}

SamplerOptions SamplingFlags::with_flags(SamplerOptions options) const {
  options.temperature = temperature.value_or(options.temperature);
  options.top_k = top_k.value_or(options.top_k);
  options.top_p = top_p.value_or(options.top_p);
  options.min_p = min_p.value_or(options.min_p);
  options.repetition_penalty = repeat_penalty.value_or(options.repetition_penalty);
  for (const std::string& text : logit_bias) options.logit_bias.push_back(parse_bias(text));
  if (!order.empty()) options.order = order == "llama.cpp" ? llama_cpp_order() : parse_sampler_order(order);
  return options;
}

void SamplingFlags::check() const {
  qkv::check(with_flags(others));
}

SamplerOptions SamplingFlags::options(const Bundle& bundle) const {
  SamplerOptions options = others;
  options.temperature = 0.8f;
  options.top_p = 0.95f;
  if (bundle.generation_config) {
    const JsonView config(*bundle.generation_config, bundle.path + "/generation_config.json");
    options.temperature = static_cast<float>(config.number_or("temperature", options.temperature));
    if (!config.boolean_or("do_sample", true)) options.temperature = 0;
    options.top_k = static_cast<int32_t>(config.integer_or("top_k", options.top_k));
    options.top_p = static_cast<float>(config.number_or("top_p", options.top_p));
    options.min_p = static_cast<float>(config.number_or("min_p", options.min_p));
    options.repetition_penalty =
        static_cast<float>(config.number_or("repetition_penalty", options.repetition_penalty));
  }
  options = with_flags(std::move(options));
  if (options.dry_multiplier > 0) {
    options.dry_breakers =
        tokens_with(*bundle.tokenizer, dry_breakers.empty() ? kDefaultBreakers : dry_breakers);
  }
  options.seed = seed ? *seed : std::random_device{}();
  return options;
}

}  // namespace qkv
