// qkv tokenizer: trains a vocabulary, and shows and checks what one does.
#include <CLI/CLI.hpp>
#include <algorithm>
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
#include "qkv/core/progress.h"
#include "qkv/core/utf8.h"
#include "qkv/text/bpe_trainer.h"
#include "qkv/text/tokenizer.h"

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
  const auto tokenizer = load_tokenizer(command.model);
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
  verb->add_option("MODEL", command->model, "A model or tokenizer directory, or a tokenizer file")
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
  const auto tokenizer = load_tokenizer(command.model);
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
  verb->add_option("MODEL", command->model, "A model or tokenizer directory, or a tokenizer file")
      ->required();
  verb->add_option("IDS", command->ids, "Token ids")->required();
  verb->add_flag("--special", command->special, "Show special tokens");
  verb->add_flag("--json", command->json, "Print the text as JSON");
  verb->footer("Example:\n  qkv tokenizer decode my-model 464 2068 7586");
  verb->callback([command] { decode(*command); });
}

// ---- verify ----

struct VerifyCommand {
  std::string model, against;
  std::vector<std::string> files;
  bool json = false;
};

struct Verification {
  uint64_t lines = 0, bytes = 0, tokens = 0;
  uint64_t round_trip = 0, streaming = 0, different = 0, unknown = 0;  // lines that fail
  std::string first;  // what is wrong with the first line that fails
};

std::string streamed(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  StreamDecoder decoder(tokenizer);
  std::string text;
  for (const int32_t id : ids) text += decoder.push(id);
  return text + decoder.finish();
}

void verify_line(const Tokenizer& tokenizer, const Tokenizer* other, const std::string& line,
                 const std::string& where, Verification& result) {
  const EncodeOptions plain{.add_special = false, .parse_special = false};
  const std::vector<int32_t> ids = tokenizer.encode(line, plain);
  const std::string text = tokenizer.decode(ids);
  ++result.lines;
  result.bytes += line.size();
  result.tokens += ids.size();
  const auto wrong = [&](uint64_t& count, std::string_view what) {
    ++count;
    if (result.first.empty()) result.first = fmt::format("{}: {}", where, what);
  };
  if (tokenizer.unk_id() && std::find(ids.begin(), ids.end(), *tokenizer.unk_id()) != ids.end()) {
    wrong(result.unknown, "has text that the vocabulary cannot spell");
  } else if (text != line) {
    wrong(result.round_trip, fmt::format("decodes to '{}'", replace_invalid_utf8(text)));
  }
  if (streamed(tokenizer, ids) != replace_invalid_utf8(text))
    wrong(result.streaming, "differs when decoded token by token");
  if (other != nullptr && other->encode(line, plain) != ids)
    wrong(result.different, "is encoded differently by the other tokenizer");
}

void verify(const VerifyCommand& command) {
  const auto tokenizer = load_tokenizer(command.model);
  const auto other = command.against.empty() ? nullptr : load_tokenizer(command.against);
  Verification result;
  for (const auto& file : command.files) {
    const std::string text = read_input(file);
    Progress progress("verifying " + file, text.size(), "bytes");
    uint64_t number = 0;
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = std::min(text.find('\n', begin), text.size());
      verify_line(*tokenizer, other.get(), text.substr(begin, end - begin),
                  fmt::format("{}:{}", file, ++number), result);
      begin = end + 1;
      progress.update(begin);
    }
  }
  require(result.lines > 0, "tokenizer verify: expected text, found only empty files");
  const uint64_t wrong = result.round_trip + result.streaming + result.different + result.unknown;
  const double bytes_per_token =
      result.tokens > 0 ? static_cast<double>(result.bytes) / static_cast<double>(result.tokens) : 0;
  if (command.json) {
    Json json;
    json["lines"] = result.lines;
    json["tokens"] = result.tokens;
    json["bytes_per_token"] = bytes_per_token;
    json["round_trip_failures"] = result.round_trip;
    json["streaming_failures"] = result.streaming;
    json["unknown_lines"] = result.unknown;
    json["differences"] = result.different;
    if (!result.first.empty()) json["first"] = result.first;
    print_out(dump_json(json) + "\n");
  } else {
    print_out(fmt::format("{} lines, {} tokens, {:.3f} bytes per token\n", result.lines, result.tokens,
                          bytes_per_token));
    print_out(
        fmt::format("lines that do not come back: {}, differ when streamed: {}, cannot be spelled: {}{}\n",
                    result.round_trip, result.streaming, result.unknown,
                    other ? fmt::format(", differ from {}: {}", command.against, result.different) : ""));
  }
  require(wrong == 0, "{}", result.first);
}

void add_verify_command(CLI::App& app) {
  const auto command = std::make_shared<VerifyCommand>();
  CLI::App* verb =
      app.add_subcommand("verify", "Check that every line of a text survives encoding and decoding");
  verb->add_option("MODEL", command->model, "A model or tokenizer directory, or a tokenizer file")
      ->required();
  verb->add_option("FILES", command->files, "Text files; - is standard input")->required();
  verb->add_option("--against", command->against, "Another tokenizer that must give the same ids")
      ->type_name("PATH");
  verb->add_flag("--json", command->json, "Print a JSON report");
  verb->footer("Example:\n  qkv tokenizer verify my-model notes.txt --against my-model/tokenizer.model");
  verb->callback([command] { verify(*command); });
}

}  // namespace

void add_tokenizer(CLI::App& app) {
  CLI::App* verb = app.add_subcommand("tokenizer", "Train a vocabulary, encode, decode, verify, apply chat templates");
  verb->require_subcommand(1, 1);
  verb->footer("Example:\n  qkv tokenizer train tales/train.txt --out my-tokenizer --vocab-size 4096");
  add_train_command(*verb);
  add_encode_command(*verb);
  add_decode_command(*verb);
  add_verify_command(*verb);
  add_apply_template_command(*verb);
}

}  // namespace qkv
