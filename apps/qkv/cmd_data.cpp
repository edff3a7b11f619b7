// qkv data: makes the corpus that is built into the program.
#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "commands.h"
#include "console.h"
#include "data_verbs.h"
#include "qkv/core/error.h"
#include "qkv/core/json.h"
#include "qkv/core/progress.h"
#include "qkv/data/tales.h"

namespace qkv {
namespace {

struct TalesCommand {
  std::string out;
  tales::Options options;
  bool json = false;
};

Json summary_json(const tales::Summary& summary) {
  Json json;
  for (const auto& file : summary.files)
    json["files"][file.name] = {{"bytes", file.bytes}, {"records", file.records}};
  for (int kind = 0; kind < tales::kKinds; ++kind) {
    json["documents"][std::string(tales::kind_name(static_cast<tales::Kind>(kind)))] = {
        {"count", summary.documents[kind]}, {"bytes", summary.document_bytes[kind]}};
  }
  json["sentences"] = summary.sentences;
  json["distinct_sentences"] = summary.distinct_sentences;
  for (const auto& kind : summary.questions) {
    json["questions"][kind.kind] = {
        {"count", kind.questions}, {"chance", kind.chance}, {"commonest", kind.commonest}};
  }
  return json;
}

void make_tales(const TalesCommand& command) {
  tales::check(command.options);
  std::optional<Progress> progress;
  const tales::Summary summary =
      tales::write_corpus(command.options, command.out, [&](uint64_t done, uint64_t total) {
        if (!progress) progress.emplace("writing " + command.out, total, "bytes");
        progress->update(done);
      });
  progress.reset();
  if (command.json) {
    print_out(dump_json(summary_json(summary)) + "\n");
    return;
  }
  for (const auto& file : summary.files) {
    print_out(
        fmt::format("{:<26} {:>10}  {:>9} records\n", file.name, format_bytes(file.bytes), file.records));
  }
  print_out(fmt::format("{} sentences in train.txt, about {} of them different\n", summary.sentences,
                        summary.distinct_sentences));
}

}  // namespace

void add_data(CLI::App& app) {
  CLI::App* verb = app.add_subcommand("data", "Make and check training data");
  verb->require_subcommand(1, 1);
  verb->footer("Example:\n  qkv data make-tales tales --bytes 20MB --seed 1");
  add_data_lint(*verb);
  add_data_self_critique(*verb);
  const auto command = std::make_shared<TalesCommand>();
  tales::Options& options = command->options;
  CLI::App* make =
      verb->add_subcommand("make-tales", "Write a corpus of simple English stories, questions and chats");
  make->add_option("OUT_DIR", command->out, "The directory to write")->required();
  make->add_option("--bytes", options.bytes, "Size of train.txt, for example 500kB or 20MB (default: 10MB)")
      ->type_name("SIZE")
      ->transform(CLI::AsSizeValue(true));
  make->add_option("--documents", options.documents, "Documents in train.txt, instead of --bytes")
      ->type_name("N");
  make->add_option("--valid-bytes", options.valid_bytes,
                   "Size of valid.txt (default: a fiftieth of train.txt)")
      ->type_name("SIZE")
      ->transform(CLI::AsSizeValue(true));
  make->add_option("--seed", options.seed, "The same seed and options give the same bytes (default: 0)")
      ->type_name("N");
  make->add_option("--questions", options.questions, "Held-out questions (default: 2000)")->type_name("N");
  make->add_option("--instructions", options.instructions, "Chats in sft.jsonl (default: 4000)")
      ->type_name("N");
  make->add_option("--preferences", options.preferences, "Pairs in preferences.jsonl (default: 2000)")
      ->type_name("N");
  make->add_option("--styles", options.styles,
                   "Lines of styles.jsonl, style_preferences.jsonl and arithmetic.jsonl (default: 4000)")
      ->type_name("N");
  make->add_option("--story-share", options.story_share, "Shares of train.txt by kind (default: 0.25)")
      ->type_name("X");
  make->add_option("--question-share", options.question_share, "(default: 0.40)")->type_name("X");
  make->add_option("--arithmetic-share", options.arithmetic_share, "(default: 0.20)")->type_name("X");
  make->add_option("--instruction-share", options.instruction_share, "(default: 0.10)")->type_name("X");
  make->add_option("--fact-share", options.fact_share, "(default: 0.05)")->type_name("X");
  make->add_flag("--json", command->json, "Print a JSON summary");
  make->footer("Example:\n  qkv data make-tales tales --bytes 20MB --seed 1");
  make->callback([command] { make_tales(*command); });
}

}  // namespace qkv
