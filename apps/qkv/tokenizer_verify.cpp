// qkv tokenizer verify: does text survive, do two tokenizers agree, are reference ids met?
#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <vector>

#include "console.h"
#include "qkv/core/error.h"
#include "qkv/core/json.h"
#include "qkv/core/progress.h"
#include "qkv/core/rng.h"
#include "qkv/core/utf8.h"
#include "qkv/models/tokenizer_source.h"
#include "tokenizer_verbs.h"

namespace qkv {
namespace {

using Ids = std::vector<int32_t>;

constexpr int kDifferent = 1;  // exit code
constexpr size_t kBlockBytes = 32 * 1024;
constexpr size_t kRandomBytes = 200;
constexpr EncodeOptions kPlain{.add_special = false, .parse_special = false};

struct VerifyCommand {
  std::string model, against, vectors;
  std::vector<std::string> files;
  int64_t random = 1000;
  uint64_t seed = 1;
  bool ids_only = false, json = false;
};

// Where two lists of ids, or two texts, first differ.
template <typename A, typename B>
size_t first_difference(const A& a, const B& b) {
  return static_cast<size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}

// The text as one printable line.
std::string printable(std::string_view text) {
  std::string line;
  for (const char c : replace_invalid_utf8(text)) {
    if (c == '\n') {
      line += "\\n";
    } else if (c == '\r') {
      line += "\\r";
    } else if (c == '\t') {
      line += "\\t";
    } else if (static_cast<uint8_t>(c) < 0x20) {
      line += fmt::format("\\x{:02x}", static_cast<uint8_t>(c));
    } else {
      line += c;
    }
  }
  return line;
}

// `length` bytes or less around `at`, whole characters.
std::string excerpt(std::string_view text, size_t at, size_t length = 48) {
  size_t begin = at > length / 2 ? at - length / 2 : 0;
  size_t end = std::min(text.size(), begin + length);
  const auto inside = [&](size_t i) {
    return i > 0 && i < text.size() && (static_cast<uint8_t>(text[i]) & 0xC0) == 0x80;
  };
  while (inside(begin)) --begin;
  while (inside(end)) ++end;
  return printable(text.substr(begin, end - begin));
}

// The ids from `from` on with their spellings: 262 'Ġthe' 995 'Ġworld'.
std::string shown(const Tokenizer& tokenizer, const Ids& ids, size_t from) {
  constexpr size_t kShown = 6;
  std::string line;
  for (size_t i = from; i < std::min(ids.size(), from + kShown); ++i)
    line += fmt::format("{}{} '{}'", i > from ? " " : "", ids[i], printable(tokenizer.id_to_token(ids[i])));
  if (ids.size() > from + kShown) line += " ...";
  return line.empty() ? "nothing" : line;
}

struct Verification {
  uint64_t texts = 0, bytes = 0, tokens = 0;
  uint64_t round_trip = 0, streaming = 0, against = 0, vectors = 0, unknown = 0;  // texts that fail
  std::string first;  // what is wrong with the first that fails
  uint64_t wrong() const { return round_trip + streaming + against + vectors + unknown; }
  void fail(uint64_t& count, std::string sentence) {
    ++count;
    if (first.empty()) first = std::move(sentence);
  }
};

class Verifier {
 public:
  Verifier(const VerifyCommand& command, const Tokenizer& tokenizer, const Tokenizer* other)
      : command_(command), tokenizer_(tokenizer), other_(other) {}

  // `where` names the text, `offset` is that of its first byte in there.
  void check(std::string_view text, const std::string& where, size_t offset, bool round_trip) {
    const Ids ids = tokenizer_.encode(text, kPlain);
    ++result.texts;
    result.bytes += text.size();
    result.tokens += ids.size();
    check_streaming(ids, where);
    if (round_trip) check_round_trip(text, ids, where, offset);
    if (other_ == nullptr) return;
    const Ids theirs = other_->encode(text, kPlain);
    if (theirs == ids) return;
    const size_t at = first_difference(ids, theirs);
    // In the text, as far as the equal tokens spell it.
    const std::string before = tokenizer_.decode(std::span(ids).first(at));
    const size_t byte = std::min(before.size(), text.size());
    result.fail(result.against,
                fmt::format("{}: byte {}: near \"{}\": {} gives {}; {} gives {}", where, offset + byte,
                            excerpt(text, byte), command_.model, shown(tokenizer_, ids, at), command_.against,
                            shown(*other_, theirs, at)));
  }

  void check_vector(std::string_view text, const Ids& expected, const std::string& where) {
    const Ids ids = tokenizer_.encode(text, kPlain);
    ++result.texts;
    result.bytes += text.size();
    result.tokens += ids.size();
    if (ids == expected) return;
    const size_t at = first_difference(ids, expected);
    result.fail(result.vectors, fmt::format("{}: \"{}\": expected {}, found {}", where, excerpt(text, 0, 80),
                                            shown(tokenizer_, expected, at), shown(tokenizer_, ids, at)));
  }

  Verification result;

 private:
  void check_streaming(const Ids& ids, const std::string& where) {
    StreamDecoder decoder(tokenizer_);
    std::string text;
    for (const int32_t id : ids) text += decoder.push(id);
    text += decoder.finish();
    if (text != replace_invalid_utf8(tokenizer_.decode(ids)))
      result.fail(result.streaming, where + ": differs when decoded token by token");
  }

  void check_round_trip(std::string_view text, const Ids& ids, const std::string& where, size_t offset) {
    const std::string back = tokenizer_.decode(ids);
    if (back == text) return;
    const size_t at = first_difference(text, back);
    const auto unk = tokenizer_.unk_id();
    const bool unknown = unk && std::find(ids.begin(), ids.end(), *unk) != ids.end();
    const std::string what = fmt::format("{}: byte {}: \"{}\" comes back as \"{}\"", where, offset + at,
                                         excerpt(text, at), excerpt(back, at));
    if (unknown) {
      result.fail(result.unknown, what + ": the vocabulary cannot spell it");
    } else {
      result.fail(result.round_trip, what);
    }
  }

  const VerifyCommand& command_;
  const Tokenizer& tokenizer_;
  const Tokenizer* other_;
};

// Blocks that end with a line, so that they are encoded with their context and compared piece by piece.
void verify_file(Verifier& verifier, const VerifyCommand& command, const std::string& file) {
  const std::string text = read_input(file);
  Progress progress("verifying " + file, text.size(), "bytes");
  for (size_t begin = 0; begin < text.size();) {
    size_t end = std::min(text.size(), begin + kBlockBytes);
    const size_t line = text.find('\n', end - 1);
    end = line == std::string::npos ? text.size() : line + 1;
    verifier.check(std::string_view(text).substr(begin, end - begin), file, begin, !command.ids_only);
    begin = end;
    progress.update(begin);
  }
}

std::string random_bytes(Rng& rng) {
  std::string bytes;
  for (uint64_t i = rng.below(kRandomBytes); i > 0; --i) bytes += static_cast<char>(rng.below(256));
  return bytes;
}

// Characters of every size, spaces and letters often enough that words form.
std::string random_text(Rng& rng) {
  std::string text;
  for (uint64_t i = rng.below(kRandomBytes); i > 0; --i) {
    const uint64_t kind = rng.below(8);
    char32_t c = kind < 4   ? static_cast<char32_t>('a' + rng.below(26))
                 : kind < 6 ? static_cast<char32_t>(" \n\t'.,0A"[rng.below(8)])
                 : kind < 7 ? static_cast<char32_t>(0x80 + rng.below(0x3000))
                            : static_cast<char32_t>(rng.below(0x110000));
    if (c >= 0xD800 && c <= 0xDFFF) c = 0xFFFD;
    append_utf8(text, c);
  }
  return text;
}

void verify_random(Verifier& verifier, const VerifyCommand& command, bool lossless) {
  Rng rng(command.seed);
  for (int64_t i = 0; i < command.random; ++i) {
    const bool bytes = lossless && i % 2 == 0;
    verifier.check(bytes ? random_bytes(rng) : random_text(rng),
                   fmt::format("random {} {} (seed {})", bytes ? "bytes" : "text", i, command.seed), 0,
                   lossless && !command.ids_only);
  }
}

// llama.cpp's form: texts in FILE.inp separated by a line, ids in FILE.out, one line per text.
void verify_vectors(Verifier& verifier, const std::string& path) {
  constexpr std::string_view kSeparator = "\n__ggml_vocab_test__\n", kInput = ".inp";
  const std::string base = path.ends_with(kInput) ? path.substr(0, path.size() - kInput.size()) : path;
  const std::string input = read_input(base + std::string(kInput)), output = read_input(base + ".out");
  size_t text_begin = 0, line_begin = 0;
  for (size_t number = 1; line_begin < output.size(); ++number) {
    const std::string where = fmt::format("{}.out: line {}", base, number);
    require(text_begin <= input.size(), "{}: expected as many lines as texts in {}.inp, found more", where,
            base);
    const size_t text_end = std::min(input.find(kSeparator, text_begin), input.size());
    const size_t line_end = std::min(output.find('\n', line_begin), output.size());
    Ids expected;
    const char *at = output.data() + line_begin, *end = output.data() + line_end;
    for (;;) {
      while (at < end && (*at == ' ' || *at == '\r')) ++at;
      if (at == end) break;
      int32_t id = 0;
      const auto [stop, code] = std::from_chars(at, end, id);
      require(code == std::errc(), "{}: expected token ids, found '{}'", where,
              printable(std::string_view(at, std::min<size_t>(static_cast<size_t>(end - at), 40))));
      expected.push_back(id);
      at = stop;
    }
    verifier.check_vector(std::string_view(input).substr(text_begin, text_end - text_begin), expected, where);
    text_begin = text_end == input.size() ? input.size() + 1 : text_end + kSeparator.size();
    line_begin = line_end + 1;
  }
  // A separator after the last text ends it; nothing follows.
  require(text_begin >= input.size(), "{}.inp: expected as many texts as lines in {}.out, found more", base,
          base);
}

void report(const Verification& result, const VerifyCommand& command) {
  const double bytes_per_token =
      result.tokens > 0 ? static_cast<double>(result.bytes) / static_cast<double>(result.tokens) : 0;
  if (command.json) {
    Json json;
    json["texts"] = result.texts;
    json["bytes"] = result.bytes;
    json["tokens"] = result.tokens;
    json["bytes_per_token"] = bytes_per_token;
    json["round_trip_failures"] = result.round_trip;
    json["streaming_failures"] = result.streaming;
    json["unknown_texts"] = result.unknown;
    json["differences"] = result.against;
    json["vector_failures"] = result.vectors;
    if (!result.first.empty()) json["first"] = result.first;
    print_out(dump_json(json) + "\n");
    return;
  }
  std::string text = fmt::format("{} texts, {} bytes, {} tokens, {:.3f} bytes per token\n", result.texts,
                                 result.bytes, result.tokens, bytes_per_token);
  text += fmt::format("do not come back: {}, cannot be spelled: {}, differ when streamed: {}",
                      result.round_trip, result.unknown, result.streaming);
  if (!command.against.empty()) text += fmt::format(", differ from {}: {}", command.against, result.against);
  if (!command.vectors.empty()) text += fmt::format(", miss their vector: {}", result.vectors);
  text += "\n";
  if (!result.first.empty()) text += "first: " + result.first + "\n";
  print_out(text);
}

void verify(const VerifyCommand& command) {
  require(command.random >= 0, "tokenizer verify: --random: expected 0 or more, found {}", command.random);
  const auto tokenizer = load_any_tokenizer(command.model);
  const auto other = command.against.empty() ? nullptr : load_any_tokenizer(command.against);
  Verifier verifier(command, *tokenizer, other.get());
  for (const auto& file : command.files) verify_file(verifier, command, file);
  if (!command.vectors.empty()) verify_vectors(verifier, command.vectors);
  verify_random(verifier, command, tokenizer->lossless());
  require(verifier.result.texts > 0, "tokenizer verify: expected text, found only empty files");
  report(verifier.result, command);
  if (verifier.result.wrong() > 0) throw CLI::RuntimeError(kDifferent);
}

}  // namespace

void add_tokenizer_verify(CLI::App& tokenizer) {
  const auto command = std::make_shared<VerifyCommand>();
  CLI::App* verb = tokenizer.add_subcommand(
      "verify",
      "Check that text survives encoding and decoding, and compare ids; exit code 1 on a difference");
  verb->add_option("MODEL", command->model, "A model (.gguf, .qkv, a directory) or a tokenizer's file")
      ->required();
  verb->add_option("FILES", command->files, "Text files; - is standard input");
  verb->add_option("--against", command->against, "Another tokenizer that must give the same ids")
      ->type_name("MODEL");
  verb->add_option("--vectors", command->vectors,
                   "Reference ids: PATH.inp and PATH.out as llama.cpp has them")
      ->type_name("PATH");
  verb->add_option(
          "--random", command->random,
          "Random texts to check as well, half of them random bytes if the vocabulary spells any (default: "
          "1000)")
      ->type_name("N");
  verb->add_option("--seed", command->seed, "Seed of the random texts (default: 1)")->type_name("N");
  verb->add_flag("--ids-only", command->ids_only,
                 "Compare ids only: for vocabularies that do not keep every character");
  verb->add_flag("--json", command->json, "Print a JSON report");
  verb->footer("Example:\n  qkv tokenizer verify model.gguf notes.txt --against my-model");
  verb->callback([command] { verify(*command); });
}

}  // namespace qkv
