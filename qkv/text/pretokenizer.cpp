// The steps, and how their JSON is read.
#include "qkv/text/pretokenizer.h"

#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/core/utf8.h"
#include "qkv/text/byte_alphabet.h"
#include "qkv/text/patterns.h"
#include "qkv/text/split_behavior.h"
#include "qkv/text/unicode.h"
#include "qkv/text/unicode_scripts.h"

namespace qkv {
namespace {

constexpr int kMaximumDepth = 16;

// Where a pattern matches; `invert` exchanges matches and the rest.
class RegexSplit : public PretokenizerStep {
 public:
  RegexSplit(Regex regex, SplitBehavior behavior, bool invert)
      : regex_(std::move(regex)), behavior_(behavior), invert_(invert) {}

  void split(std::string_view piece, bool, Regex::Scratch& scratch, WordSink emit) const override {
    if (behavior_ == SplitBehavior::isolated || behavior_ == SplitBehavior::removed) {
      const bool keep_matches = behavior_ == SplitBehavior::isolated || invert_;
      const bool keep_rest = behavior_ == SplitBehavior::isolated || !invert_;
      size_t done = 0;
      for_each_match(piece, scratch, [&](TextRange match) {
        if (keep_rest && done < match.begin) emit(piece.substr(done, match.begin - done));
        if (keep_matches && match.begin < match.end) emit(piece.substr(match.begin, match.end - match.begin));
        done = match.end;
      });
      if (keep_rest && done < piece.size()) emit(piece.substr(done));
      return;
    }
    std::vector<SplitPart> parts;
    size_t done = 0;
    for_each_match(piece, scratch, [&](TextRange match) {
      if (done < match.begin) parts.push_back({{done, match.begin}, invert_});
      parts.push_back({match, !invert_});
      done = match.end;
    });
    if (done < piece.size()) parts.push_back({{done, piece.size()}, invert_});
    for (const auto& range : apply_split_behavior(parts, behavior_)) {
      emit(piece.substr(range.begin, range.end - range.begin));
    }
  }

 private:
  template <typename Visit>
  void for_each_match(std::string_view piece, Regex::Scratch& scratch, Visit&& visit) const {
    size_t from = 0;
    while (from <= piece.size()) {
      const auto match = regex_.find(piece, from, scratch);
      if (!match) return;
      visit(*match);
      from = match->end;
      if (match->begin == match->end) {  // matched nothing: go on behind the next character
        if (from == piece.size()) return;
        next_code_point(piece, from);
      }
    }
  }

  Regex regex_;
  SplitBehavior behavior_;
  bool invert_;
};

// Where a predicate holds for single characters.
class CharacterSplit : public PretokenizerStep {
 public:
  CharacterSplit(bool (*matches)(char32_t), SplitBehavior behavior)
      : matches_(matches), behavior_(behavior) {}

  void split(std::string_view piece, bool, Regex::Scratch&, WordSink emit) const override {
    std::vector<SplitPart> parts;
    for (size_t i = 0; i < piece.size();) {
      const size_t begin = i;
      const auto c = next_code_point(piece, i);
      const bool match = c && matches_(*c);
      if (!match && !parts.empty() && !parts.back().is_match) {
        parts.back().range.end = i;
      } else {
        parts.push_back({{begin, i}, match});
      }
    }
    for (const auto& range : apply_split_behavior(parts, behavior_)) {
      emit(piece.substr(range.begin, range.end - range.begin));
    }
  }

 private:
  bool (*matches_)(char32_t);
  SplitBehavior behavior_;
};

// \w+|[^\w\s]+ with Unicode's own \w, which differs from the one of Regex.
class WhitespaceWords : public PretokenizerStep {
 public:
  void split(std::string_view piece, bool, Regex::Scratch&, WordSink emit) const override {
    enum class Kind { space, word, other };
    size_t begin = 0;
    Kind kind = Kind::space;
    for (size_t i = 0; i < piece.size();) {
      const size_t at = i;
      const auto c = next_code_point(piece, i);
      const Kind here = c && is_unicode_space(*c)    ? Kind::space
                        : c && is_word_character(*c) ? Kind::word
                                                     : Kind::other;
      if (here == kind) continue;
      if (kind != Kind::space) emit(piece.substr(begin, at - begin));
      begin = at;
      kind = here;
    }
    if (kind != Kind::space) emit(piece.substr(begin));
  }
};

// A fixed string.
class StringSplit : public PretokenizerStep {
 public:
  StringSplit(std::string wanted, SplitBehavior behavior, bool invert)
      : wanted_(std::move(wanted)), behavior_(behavior), invert_(invert) {}

  void split(std::string_view piece, bool, Regex::Scratch&, WordSink emit) const override {
    std::vector<SplitPart> parts;
    size_t done = 0;
    for (size_t at = piece.find(wanted_); at != std::string_view::npos; at = piece.find(wanted_, done)) {
      if (done < at) parts.push_back({{done, at}, invert_});
      done = at + wanted_.size();
      parts.push_back({{at, done}, !invert_});
    }
    if (done < piece.size()) parts.push_back({{done, piece.size()}, invert_});
    for (const auto& range : apply_split_behavior(parts, behavior_)) {
      emit(piece.substr(range.begin, range.end - range.begin));
    }
  }

 private:
  std::string wanted_;
  SplitBehavior behavior_;
  bool invert_;
};

// SentencePiece's treatment of spaces: each becomes a mark that begins a word.
class Metaspace : public PretokenizerStep {
 public:
  enum class Prepend { always, first, never };
  Metaspace(std::string replacement, Prepend prepend, bool split)
      : mark_(std::move(replacement)),
        prepend_(prepend),
        split_(split),
        words_(mark_, SplitBehavior::merged_with_next, false) {}

  void split(std::string_view piece, bool at_start, Regex::Scratch& scratch, WordSink emit) const override {
    std::string marked;
    marked.reserve(piece.size() + piece.size() / 2);
    if (!piece.starts_with(mark_) && !piece.starts_with(' ') &&
        (prepend_ == Prepend::always || (prepend_ == Prepend::first && at_start))) {
      marked += mark_;
    }
    for (const char c : piece) {
      if (c == ' ') {
        marked += mark_;
      } else {
        marked += c;
      }
    }
    if (split_) {
      words_.split(marked, at_start, scratch, emit);
    } else if (!marked.empty()) {
      emit(marked);
    }
  }

 private:
  std::string mark_;
  Prepend prepend_;
  bool split_;
  StringSplit words_;
};

// Pieces of a fixed number of characters; the last may be shorter.
class FixedLength : public PretokenizerStep {
 public:
  explicit FixedLength(int64_t length) : length_(length) {}

  void split(std::string_view piece, bool, Regex::Scratch&, WordSink emit) const override {
    for (size_t begin = 0; begin < piece.size();) {
      size_t end = begin;
      for (int64_t count = 0; count < length_ && end < piece.size(); ++count) next_code_point(piece, end);
      emit(piece.substr(begin, end - begin));
      begin = end;
    }
  }

 private:
  int64_t length_;
};

// Where the script changes. Spaces and characters without a script join what is before them; in front of the
// first script they are dropped, as Hugging Face's tokenizers does. Japanese is one script.
class UnicodeScripts : public PretokenizerStep {
 public:
  UnicodeScripts() {
    const auto& names = unicode_script_names();
    for (size_t i = 0; i < names.size(); ++i) {
      if (names[i] == "Han") han_ = static_cast<int>(i);
      if (names[i] == "Hiragana") hiragana_ = static_cast<int>(i);
      if (names[i] == "Katakana") katakana_ = static_cast<int>(i);
    }
  }

  void split(std::string_view piece, bool, Regex::Scratch&, WordSink emit) const override {
    int last = kAny;
    size_t begin = piece.size();
    for (size_t i = 0; i < piece.size();) {
      const size_t at = i;
      const int script = script_of(next_code_point(piece, i).value_or(0));
      if (script == kAny) continue;
      if (last != script) {
        if (last != kAny) emit(piece.substr(begin, at - begin));
        begin = at;
      }
      last = script;
    }
    if (begin < piece.size()) emit(piece.substr(begin));
  }

 private:
  static constexpr int kAny = -1;
  int script_of(char32_t c) const {
    constexpr char32_t kProlongedSoundMark = 0x30FC;
    if (c == ' ') return kAny;
    const int script = c == kProlongedSoundMark ? han_ : unicode_script(c);
    return script == hiragana_ || script == katakana_ ? han_ : script;
  }
  int han_ = 0, hiragana_ = 0, katakana_ = 0;
};

// A leading space for every piece that has none.
class PrefixSpace : public PretokenizerStep {
 public:
  void split(std::string_view piece, bool, Regex::Scratch&, WordSink emit) const override {
    if (piece.starts_with(' ')) return emit(piece);
    const std::string spaced = " " + std::string(piece);
    emit(spaced);
  }
};

// The spelling in GPT-2's alphabet, for steps that follow ByteLevel.
class SpellBytes : public PretokenizerStep {
 public:
  void split(std::string_view piece, bool, Regex::Scratch&, WordSink emit) const override {
    const std::string spelled = spell_bytes(piece);
    emit(spelled);
  }
};

}  // namespace

const std::vector<NamedPattern>& named_patterns() {
  static const std::vector<NamedPattern> patterns = {{"gpt2", kGpt2Pattern},
                                                     {"llama3", kLlama3Pattern},
                                                     {"qwen2", kQwen2Pattern},
                                                     {"o200k", kO200kPattern},
                                                     {"deepseek-v3", kDeepSeekV3Pattern}};
  return patterns;
}

std::string_view pattern_by_name(std::string_view name_or_regex) {
  for (const auto& named : named_patterns()) {
    if (named.name == name_or_regex) return named.pattern;
  }
  return name_or_regex;
}

Pretokenizer::Pretokenizer(const Json& json, const std::string& where) {
  if (!json.is_null()) add(json, where + ": pre_tokenizer", 0);
}

void Pretokenizer::add(const Json& json, const std::string& where, int depth) {
  require(depth < kMaximumDepth, "{}: nested deeper than {} levels", where, kMaximumDepth);
  const JsonView view(json, where);
  const std::string type = view.string("type");
  const auto behavior = [&](std::string fallback) {
    const SplitBehavior parsed = parse_split_behavior(view.string_or("behavior", std::move(fallback)), where);
    if (parsed == SplitBehavior::removed) keeps_text_ = false;
    return parsed;
  };
  for (const char* dropping : {"Whitespace", "WhitespaceSplit", "BertPreTokenizer", "CharDelimiterSplit",
                               "UnicodeScripts", "Metaspace"}) {
    if (type == dropping) keeps_text_ = false;
  }
  if (byte_level_ && !spelled_ && type != "Sequence") {
    spelled_ = true;
    steps_.push_back(std::make_unique<SpellBytes>());
  }
  if (type == "Sequence") {
    const Json* list = view.find("pretokenizers");
    require(list && list->is_array(), "{}: Sequence: expected a list 'pretokenizers'", where);
    for (const auto& item : *list) add(item, where, depth + 1);
  } else if (type == "ByteLevel") {
    require(!spelled_, "{}: expected one ByteLevel step, found a second", where);
    if (view.boolean_or("add_prefix_space", true)) {
      keeps_text_ = false;
      steps_.push_back(std::make_unique<PrefixSpace>());
    }
    if (view.boolean_or("use_regex", true)) {
      steps_.push_back(std::make_unique<RegexSplit>(Regex(std::string(kGpt2Pattern), where),
                                                    SplitBehavior::isolated, false));
    }
    byte_level_ = true;
  } else if (type == "Split") {
    const bool invert = view.boolean_or("invert", false);
    const Json* pattern = view.find("pattern");
    const Json* text =
        pattern && pattern->is_object() && pattern->size() == 1 ? &pattern->begin().value() : nullptr;
    const std::string form = text ? pattern->begin().key() : "";
    require(text && text->is_string() && (form == "Regex" || form == "String"),
            "{}: Split: expected a pattern {{\"Regex\": ...}} or {{\"String\": ...}}", where);
    const std::string wanted = text->get<std::string>();
    if (form == "Regex") {
      steps_.push_back(std::make_unique<RegexSplit>(Regex(wanted, where), behavior("Isolated"), invert));
    } else if (!wanted.empty()) {
      steps_.push_back(std::make_unique<StringSplit>(wanted, behavior("Isolated"), invert));
    }
  } else if (type == "Digits") {
    steps_.push_back(std::make_unique<CharacterSplit>(
        &is_unicode_number,
        view.boolean_or("individual_digits", false) ? SplitBehavior::isolated : SplitBehavior::contiguous));
  } else if (type == "Punctuation") {
    steps_.push_back(std::make_unique<CharacterSplit>(&is_bert_punctuation, behavior("Isolated")));
  } else if (type == "Whitespace") {
    steps_.push_back(std::make_unique<WhitespaceWords>());
  } else if (type == "WhitespaceSplit") {
    steps_.push_back(std::make_unique<CharacterSplit>(&is_unicode_space, SplitBehavior::removed));
  } else if (type == "BertPreTokenizer") {
    steps_.push_back(std::make_unique<CharacterSplit>(&is_unicode_space, SplitBehavior::removed));
    steps_.push_back(std::make_unique<CharacterSplit>(&is_bert_punctuation, SplitBehavior::isolated));
  } else if (type == "CharDelimiterSplit") {
    const std::string delimiter = view.string("delimiter");
    require(!delimiter.empty(), "{}: CharDelimiterSplit: expected a character, found an empty delimiter",
            where);
    steps_.push_back(std::make_unique<StringSplit>(delimiter, SplitBehavior::removed, false));
  } else if (type == "FixedLength") {
    const int64_t length = view.integer_or("length", 5);
    require(length > 0, "{}: FixedLength: expected a length of 1 or more, found {}", where, length);
    steps_.push_back(std::make_unique<FixedLength>(length));
  } else if (type == "UnicodeScripts") {
    steps_.push_back(std::make_unique<UnicodeScripts>());
  } else if (type == "Metaspace") {
    const std::string mark = view.string_or("replacement", "▁");
    require(!mark.empty(), "{}: Metaspace: expected a replacement, found an empty string", where);
    // Files older than "prepend_scheme" say add_prefix_space.
    const std::string scheme =
        view.string_or("prepend_scheme", view.boolean_or("add_prefix_space", true) ? "always" : "never");
    require(scheme == "always" || scheme == "first" || scheme == "never",
            "{}: Metaspace: prepend_scheme: expected always, first or never, found '{}'", where, scheme);
    steps_.push_back(std::make_unique<Metaspace>(mark,
                                                 scheme == "always"  ? Metaspace::Prepend::always
                                                 : scheme == "first" ? Metaspace::Prepend::first
                                                                     : Metaspace::Prepend::never,
                                                 view.boolean_or("split", true)));
  } else {
    fail(
        "{}: type: expected Sequence, ByteLevel, Split, Digits, Punctuation, Whitespace, WhitespaceSplit, "
        "BertPreTokenizer, CharDelimiterSplit, FixedLength, UnicodeScripts or Metaspace, found '{}'",
        where, type);
  }
}

void Pretokenizer::run(size_t step, std::string_view piece, bool at_start, Regex::Scratch& scratch,
                       WordSink emit) const {
  if (step == steps_.size()) {
    if (!spelled_) return emit(piece);
    return emit(unspell_bytes(piece).value_or(std::string(piece)));
  }
  if (step + 1 == steps_.size() && !spelled_) return steps_[step]->split(piece, at_start, scratch, emit);
  bool first = at_start;
  steps_[step]->split(piece, at_start, scratch, [&](std::string_view part) {
    run(step + 1, part, first, scratch, emit);
    first = false;
  });
}

void Pretokenizer::split(std::string_view text, bool at_start, Regex::Scratch& scratch, WordSink emit) const {
  if (!text.empty()) run(0, text, at_start, scratch, emit);
}

}  // namespace qkv
