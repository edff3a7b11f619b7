// qkv chat: a conversation on the terminal, or one question per line from standard input.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "commands.h"
#include "console.h"
#include "conversation.h"
#include "generation_flags.h"
#include "memory_check.h"
#include "qkv/core/error.h"
#include "qkv/core/interrupt.h"

namespace qkv {
namespace {

constexpr const char* kCommands =
    "/reset forgets the conversation, /exit or Ctrl-D ends, Ctrl-C stops an answer.";

struct ChatCommand {
  GenerationFlags flags;
  std::string form = "auto";
  std::string system;
  bool verbose = false;
};

// The next line of standard input without its newline; nullopt at the end or on Ctrl-C.
std::optional<std::string> next_line() {
  char* buffer = nullptr;
  size_t capacity = 0;
  errno = 0;
  const ssize_t length = ::getline(&buffer, &capacity, stdin);
  const int code = errno;
  const std::unique_ptr<char, void (*)(void*)> owner(buffer, std::free);
  if (length < 0) {
    require(std::ferror(stdin) == 0 || code == EINTR, "standard input: cannot be read: {}",
            system_error_text(code));
    return std::nullopt;
  }
  std::string line(buffer, static_cast<size_t>(length));
  if (line.ends_with('\n')) line.pop_back();
  if (line.ends_with('\r')) line.pop_back();
  return line;
}

// Prints an answer as it comes, without the space or line break that it may begin with.
class AnswerPrinter {
 public:
  void print(std::string_view text) {
    if (!begun_) {
      const size_t start = text.find_first_not_of(" \n");
      if (start == std::string_view::npos) return;
      text.remove_prefix(start);
      begun_ = true;
    }
    if (!text.empty()) print_out(text);
  }

 private:
  bool begun_ = false;
};

class Chat {
 public:
  Chat(const ChatCommand& command, const Bundle& bundle)
      : command_(command),
        settings_(command.flags.request(bundle, {})),
        options_(engine_options(command, bundle)),
        engine_(*bundle.model, bundle.tokenizer.get(), options_),
        conversation_(*bundle.tokenizer, make_chat_form(command.form, *bundle.tokenizer, command.flags.model),
                      command.system) {
    const std::string& file = command.flags.session;
    if (file.empty()) return;
    fingerprint_ = model_fingerprint(*bundle.model);
    if (!std::filesystem::exists(file)) return;
    Session session = load_session(file, *bundle.model, options_.cache, fingerprint_);
    conversation_.restore(session.note, file);
    session.tokens.resize(static_cast<size_t>(session.state.length));
    engine_.keep_prefix(std::move(session.tokens), std::move(session.state));
    answers_ = session.draws;
    if (!command.flags.sampling.seed) settings_.sampler.seed = session.seed;
  }

  // Answers one question on standard output.
  void answer(const std::string& question) {
    const int64_t reserve = std::min(command_.flags.max_tokens, engine_.max_context() / 4);
    Request request = settings_;
    request.prompt = conversation_.ask(question, engine_.max_context(), reserve);
    request.sampler.seed += answers_++;
    const std::vector<std::string> stops = conversation_.stop_strings();
    request.stop.insert(request.stop.end(), stops.begin(), stops.end());
    request.stop_ids = conversation_.stop_ids();
    if (conversation_.dropped() > 0) {
      print_note(
          fmt::format("note: the oldest {} turns no longer fit the context of {} tokens and were dropped",
                      conversation_.dropped(), engine_.max_context()));
    }
    AnswerPrinter printer;
    const std::string& file = command_.flags.session;
    std::shared_ptr<Session> session;
    const Completion completion = stream_answer(
        engine_, std::move(request), [&](std::string_view text) { printer.print(text); },
        file.empty() ? nullptr : &session);
    clear_interrupt();
    print_out("\n");
    conversation_.answer(completion);
    if (session != nullptr) {
      session->note = conversation_.save();
      session->seed = settings_.sampler.seed;
      session->draws = answers_;  // each has a seed of its own
      save_session(file, *session, options_.cache, fingerprint_);
    }
    if (completion.finish == FinishReason::context)
      print_note("note: the answer was cut off at the end of the context");
    if (command_.verbose) print_note(performance_sentence(engine_.stats()));
  }

  void reset() { conversation_.clear(); }

 private:
  static EngineOptions engine_options(const ChatCommand& command, const Bundle& bundle) {
    EngineOptions options = command.flags.engine(bundle);
    options.kept_sequences = 1;  // the conversation so far
    if (command.flags.context > 0) {
      require_memory(bundle, options, std::min(command.flags.context, bundle.model->info().max_positions));
      return options;
    }
    const int64_t whole = bundle.model->info().max_positions;
    options.max_context = context_that_fits(bundle, options, whole);
    if (options.max_context == 0) require_memory(bundle, options, whole);
    if (options.max_context < whole) {
      print_note(fmt::format("note: the memory that is left holds a context of {} tokens, of the model's {}",
                             options.max_context, whole));
    }
    return options;
  }

  const ChatCommand& command_;
  Request settings_;  // of every answer
  EngineOptions options_;
  uint64_t fingerprint_ = 0;  // of the model, if there is a session
  Engine engine_;
  Conversation conversation_;
  uint64_t answers_ = 0;
};

void run_chat(const ChatCommand& command) {
  command.flags.check();
  require_utf8(command.system, "--system");
  const Bundle bundle = command.flags.load();
  Chat chat(command, bundle);
  const bool interactive = ::isatty(STDIN_FILENO) == 1 && ::isatty(STDOUT_FILENO) == 1;
  if (interactive) print_note(kCommands);
  while (true) {
    if (interactive) print_out("> ");
    const std::optional<std::string> line = next_line();
    if (!line || *line == "/exit") break;
    if (line->find_first_not_of(" \t") == std::string::npos) continue;
    if (*line == "/reset") {
      chat.reset();
      continue;
    }
    try {
      require_utf8(*line, "standard input");
      chat.answer(*line);
    } catch (const Error& error) {
      if (!interactive) throw;
      print_note(std::string("error: ") + error.what());
    }
  }
  if (interactive) print_out("\n");
}

}  // namespace

void add_chat(CLI::App& app) {
  const auto command = std::make_shared<ChatCommand>();
  CLI::App* verb = app.add_subcommand("chat", "Talk to a model");
  command->flags.add_to(*verb);
  verb->add_option(
          "--template", command->form,
          "How turns are marked: auto (the model's own chat template if it has one), chatml, qa, plain, or a "
          "file with a Jinja chat template (default: auto)")
      ->type_name("NAME|FILE");
  verb->add_option("--system", command->system, "What the model is told before the conversation")
      ->type_name("TEXT");
  verb->add_flag("--verbose", command->verbose, "Say after each answer how fast it was");
  verb->footer(std::string("Example:\n  qkv chat my-model --temperature 0.7\nIn the chat, ") + kCommands);
  verb->callback([command] { run_chat(*command); });
}

}  // namespace qkv
