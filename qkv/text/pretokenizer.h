// Cuts normalized text into the words that a vocabulary splits further: the "pre_tokenizer" of
// tokenizer.json.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "qkv/core/json.h"
#include "qkv/core/parallel.h"
#include "qkv/text/regex.h"

namespace qkv {

using WordSink = FunctionRef<void(std::string_view word)>;

// One step; several make a sequence.
class PretokenizerStep {
 public:
  virtual ~PretokenizerStep() = default;
  // Calls emit on each word of `piece` in order. `at_start`: the piece begins the whole text (Metaspace
  // "first").
  virtual void split(std::string_view piece, bool at_start, Regex::Scratch& scratch, WordSink emit) const = 0;
};

class Pretokenizer {
 public:
  // No steps: the text is one word.
  Pretokenizer() = default;
  // From the JSON of tokenizer.json (null: no steps). Throws Error `<where>: pre_tokenizer: ...`.
  Pretokenizer(const Json& json, const std::string& where);

  // Words of `text`, which must be valid UTF-8. If byte_level(), words are raw bytes (the spelling in GPT-2's
  // alphabet is left to the vocabulary).
  void split(std::string_view text, bool at_start, Regex::Scratch& scratch, WordSink emit) const;
  bool byte_level() const { return byte_level_; }
  // True if the words of a text together are the text.
  bool keeps_text() const { return keeps_text_; }

 private:
  void add(const Json& json, const std::string& where, int depth);
  void run(size_t step, std::string_view piece, bool at_start, Regex::Scratch& scratch, WordSink emit) const;
  std::vector<std::unique_ptr<PretokenizerStep>> steps_;
  bool byte_level_ = false;
  bool keeps_text_ = true;
  // Steps after ByteLevel see text spelled in GPT-2's alphabet; the words are turned back at the end.
  bool spelled_ = false;
};

}  // namespace qkv
