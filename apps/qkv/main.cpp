// The program `qkv`: one verb per file, errors as one sentence, exit code 2 for bad input.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <exception>
#include <string>
#include <vector>

#include "commands.h"
#include "console.h"
#include "qkv/core/error.h"
#include "qkv/core/interrupt.h"
#include "qkv/core/json.h"
#include "qkv/core/parallel.h"

namespace qkv {
namespace {

constexpr int kBadInput = 2;

constexpr const char* kFirstSteps = R"(qkv takes a language model through its whole life. Where to begin:

  qkv data make-tales DIR           make a corpus of short stories and questions
  qkv tokenizer train FILE --out DIR   learn a vocabulary
  qkv train pretrain CONFIG.yaml    train a model from nothing
  qkv generate MODEL --prompt TEXT  continue a text
  qkv chat MODEL                    talk to a model
  qkv info MODEL                    see what a checkpoint holds

`qkv VERB --help` explains a verb and gives an example; `qkv --help` lists all.
)";

// The innermost command that was recognized.
const CLI::App* innermost(const CLI::App* app) {
  while (!app->get_subcommands().empty()) app = app->get_subcommands().front();
  return app;
}

std::string full_name(const CLI::App* app) {
  return app->get_parent() == nullptr ? app->get_name()
                                      : full_name(app->get_parent()) + " " + app->get_name();
}

std::vector<std::string> command_names(const CLI::App* app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app->get_subcommands([](const CLI::App*) { return true; })) {
    names.push_back(command->get_name());
  }
  return names;
}

std::vector<std::string> flag_names(const CLI::App* app) {
  std::vector<std::string> names;
  for (; app != nullptr; app = app->get_parent()) {
    for (const CLI::Option* option : app->get_options()) {
      for (const auto& name : option->get_lnames()) names.push_back("--" + name);
    }
  }
  return names;
}

std::string usage_error(const CLI::App& app, const CLI::ParseError& error) {
  const CLI::App* command = innermost(&app);
  const std::string name = full_name(command);
  const std::vector<std::string> unexpected = app.remaining(true);
  const std::string help = "; see '" + name + " --help'";
  if (unexpected.empty()) {
    if (command_names(command).empty()) return error.what() + help;
    return fmt::format("{}: expected one of its commands{}", name, help);
  }
  const std::string& word = unexpected.front();
  if (word.starts_with('-')) {
    return fmt::format("unknown option '{}' of {}{}", word, name,
                       suggestion(word.substr(0, word.find('=')), flag_names(command)));
  }
  if (!command_names(command).empty()) {
    const std::string nearest = suggestion(word, command_names(command));
    const std::string group = command == &app ? "" : command->get_name() + " ";
    return fmt::format("unknown command '{}{}'{}", group, word, nearest.empty() ? help : nearest);
  }
  return fmt::format("unexpected argument '{}' of {}{}", word, name, help);
}

int report(std::string_view sentence) {
  print_note("error: " + std::string(sentence));
  return kBadInput;
}

int run(int argc, char** argv) {
  if (argc == 1) {
    if (::isatty(STDOUT_FILENO) == 0) return report("expected a command; see 'qkv --help'");
    print_out(kFirstSteps);
    return 0;
  }
  CLI::App app("A language model's whole life in one program.", "qkv");
  app.fallthrough();
  app.require_subcommand(1, 1);
  app.set_version_flag("--version", "qkv " QKV_VERSION);
  app.set_help_all_flag("--help-all", "Help of all commands");
  app.add_option_function<int>("--threads", set_num_threads, "Threads to use (default: one per processor)")
      ->type_name("N");
  app.footer("Example:\n  qkv generate my-model --prompt \"Once upon a time\"");
  add_generate(app);
  add_chat(app);
  add_tokenizer(app);
  add_data(app);
  add_info(app);
  add_convert(app);
  add_check(app);
  add_init(app);
  add_quantize(app);
  add_prune(app);
  add_imatrix(app);
  add_merge(app);
  add_train(app);
  add_eval(app);
  add_bench(app);
  add_plan(app);
  try {
    app.parse(argc, argv);
    return 0;
  } catch (const CLI::RuntimeError& status) {
    return status.get_exit_code();
  } catch (const CLI::Success& information) {  // --help, --version
    return app.exit(information);
  } catch (const CLI::ParseError& error) {
    return report(usage_error(app, error));
  }
}

}  // namespace
}  // namespace qkv

int main(int argc, char** argv) {
  qkv::catch_interrupts();
  // A file that grows beyond the limit (ulimit -f) is an error of write(), as a full disk is, and no end without a word.
  std::signal(SIGXFSZ, SIG_IGN);
  try {
    return qkv::run(argc, argv);
  } catch (const std::bad_alloc&) {
    return qkv::report("not enough memory");
  } catch (const std::exception& error) {
    return qkv::report(error.what());
  }
}
