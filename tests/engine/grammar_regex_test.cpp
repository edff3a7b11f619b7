// Regular expressions as grammars: against std::regex where that knows the syntax, by table where it does
// not.
#include <gtest/gtest.h>

#include <regex>

#include "qkv/core/error.h"
#include "qkv/engine/grammar/json_expressions.h"
#include "qkv/engine/grammar/regex_grammar.h"
#include "tests/engine/grammar_support.h"
#include "tests/support/test_paths.h"

namespace qkv {
namespace {

using test::accepts;

TEST(RegexGrammar, AgreesWithStdRegex) {
  const std::vector<std::string> patterns = {"abc",          "a|bc|",        "a*b+c?",      "(ab|c){2,3}",
                                             "(?:a|b)*?c",   "[a-c]+[^a-c]", "\\d{2}-\\w+", "\\D\\W\\s",
                                             "[\\d.-]+",     "x{3}",         "x{2,}",       "^ab$",
                                             "(a(b(c)?)?)?", "[\\]\\\\^-]*", "a.c",         "\\.\\*\\(\\)\\{",
                                             "\\x41\\u0042", "\\t\\n",       "[^\\d\\s]+",  "(a|aa)(a|ab)"};
  // All texts of up to three of these pieces.
  const std::vector<std::string> pieces = {"a",    "b",   "c",   "ab", "xx", "1", "-",     " ",  "\n",
                                           "\t\n", "11-", "xxx", "\\", "]",  "^", ".*(){", "AB", "_"};
  std::vector<std::string> texts = {""};
  for (size_t begin = 0, round = 0; round < 3; ++round) {
    const size_t end = texts.size();
    for (; begin < end; ++begin) {
      for (const auto& piece : pieces) texts.push_back(texts[begin] + piece);
    }
  }
  for (const auto& pattern : patterns) {
    const auto grammar = grammar_from_regex(pattern, "pattern");
    const std::regex reference(pattern);
    int in = 0;
    for (const auto& text : texts) {
      const bool expected = std::regex_match(text, reference);
      in += expected ? 1 : 0;
      ASSERT_EQ(accepts(grammar, text), expected) << pattern << " on '" << text << "'";
    }
    EXPECT_GT(in, 0) << pattern;
  }
}

TEST(RegexGrammar, Unicode) {
  EXPECT_TRUE(accepts(grammar_from_regex("[à-ü]{2}€.", "p"), "éü€\U0001F600"));
  EXPECT_FALSE(accepts(grammar_from_regex("[à-ü]{2}€.", "p"), "éz€\U0001F600"));
  EXPECT_TRUE(accepts(grammar_from_regex("\\uD83D\\uDE00\\u{1F600}", "p"), "\U0001F600\U0001F600"));
  EXPECT_TRUE(accepts(grammar_from_regex("\\s\\s", "p"), "\u00A0\u2003"));
  EXPECT_FALSE(accepts(grammar_from_regex(".", "p"), "\u2028"));
  EXPECT_TRUE(accepts(grammar_from_regex("[^]", "p"), "\u2028"));
  EXPECT_TRUE(accepts(grammar_from_regex("(?<year>\\d{4})\\cJ\\0", "p"), std::string_view("2024\n\0", 6)));
}

TEST(RegexGrammar, SearchesWithinTheText) {
  const auto searching = [](std::string_view pattern) {
    GrammarBuilder builder;
    const RuleId root = builder.declare("root");
    builder.define(root, add_regex(builder, pattern, "p", {.searches = true, .write = {}}));
    return compile_grammar(builder, root, "p");
  };
  EXPECT_TRUE(accepts(searching("b+"), "aabba\n"));
  EXPECT_FALSE(accepts(searching("b+"), "aa"));
  EXPECT_TRUE(accepts(searching("^b|c$"), "bxx"));
  EXPECT_TRUE(accepts(searching("^b|c$"), "xxc"));
  EXPECT_FALSE(accepts(searching("^b|c$"), "xbcx"));
  EXPECT_TRUE(accepts(searching("^(b|c)$"), "c"));
  EXPECT_FALSE(accepts(searching("^(b|c)$"), "cc"));
}

TEST(RegexGrammar, RefusesWithAPlaceAndASentence) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"a(?=b)", "p:1:2: look-ahead and look-behind are not supported"},
      {"(?<!b)a", "p:1:1: look-ahead and look-behind are not supported"},
      {"(a)\\1", "p:1:4: backreferences are not supported"},
      {"\\bword", "p:1:1: word boundaries are not supported"},
      {"\\p{L}", "p:1:1: Unicode properties"},
      {"(ab", "p:1:4: expected ')', found the end"},
      {"ab)", "p:1:3: expected the end of the pattern, found ')'"},
      {"[ab", "p:1:4: expected ']', found the end"},
      {"*a", "p:1:1: '*' has nothing to repeat; for the character itself write '\\*'"},
      {"a{", "p:1:3: expected a number of repetitions"},
      {"a{2,1}", "p:1:2: expected a maximum of at least 2, found 1"},
      {"a**", "p:1:3: a repetition of a repetition needs a group"},
      {"a^b", "p:1:2: '^' is supported at the beginning of the pattern only"},
      {"(a$)", "p:1:3: '$' is supported at the end of the pattern only"},
      {"a$b", "p:1:2: '$' is supported at the end of the pattern only"},
      {"\\y", "p:1:1: expected a known escape, found '\\y'"},
      {"[z-a]", "p:1:2: expected a range from a lower to a higher character"},
      {"[]", "p:1:1: no character is in this class"},
      {"\\u{110000}", "expected a character up to U+10FFFF"},
      {"\\uD800x", "expected a character up to U+10FFFF or a whole pair of surrogates, found U+D800"},
      {"a\\", "expected a character after '\\'"},
      {"(?i)a", "expected ':' or a name after '(?'"},
      {"((a{1000}){1000}){1000}", "expand to more than"},
  };
  for (const auto& [pattern, sentence] : cases) {
    const std::string found = test::error_of([&] { grammar_from_regex(pattern, "p"); });
    EXPECT_NE(found.find(sentence), std::string::npos) << pattern << "\n  " << found;
  }
}

}  // namespace
}  // namespace qkv
