// What the tests of grammars share: asking for whole texts, vocabularies, and masks by brute force.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "qkv/core/rng.h"
#include "qkv/engine/grammar/grammar.h"

namespace qkv::test {

// A vocabulary of plain tokens that owns its strings. The id after the last ends a text.
class SmallVocabulary {
 public:
  explicit SmallVocabulary(std::vector<std::string> tokens) : tokens_(std::move(tokens)) {
    trie_ = std::make_shared<const TokenTrie>(std::vector<std::string_view>(tokens_.begin(), tokens_.end()));
  }
  // All bytes, and what JSON and words are cut into: tokens that cross the borders of rules, cut characters,
  // equal tokens, an empty one.
  static SmallVocabulary mixed() {
    std::vector<std::string> tokens;
    for (int byte = 0; byte < 256; ++byte) tokens.push_back(std::string(1, static_cast<char>(byte)));
    for (const char* token : {"{\"",      "\":",      "\": ",
                              "\",",      "\", \"",   "\"}",
                              "\"},",     "}]",       "]}",
                              "}}",       "]]",       "[[",
                              "[{",       ", ",       "  ",
                              "\n ",      "\n\n",     "tr",
                              "true",     "ue",       "false",
                              "null",     "nu",       "-1",
                              "12",       "123",      "0.",
                              "e+",       "E5",       "\\u",
                              "\\\"",     "\\\\",     "name",
                              "na",       "me\"",     "name\":",
                              "ab",       "abc",      "bc",
                              "a",        "the ",     " the",
                              " a",       "\xC3",     "\xC3\xA9",
                              "\xA9\xC3", "\xE2\x82", "\xAC\"",
                              "\xF0\x9F", "\x98\x80", "\xF0\x9F\x98\x80",
                              "\xFF\xFE", "",         "0000",
                              "00-",      "T1",       ":0"})
      tokens.push_back(token);
    return SmallVocabulary(std::move(tokens));
  }
  const std::shared_ptr<const TokenTrie>& trie() const { return trie_; }
  const std::string& token(int32_t id) const { return tokens_[static_cast<size_t>(id)]; }
  int32_t end() const { return static_cast<int32_t>(tokens_.size()); }
  size_t size() const { return tokens_.size() + 1; }
  GrammarMatcher matcher(const std::shared_ptr<const Grammar>& grammar, bool drops_space = false) const {
    const int32_t ends[] = {end()};
    return GrammarMatcher(grammar, trie_, ends, drops_space);
  }

 private:
  std::vector<std::string> tokens_;
  std::shared_ptr<const TokenTrie> trie_;
};

inline const SmallVocabulary& byte_vocabulary() {
  static const SmallVocabulary made = [] {
    std::vector<std::string> tokens;
    for (int byte = 0; byte < 256; ++byte) tokens.push_back(std::string(1, static_cast<char>(byte)));
    return SmallVocabulary(std::move(tokens));
  }();
  return made;
}

inline bool accepts(const std::shared_ptr<const Grammar>& grammar, std::string_view text) {
  GrammarMatcher matcher = byte_vocabulary().matcher(grammar);
  return matcher.accept(text) && matcher.complete();
}

inline std::vector<int32_t> allowed_tokens(const GrammarMatcher& matcher, size_t vocabulary) {
  std::vector<float> logits(vocabulary, 0);
  const bool any = matcher.mask(logits);
  std::vector<int32_t> ids;
  for (size_t id = 0; id < vocabulary; ++id) {
    if (!std::isinf(logits[id])) ids.push_back(static_cast<int32_t>(id));
  }
  EXPECT_EQ(any, !ids.empty());
  return ids;
}

// Every token on its own, byte by byte on a copy.
inline std::vector<int32_t> allowed_one_by_one(const GrammarMatcher& matcher, size_t vocabulary) {
  std::vector<int32_t> ids;
  for (size_t id = 0; id < vocabulary; ++id) {
    GrammarMatcher copy = matcher;
    if (copy.accept(static_cast<int32_t>(id))) ids.push_back(static_cast<int32_t>(id));
  }
  return ids;
}

// A text made by drawing among the allowed tokens, until the end token or `length` tokens; from then on the
// shortest way out is looked for, by preferring ends and closing characters.
inline std::string random_text(const std::shared_ptr<const Grammar>& grammar,
                               const SmallVocabulary& vocabulary, uint64_t seed, size_t length,
                               bool compare_masks = false) {
  Rng rng(seed, 0x6772616D);
  GrammarMatcher matcher = vocabulary.matcher(grammar);
  std::string text;
  for (size_t step = 0; step < 50 * length; ++step) {
    const std::vector<int32_t> ids = allowed_tokens(matcher, vocabulary.size());
    if (compare_masks) {
      EXPECT_EQ(ids, allowed_one_by_one(matcher, vocabulary.size())) << "after " << text;
    }
    if (ids.empty()) {
      EXPECT_TRUE(matcher.exhausted()) << "dead end after " << text;
      return text;
    }
    int32_t id = ids[static_cast<size_t>(rng.uniform_double() * static_cast<double>(ids.size()))];
    if (step >= length) {
      if (matcher.complete()) return text;
      for (const std::string_view wanted : {"\"", "}", "]", ".", ","}) {
        if (step % 2 == 0) break;  // something else may be needed first
        const auto found = std::find_if(ids.begin(), ids.end(), [&](int32_t candidate) {
          return candidate != vocabulary.end() && vocabulary.token(candidate) == wanted;
        });
        if (found != ids.end()) {
          id = *found;
          break;
        }
      }
    }
    EXPECT_TRUE(matcher.accept(id));
    if (id == vocabulary.end()) return text;
    text += vocabulary.token(id);
  }
  ADD_FAILURE() << "no end of " << text;
  return text;
}

}  // namespace qkv::test
