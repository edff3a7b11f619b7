#include "generation_flags.h"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "console.h"
#include "qkv/core/error.h"
#include "qkv/core/interrupt.h"
#include "qkv/core/json.h"
#include "qkv/core/progress.h"
#include "qkv/engine/grammar/grammar.h"
#include "qkv/tensor/gemm.h"

namespace qkv {

void GenerationFlags::add_to(CLI::App& command) {
  command
      .add_option("MODEL", model,
                  "A Hugging Face directory, or a .gguf, .qkv, .safetensors, .pt or llama2.c file")
      ->required();
  adapters.add_to(command);
  command.add_option("--max-tokens", max_tokens, "Tokens to generate at most (default: 256)")->type_name("N");
  command.add_option("--min-tokens", min_tokens, "Tokens to generate at least")->type_name("N");
  sampling.add_to(command);
  command.add_option("--stop", stop, "Stop before this text; may be repeated")
      ->type_name("TEXT")
      ->allow_extra_args(false);
  command.add_option("--ban", ban, "Never write this text; may be repeated")
      ->type_name("TEXT")
      ->allow_extra_args(false);
  command
      .add_option("--context", context, "Tokens of prompt and answer together at most (default: the model's)")
      ->type_name("N");
  command
      .add_option("--compute-type", compute_type,
                  "Type of activations: auto, f32, bf16 (default: auto)")
      ->type_name("TYPE");
  cache.add_to(command);
  command.add_flag("--mapped", mapped,
                   "Read weights where the file is mapped: no copy in memory, slower answers");
  command
      .add_option("--activations", activations,
                  "In products with quantized weights: int8, rounded and fast, or f32, exact (default: int8)")
      ->type_name("TYPE");
  command.add_flag("--deterministic", deterministic,
                   "The same bits whatever else is computed beside them and however a prompt is cut; slower");
  command
      .add_option("--session", session, "Go on from this file if it is there, and leave it for the next time")
      ->type_name("FILE");
  const char* group = "Speculative decoding (the same answer in fewer passes)";
  auto* draft = command
                    .add_option("--draft-model", draft_model,
                                "A smaller model of the same vocabulary that proposes tokens")
                    ->type_name("MODEL")
                    ->group(group);
  command.add_flag("--lookup", lookup, "Propose what followed the last tokens earlier in the text")
      ->excludes(draft)
      ->group(group);
  command.add_option("--draft-tokens", draft_tokens, "Tokens proposed at a time at most (default: 16)")
      ->type_name("N")
      ->group(group);
  add_grammar_flags(command);
}

void GenerationFlags::add_grammar_flags(CLI::App& command) {
  using Compile = std::shared_ptr<const Grammar> (*)(const std::string& source, const std::string& where);
  const Compile gbnf = [](const std::string& source, const std::string& where) {
    return grammar_from_gbnf(source, where);
  };
  const Compile schema = [](const std::string& source, const std::string& where) {
    return grammar_from_json_schema(parse_json(source, where), where);
  };
  const Compile regex = [](const std::string& source, const std::string& where) {
    return grammar_from_regex(source, where);
  };
  const auto add = [&](const std::string& flag, const char* type, Compile compile, const char* help) {
    const bool from_file = flag.ends_with("-file");
    const auto set = [this, flag, compile, from_file](const std::string& value) {
      require(grammar == nullptr,
              "{}: expected only one of --grammar, --json-schema, --regex and their files, found two", flag);
      grammar = from_file ? compile(read_input(value), value) : compile(value, flag);
    };
    command.add_option_function<std::string>(flag, set, help)->type_name(type)->group("Form of the answer");
  };
  add("--grammar", "GBNF", gbnf, "The answer keeps to this grammar");
  add("--grammar-file", "PATH", gbnf, "The same from a file");
  add("--json-schema", "JSON", schema, "The answer is JSON that satisfies this schema; {}: any JSON");
  add("--json-schema-file", "PATH", schema, "The same from a file");
  add("--regex", "PATTERN", regex, "The answer as a whole matches this regular expression");
}

Bundle GenerationFlags::load() const {
  LoadOptions options;
  options.adapters = adapters.requests();
  options.residence = mapped ? Residence::inference : Residence::memory;
  return load_bundle(model, options);
}

void GenerationFlags::check() const {
  require(max_tokens >= 1, "--max-tokens: expected at least 1, found {}", max_tokens);
  require(context >= 0, "--context: expected a number of tokens, or 0 for the model's, found {}", context);
  require(compute_type == "auto" || compute_type == "f32" || compute_type == "bf16",
          "--compute-type: expected auto, f32 or bf16, found '{}'", compute_type);
  activations_from_name(activations);
  cache.options(DType::f32);
  for (const auto& text : stop) {
    require(!text.empty(), "--stop: expected text, found an empty string");
    require_utf8(text, "--stop");
  }
  for (const auto& text : ban) {
    require(!text.empty(), "--ban: expected text, found an empty string");
    require_utf8(text, "--ban");
  }
  require(draft_tokens >= 1, "--draft-tokens: expected at least 1, found {}", draft_tokens);
  sampling.check();
}

Request GenerationFlags::request(const Bundle& bundle, std::vector<int32_t> prompt) const {
  Request request;
  request.prompt = std::move(prompt);
  request.sampler = sampling.options(bundle);
  request.max_new_tokens = max_tokens;
  request.min_new_tokens = min_tokens;
  request.stop = stop;
  request.banned_strings = ban;
  request.grammar = grammar;
  return request;
}

namespace {

struct LoadedDrafter {
  Bundle bundle;
  ModelDrafter drafter;
};

std::shared_ptr<Drafter> load_drafter(const std::string& path, const Bundle& target, DType compute_type) {
  Bundle bundle = load_bundle(path, {.residence = Residence::memory});
  check_same_vocabulary(*target.tokenizer, *bundle.tokenizer);
  const Model& model = *bundle.model;
  const std::shared_ptr<LoadedDrafter> loaded(
      new LoadedDrafter{std::move(bundle), ModelDrafter(model, compute_type)});
  return {loaded, &loaded->drafter};
}

}  // namespace

EngineOptions GenerationFlags::engine(const Bundle& bundle) const {
  EngineOptions options;
  options.max_context = context;
  options.activations = activations_from_name(activations);
  const bool native = bundle.model->head().dtype() == DType::bf16 && bf16_products_are_native();
  if (compute_type == "bf16" || (compute_type == "auto" && native)) options.compute_type = DType::bf16;
  options.cache = cache.options(options.compute_type);
  options.max_draft = draft_tokens;
  options.deterministic = deterministic;
  if (lookup) options.drafter = std::make_shared<PromptLookup>();
  if (!draft_model.empty()) options.drafter = load_drafter(draft_model, bundle, options.compute_type);
  return options;
}

Activations activations_from_name(const std::string& name) {
  require(name == "int8" || name == "f32", "--activations: expected int8 or f32, found '{}'", name);
  return name == "int8" ? Activations::int8 : Activations::exact;
}

Completion stream_answer(Engine& engine, Request request, FunctionRef<void(std::string_view)> show,
                         std::shared_ptr<Session>* session) {
  request.keep_session = session != nullptr;
  std::optional<Progress> progress(std::in_place, "reading the prompt", request.prompt.size(), "tokens");
  const int64_t before = engine.stats().prefill_tokens;
  const RequestId id = engine.submit(std::move(request));
  Completion answer;
  for (bool more = true; more;) {
    if (interrupted()) engine.cancel(id);
    more = engine.step();
    if (progress) progress->update(static_cast<uint64_t>(engine.stats().prefill_tokens - before));
    for (Event& event : engine.take_events()) {
      progress.reset();
      require(event.error.empty(), "{}", event.error);
      if (!event.text.empty()) show(event.text);
      answer.append(std::move(event));
    }
  }
  if (session != nullptr) *session = engine.take_session(id);
  return answer;
}

std::string performance_sentence(const EngineStats& stats) {
  std::string text =
      fmt::format("prefill {} tokens, {} tokens/s; decode {} tokens, {} tokens/s", stats.prefill_tokens,
                  format_rate(stats.prefill_rate()), stats.decode_tokens, format_rate(stats.decode_rate()));
  if (stats.reused_tokens > 0) text += fmt::format("; {} tokens remembered", stats.reused_tokens);
  if (stats.drafted_tokens > 0) {
    text += fmt::format("; {} of {} drafted tokens accepted", stats.accepted_drafts, stats.drafted_tokens);
  }
  return text + "; " + memory_sentence();
}

}  // namespace qkv
