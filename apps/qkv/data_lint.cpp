// qkv data lint FILE --model MODEL: what training on a file would learn, before it is trained on.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "console.h"
#include "data_verbs.h"
#include "qkv/core/error.h"
#include "qkv/data/chat_tokens.h"
#include "qkv/data/sample_batches.h"
#include "qkv/models/tokenizer_source.h"

namespace qkv {
namespace {

struct LintCommand {
  std::string file, model, against;
  int64_t max_length = 2048, show = 1;
  bool json = false, raw = false;
};

// The sample's text with what is learned in green, or between guillemets where there is no terminal.
std::string marked(const Tokenizer& tokenizer, const TokenSample& sample) {
  const bool colored = ::isatty(STDOUT_FILENO) == 1;
  std::string text;
  bool inside = false;
  for (size_t i = 0; i < sample.tokens.size(); ++i) {
    const bool learned = sample.learned[i] != 0;
    if (learned != inside) text += learned ? (colored ? "\033[32m" : "«") : (colored ? "\033[0m" : "»");
    inside = learned;
    text += tokenizer.token_bytes(sample.tokens[i]);
  }
  if (inside) text += colored ? "\033[0m" : "»";
  return text;
}

std::string key_of(const std::vector<int32_t>& tokens) {
  return {reinterpret_cast<const char*>(tokens.data()), tokens.size() * sizeof(int32_t)};
}

// The tokens before the first that is learned.
std::string prompt_key(const TokenSample& sample) {
  const auto first = std::find(sample.learned.begin(), sample.learned.end(), 1) - sample.learned.begin();
  return key_of({sample.tokens.begin(), sample.tokens.begin() + first});
}

bool ends_are_learned(const Tokenizer& tokenizer, const TokenSample& sample) {
  for (size_t i = 0; i < sample.tokens.size(); ++i) {
    if (sample.learned[i] && tokenizer.is_special(sample.tokens[i])) return true;
  }
  return false;
}

int64_t quantile(const std::vector<int64_t>& sorted, double q) {
  return sorted.empty() ? 0 : sorted[static_cast<size_t>(q * static_cast<double>(sorted.size() - 1))];
}

void lint(const LintCommand& command) {
  const std::unique_ptr<Tokenizer> tokenizer = load_any_tokenizer(command.model);
  const ChatTokens tokens(*tokenizer);
  const RecordFile file = read_records(command.file);
  const bool chat = !command.raw;
  std::vector<TokenSample> samples;
  std::vector<int64_t> lengths;
  std::unordered_map<std::string, std::string> seen;
  int64_t duplicates = 0, without_end = 0, nothing_learned = 0, overlong = 0, learned = 0, total = 0;
  std::string first_duplicate;
  for (const Record& record : file.records) {
    const Record turned = chat ? as_chat(record) : record;
    std::vector<TokenSample> own = {tokens.sample(turned)};
    if (file.schema == RecordSchema::preference) own.push_back(tokens.rejected(turned));
    std::string key;
    for (TokenSample& sample : own) {
      const auto length = static_cast<int64_t>(sample.tokens.size());
      lengths.push_back(length);
      overlong += length > command.max_length ? 1 : 0;
      learned += sample.learned_count();
      total += length;
      without_end += ends_are_learned(*tokenizer, sample) ? 0 : 1;
      nothing_learned += sample.learned_count() == 0 ? 1 : 0;
      key += key_of(sample.tokens);
      samples.push_back(std::move(sample));
    }
    const auto [place, is_new] = seen.emplace(key, record.where);
    if (is_new) continue;
    if (duplicates++ == 0) first_duplicate = fmt::format("{} is {} again", record.where, place->second);
  }
  require(learned > 0, "{}: nothing is learned from any of the {} records", command.file,
          file.records.size());
  int64_t leaks = 0;
  if (!command.against.empty()) {
    std::unordered_map<std::string, std::string> prompts;
    for (const Record& record : read_records(command.against).records) {
      prompts.emplace(prompt_key(tokens.sample(chat ? as_chat(record) : record)), record.where);
    }
    const size_t each = file.schema == RecordSchema::preference ? 2 : 1;
    for (size_t i = 0; i < samples.size(); i += each)
      leaks += static_cast<int64_t>(prompts.count(prompt_key(samples[i])));
  }
  std::sort(lengths.begin(), lengths.end());
  if (command.json) {
    print_out(dump_json({{"file", command.file},
                         {"schema", schema_name(file.schema)},
                         {"records", file.records.size()},
                         {"samples", samples.size()},
                         {"tokens", total},
                         {"learned_tokens", learned},
                         {"length",
                          {{"median", quantile(lengths, 0.5)},
                           {"90", quantile(lengths, 0.9)},
                           {"99", quantile(lengths, 0.99)},
                           {"longest", quantile(lengths, 1)}}},
                         {"longer_than_max_length", overlong},
                         {"max_length", command.max_length},
                         {"without_learned_end", without_end},
                         {"nothing_learned", nothing_learned},
                         {"duplicates", duplicates},
                         {"prompts_in_other_file", leaks}}) +
              "\n");
    return;
  }
  print_out(fmt::format("{}: {} records of {} data, {} samples\n", command.file, file.records.size(),
                        schema_name(file.schema), samples.size()));
  print_out(fmt::format("template   {}\n", tokens.has_plain_template()
                                               ? "none in the tokenizer: 'Question: ...' and 'Answer: ...'"
                                               : "the tokenizer's own"));
  print_out(fmt::format("tokens     {}, of which {} are learned ({:.1f} %)\n", total, learned,
                        100.0 * static_cast<double>(learned) / static_cast<double>(total)));
  print_out(fmt::format("lengths    median {}, 90 % {}, 99 % {}, longest {}; {} longer than {}\n",
                        quantile(lengths, 0.5), quantile(lengths, 0.9), quantile(lengths, 0.99),
                        quantile(lengths, 1), overlong, command.max_length));
  print_out(fmt::format("ends       {} samples learn no special token that ends an answer\n", without_end));
  if (nothing_learned > 0) print_out(fmt::format("empty      {} samples teach nothing\n", nothing_learned));
  print_out(fmt::format("duplicates {}{}\n", duplicates, duplicates > 0 ? ": " + first_duplicate : ""));
  if (!command.against.empty())
    print_out(fmt::format("leaks      {} prompts are in {} too\n", leaks, command.against));
  for (int64_t i = 0; i < std::min<int64_t>(command.show, static_cast<int64_t>(samples.size())); ++i) {
    print_out(fmt::format("\nsample {} (what is learned is marked):\n{}\n", i + 1,
                          marked(*tokenizer, samples[static_cast<size_t>(i)])));
  }
}

}  // namespace

void add_data_lint(CLI::App& data) {
  const auto command = std::make_shared<LintCommand>();
  CLI::App* verb =
      data.add_subcommand("lint", "Check chat, completion or preference data as a model would read them");
  verb->add_option("FILE", command->file, "JSON lines, or a JSON list")->required();
  verb->add_option("--model", command->model, "The model, or its tokenizer")->required()->type_name("PATH");
  verb->add_option("--against", command->against,
                   "Count the prompts that are in this file too (of a test set)")
      ->type_name("FILE");
  verb->add_option("--max-length", command->max_length,
                   "Tokens of a sample that training would take (default: 2048)")
      ->check(CLI::PositiveNumber);
  verb->add_option("--show", command->show, "Samples to show (default: 1)")->check(CLI::NonNegativeNumber);
  verb->add_flag("--raw", command->raw,
                 "Prompts and answers that are texts stay texts instead of turns of a chat");
  verb->add_flag("--json", command->json, "Print the result as JSON");
  verb->footer("Example:\n  qkv data lint chats.jsonl --model my-model --against test.jsonl");
  verb->callback([command] { lint(*command); });
}

}  // namespace qkv
