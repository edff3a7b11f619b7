// qkv tokenizer: trains a vocabulary, and shows and checks what one does.
#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

#include "apply_template.h"
#include "commands.h"
#include "console.h"
#include "qkv/core/atomic_file.h"
#include "qkv/core/error.h"
#include "qkv/core/json.h"
#include "qkv/core/utf8.h"
#include "qkv/models/tokenizer_source.h"
#include "qkv/text/bpe_trainer.h"
#include "tokenizer_verbs.h"

namespace qkv {
namespace {

// ---- train ----

struct TrainCommand {
  std::vector<std::string> files;
  std::string out;
  BpeTrainerOptions options;
  std::string eos;
  bool json = false;
};

void train(TrainCommand& command) {
  if (!command.eos.empty()) command.options.eos_token = command.eos;
  BpeTrainingReport report;
  const auto tokenizer = train_bpe(command.files, command.options, &report);
  AtomicDirectory directory(command.out);
  tokenizer->save(directory.path());
  directory.commit();
  if (command.json) {
    Json json;
    json["vocab_size"] = tokenizer->vocab_size();
    json["merges"] = report.merges;
    json["words"] = report.words;
    json["distinct_words"] = report.distinct_words;
    json["seconds"] = report.count_seconds + report.merge_seconds;
    print_out(dump_json(json) + "\n");
    return;
  }
  print_out(fmt::format("{}: {} tokens ({} merges) from {} words, {} different, in {:.2f} s\n", command.out,
                        tokenizer->vocab_size(), report.merges, report.words, report.distinct_words,
                        report.count_seconds + report.merge_seconds));
}

void add_train_command(CLI::App& app) {
  const auto command = std::make_shared<TrainCommand>();
  CLI::App* verb = app.add_subcommand("train", "Learn a byte-level BPE vocabulary from text files");
  verb->add_option("FILES", command->files, "UTF-8 text files")->required();
  verb->add_option("--out", command->out, "The directory to write; one that exists is replaced")
      ->required()
      ->type_name("DIR");
  verb->add_option("--vocab-size", command->options.vocab_size, "Tokens in all (default: 32000)")
      ->type_name("N");
  verb->add_option("--min-frequency", command->options.min_frequency,
                   "Do not merge pairs rarer than this (default: 2)")
      ->type_name("N");
  verb->add_option("--special", command->options.special_tokens,
                   "A special token; may be repeated (default: <|endoftext|> <|im_start|> <|im_end|>)")
      ->type_name("TOKEN")
      ->allow_extra_args(false);
  verb->add_option("--eos", command->eos, "The special token that ends a text (default: the first)")
      ->type_name("TOKEN");
  verb->add_option("--pattern", command->options.pattern,
                   "How text is cut into words: gpt2, llama3, qwen2, o200k, deepseek-v3 or a regular "
                   "expression (default: gpt2)")
      ->type_name("NAME");
  verb->add_option("--max-token-length", command->options.max_token_length,
                   "Longest token in bytes; 0: no limit")
      ->type_name("N");
  verb->add_flag("--json", command->json, "Print a JSON report");
  verb->footer("Example:\n  qkv tokenizer train tales/train.txt --out my-tokenizer --vocab-size 4096");
  verb->callback([command] { train(*command); });
}

// ---- encode ----

struct EncodeCommand {
  std::string model, text, file;
  bool no_special = false, plain = false, pieces = false, json = false;
};

void encode(const EncodeCommand& command, bool text_given) {
  require(text_given != !command.file.empty(), "tokenizer encode: expected either TEXT or --file");
  const std::string text = text_given ? command.text : read_input(command.file);
  const auto tokenizer = load_any_tokenizer(command.model);
  const std::vector<int32_t> ids =
      tokenizer->encode(text, {.add_special = !command.no_special, .parse_special = !command.plain});
  if (command.json) {
    Json json;
    json["ids"] = ids;
    Json pieces = Json::array();
    for (const int32_t id : ids) pieces.push_back(tokenizer->id_to_token(id));
    json["tokens"] = std::move(pieces);
    print_out(dump_json(json) + "\n");
    return;
  }
  std::string line;
  for (const int32_t id : ids) {
    if (command.pieces) {
      line += fmt::format("{:>8}  {}\n", id, tokenizer->id_to_token(id));
    } else {
      line += (line.empty() ? "" : " ") + std::to_string(id);
    }
  }
  print_out(command.pieces ? line : line + "\n");
}

void add_encode_command(CLI::App& app) {
  const auto command = std::make_shared<EncodeCommand>();
  CLI::App* verb = app.add_subcommand("encode", "Text to token ids");
  verb->add_option("MODEL", command->model, "A model (.gguf, .qkv, a directory) or a tokenizer's file")
      ->required();
  const CLI::Option* text = verb->add_option("TEXT", command->text, "The text");
  verb->add_option("--file", command->file, "Read the text from a file; - is standard input")
      ->type_name("PATH");
  verb->add_flag("--no-special", command->no_special, "Do not add the tokens around a text (BOS, EOS)");
  verb->add_flag("--plain", command->plain, "Read the spelling of special tokens as plain text");
  verb->add_flag("--pieces", command->pieces, "One token per line, with its spelling");
  verb->add_flag("--json", command->json, "Print ids and spellings as JSON");
  verb->footer("Example:\n  qkv tokenizer encode my-model \"Once upon a time\" --pieces");
  verb->callback([command, text] { encode(*command, text->count() > 0); });
}

// ---- decode ----

struct DecodeCommand {
  std::string model;
  std::vector<int32_t> ids;
  bool special = false, json = false;
};

void decode(const DecodeCommand& command) {
  const auto tokenizer = load_any_tokenizer(command.model);
  for (const int32_t id : command.ids) {
    require(id >= 0 && id < tokenizer->vocab_size(), "tokenizer decode: expected ids below {}, found {}",
            tokenizer->vocab_size(), id);
  }
  const std::string text = tokenizer->decode(command.ids, !command.special);
  if (command.json) {
    Json json;
    json["text"] = replace_invalid_utf8(text);
    print_out(dump_json(json) + "\n");
  } else {
    print_out(text + "\n");
  }
}

void add_decode_command(CLI::App& app) {
  const auto command = std::make_shared<DecodeCommand>();
  CLI::App* verb = app.add_subcommand("decode", "Token ids to text");
  verb->add_option("MODEL", command->model, "A model (.gguf, .qkv, a directory) or a tokenizer's file")
      ->required();
  verb->add_option("IDS", command->ids, "Token ids")->required();
  verb->add_flag("--special", command->special, "Show special tokens");
  verb->add_flag("--json", command->json, "Print the text as JSON");
  verb->footer("Example:\n  qkv tokenizer decode my-model 464 2068 7586");
  verb->callback([command] { decode(*command); });
}

}  // namespace

void add_tokenizer(CLI::App& app) {
  CLI::App* verb =
      app.add_subcommand("tokenizer", "Train a vocabulary, encode, decode, verify, apply chat templates");
  verb->require_subcommand(1, 1);
  verb->footer("Example:\n  qkv tokenizer train tales/train.txt --out my-tokenizer --vocab-size 4096");
  add_train_command(*verb);
  add_encode_command(*verb);
  add_decode_command(*verb);
  add_apply_template_command(*verb);
  add_tokenizer_verify(*verb);
}

}  // namespace qkv
