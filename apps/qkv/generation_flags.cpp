#include "generation_flags.h"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <random>

#include "console.h"
#include "qkv/core/error.h"
#include "qkv/core/interrupt.h"
#include "qkv/core/progress.h"
#include "qkv/tensor/gemm.h"

namespace qkv {

void GenerationFlags::add_to(CLI::App& command) {
  command
      .add_option("MODEL", model,
                  "A Hugging Face directory, or a .gguf, .qkv, .safetensors, .pt or llama2.c file")
      ->required();
  command.add_option("--max-tokens", max_tokens, "Tokens to generate at most (default: 256)")->type_name("N");
  command
      .add_option("--temperature", temperature,
                  "0: always the likeliest token (default: the model's, or 0.8)")
      ->type_name("T");
  command
      .add_option("--top-k", top_k,
                  "Choose among the K likeliest tokens; 0: all (default: the model's, or 0)")
      ->type_name("K");
  command
      .add_option(
          "--top-p", top_p,
          "Choose among the likeliest tokens with this probability together (default: the model's, or 0.95)")
      ->type_name("P");
  command
      .add_option("--min-p", min_p,
                  "Leave out tokens less likely than P times the likeliest (default: the model's, or 0)")
      ->type_name("P");
  command
      .add_option("--repeat-penalty", repeat_penalty,
                  "Make tokens seen before less likely; 1: no (default: the model's, or 1)")
      ->type_name("X");
  command.add_option("--repeat-window", repeat_window, "How many of the latest tokens count as seen; 0: all")
      ->type_name("N");
  command.add_option("--stop", stop, "Stop before this text; may be repeated")
      ->type_name("TEXT")
      ->allow_extra_args(false);
  command.add_option("--seed", seed, "The same seed gives the same text (default: a new one each time)")
      ->type_name("N");
  command
      .add_option("--context", context, "Tokens of prompt and answer together at most (default: the model's)")
      ->type_name("N");
  command
      .add_option("--compute-type", compute_type,
                  "Type of activations and cache: auto, f32, bf16 (default: auto)")
      ->type_name("TYPE");
}

void GenerationFlags::check() const {
  require(max_tokens >= 1, "--max-tokens: expected at least 1, found {}", max_tokens);
  require(context >= 0, "--context: expected a number of tokens, or 0 for the model's, found {}", context);
  require(compute_type == "auto" || compute_type == "f32" || compute_type == "bf16",
          "--compute-type: expected auto, f32 or bf16, found '{}'", compute_type);
  for (const auto& text : stop) {
    require(!text.empty(), "--stop: expected text, found an empty string");
    require_utf8(text, "--stop");
  }
  SamplerOptions options;
  options.temperature = temperature.value_or(1);
  options.top_k = top_k.value_or(0);
  options.top_p = top_p.value_or(1);
  options.min_p = min_p.value_or(0);
  options.repetition_penalty = repeat_penalty.value_or(1);
  options.repetition_window = repeat_window;
  qkv::check(options);
}

SamplerOptions GenerationFlags::sampler(const Bundle& bundle) const {
  SamplerOptions options;
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
  options.temperature = temperature.value_or(options.temperature);
  options.top_k = top_k.value_or(options.top_k);
  options.top_p = top_p.value_or(options.top_p);
  options.min_p = min_p.value_or(options.min_p);
  options.repetition_penalty = repeat_penalty.value_or(options.repetition_penalty);
  options.repetition_window = repeat_window;
  options.seed = seed ? *seed : std::random_device{}();
  return options;
}

EngineOptions GenerationFlags::engine(const Bundle& bundle) const {
  EngineOptions options;
  options.max_context = context;
  const bool native = bundle.model->head().dtype() == DType::bf16 && bf16_products_are_native();
  if (compute_type == "bf16" || (compute_type == "auto" && native)) options.compute_type = DType::bf16;
  return options;
}

Completion stream_answer(Engine& engine, Request request, FunctionRef<void(std::string_view)> show) {
  std::optional<Progress> progress(std::in_place, "reading the prompt", request.prompt.size(), "tokens");
  const int64_t before = engine.stats().prefill_tokens;
  const RequestId id = engine.submit(std::move(request));
  Completion answer;
  for (bool more = true; more;) {
    if (interrupted()) engine.cancel(id);
    more = engine.step();
    if (progress) progress->update(static_cast<uint64_t>(engine.stats().prefill_tokens - before));
    for (const Event& event : engine.take_events()) {
      progress.reset();
      require(event.error.empty(), "{}", event.error);
      answer.text += event.text;
      if (event.token) answer.tokens.push_back(*event.token);
      if (event.finish) answer.finish = *event.finish;
      if (!event.text.empty()) show(event.text);
    }
  }
  return answer;
}

std::string performance_sentence(const EngineStats& stats) {
  std::string text =
      fmt::format("prefill {} tokens, {} tokens/s; decode {} tokens, {} tokens/s", stats.prefill_tokens,
                  format_rate(stats.prefill_rate()), stats.decode_tokens, format_rate(stats.decode_rate()));
  if (stats.reused_tokens > 0) text += fmt::format("; {} tokens remembered", stats.reused_tokens);
  return text + "; " + memory_sentence();
}

}  // namespace qkv
