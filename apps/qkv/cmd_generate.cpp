// qkv generate: continues a text, streaming it to standard output.
#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "commands.h"
#include "console.h"
#include "generation_flags.h"
#include "memory_check.h"
#include "qkv/core/error.h"
#include "qkv/core/utf8.h"
#include "qkv/tensor/allocator.h"

namespace qkv {
namespace {

constexpr int kInterrupted = 130;

struct GenerateCommand {
  GenerationFlags flags;
  std::optional<std::string> prompt;
  std::string prompt_file;
  bool ignore_eos = false, json = false, no_stream = false, verbose = false, prompt_logprobs = false;
  int logprobs = 0;
};

// Empty if a session goes on as it is.
std::string prompt_text(const GenerateCommand& command, bool resumes) {
  const bool none = !command.prompt && command.prompt_file.empty();
  if (resumes && none) return "";
  require(!none && (!command.prompt || command.prompt_file.empty()),
          "generate: expected either --prompt or --prompt-file");
  const std::string where = command.prompt ? "--prompt" : command.prompt_file;
  const std::string text = command.prompt ? *command.prompt : read_input(command.prompt_file);
  require(!text.empty(), "{}: expected a text to continue, found nothing", where);
  require_utf8(text, where);
  return text;
}

// What comes before a text, but not after it: the answer goes on where the prompt ends.
std::vector<int32_t> prompt_tokens(const Tokenizer& tokenizer, const std::string& text) {
  std::vector<int32_t> tokens = tokenizer.prefix_ids();
  const std::vector<int32_t> body = tokenizer.encode(text, {.add_special = false});
  tokens.insert(tokens.end(), body.begin(), body.end());
  return tokens;
}

void describe_run(const Bundle& bundle, const Engine& engine, const SamplerOptions& sampler, size_t prompt) {
  print_note(fmt::format("{}: {}, {} parameters, context {}", bundle.path, bundle.model->info().architecture,
                         bundle.model->parameter_count(), engine.max_context()));
  print_note(fmt::format(
      "prompt {} tokens; temperature {}, top-k {}, top-p {}, min-p {}, repeat penalty {}, seed {}", prompt,
      sampler.temperature, sampler.top_k, sampler.top_p, sampler.min_p, sampler.repetition_penalty,
      sampler.seed));
}

// One object per token: its own log-probability and the likeliest in its place. Bytes that are no text show
// as U+FFFD.
Json logprobs_json(const Tokenizer& tokenizer, const Completion& answer) {
  const auto entry = [&](int32_t token, float logprob) {
    return Json{
        {"id", token}, {"text", replace_invalid_utf8(tokenizer.token_bytes(token))}, {"logprob", logprob}};
  };
  Json list = Json::array();
  for (size_t i = 0; i < answer.tokens.size(); ++i) {
    Json item = entry(answer.tokens[i], answer.logprobs[i]);
    for (const TokenLogprob& other : answer.top_logprobs[i])
      item["top"].push_back(entry(other.token, other.logprob));
    list.push_back(std::move(item));
  }
  return list;
}

void print_json(const Bundle& bundle, const Request& request, const Completion& answer,
                const Engine& engine) {
  const EngineStats& stats = engine.stats();
  Json json;
  json["model"] = bundle.path;
  json["text"] = answer.text;
  json["tokens"] = answer.tokens;
  json["finish_reason"] = finish_reason_name(answer.finish);
  json["prompt_tokens"] = request.prompt.size();
  json["seed"] = request.sampler.seed;
  if (request.logprobs) json["logprobs"] = logprobs_json(*bundle.tokenizer, answer);
  if (request.prompt_logprobs) json["prompt_logprobs"] = answer.prompt_logprobs;
  json["prefill_tokens_per_second"] = stats.prefill_rate();
  json["decode_tokens_per_second"] = stats.decode_rate();
  json["peak_tensor_bytes"] = memory_use().peak;
  json["peak_process_bytes"] = peak_resident_bytes();
  print_out(dump_json(json) + "\n");
}

void generate(const GenerateCommand& command) {
  command.flags.check();
  require(command.json || (command.logprobs == 0 && !command.prompt_logprobs),
          "--logprobs: expected --json with it");
  const std::string& file = command.flags.session;
  const bool resumes = !file.empty() && std::filesystem::exists(file);
  const std::string text = prompt_text(command, resumes);
  const Bundle bundle = command.flags.load();
  const EngineOptions options = command.flags.engine(bundle);
  const uint64_t fingerprint = file.empty() ? 0 : model_fingerprint(*bundle.model);

  Request request =
      command.flags.request(bundle, resumes ? bundle.tokenizer->encode(text, {.add_special = false})
                                            : prompt_tokens(*bundle.tokenizer, text));
  auto total = static_cast<int64_t>(request.prompt.size()) + request.max_new_tokens;
  if (resumes) {
    const auto session =
        std::make_shared<Session>(load_session(file, *bundle.model, options.cache, fingerprint));
    total += static_cast<int64_t>(session->tokens.size());
    if (!command.flags.sampling.seed) request.sampler.seed = session->seed;
    request.resume = session;
  }
  const int64_t positions = bundle.model->info().max_positions;
  require_memory(
      bundle, options,
      command.flags.context > 0 ? std::min(command.flags.context, positions) : std::min(total, positions));
  request.ignore_eos = command.ignore_eos;
  request.top_logprobs = command.logprobs;
  request.logprobs = command.logprobs > 0;
  request.prompt_logprobs = command.prompt_logprobs;
  Engine engine(*bundle.model, bundle.tokenizer.get(), options);
  if (command.verbose) describe_run(bundle, engine, request.sampler, request.prompt.size());

  const bool stream = !command.no_stream && !command.json;
  std::shared_ptr<Session> session;
  const auto show = [&](std::string_view piece) {
    if (stream) print_out(piece);
  };
  const Completion answer = stream_answer(engine, request, show, file.empty() ? nullptr : &session);
  if (session != nullptr) save_session(file, *session, options.cache, fingerprint);
  if (command.json) {
    print_json(bundle, request, answer, engine);
  } else {
    print_out(stream ? "\n" : answer.text + "\n");
    if (command.verbose) print_note(fmt::format("finished: {}", finish_reason_name(answer.finish)));
    print_note(performance_sentence(engine.stats()));
  }
  if (answer.finish == FinishReason::cancelled) throw CLI::RuntimeError(kInterrupted);
}

}  // namespace

void add_generate(CLI::App& app) {
  const auto command = std::make_shared<GenerateCommand>();
  CLI::App* verb = app.add_subcommand("generate", "Continue a text");
  command->flags.add_to(*verb);
  verb->add_option("--prompt", command->prompt, "The text to continue")->type_name("TEXT");
  verb->add_option("--prompt-file", command->prompt_file, "Read it from a file; - is standard input")
      ->type_name("PATH");
  verb->add_flag("--ignore-eos", command->ignore_eos, "Go on after tokens that end a text");
  verb->add_flag("--json", command->json, "Print one JSON object at the end instead of text");
  verb->add_option("--logprobs", command->logprobs,
                   "With --json: each token's log-probability and its N likeliest rivals")
      ->type_name("N");
  verb->add_flag("--prompt-logprobs", command->prompt_logprobs,
                 "With --json: log-probabilities of the prompt's tokens");
  verb->add_flag("--no-stream", command->no_stream, "Print the text when it is complete");
  verb->add_flag("--verbose", command->verbose, "Say which settings are in use and why the text ended");
  verb->footer(
      "Examples:\n"
      "  qkv generate my-model --prompt \"Once upon a time\" --max-tokens 100\n"
      "  qkv generate my-model --prompt-file question.txt --temperature 0 --stop \"Question:\" --json\n"
      "  qkv generate my-model --session story --prompt \"Once upon a time\"; qkv generate my-model "
      "--session story");
  verb->callback([command] { generate(*command); });
}

}  // namespace qkv
