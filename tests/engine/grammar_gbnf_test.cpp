// GBNF: what its sources mean, which are refused and in which words.
#include <gtest/gtest.h>

#include "qkv/core/error.h"
#include "tests/engine/grammar_support.h"

namespace qkv {
namespace {

using test::accepts;

struct Language {
  const char* source;
  std::vector<std::string> in, out;
};

TEST(Gbnf, AcceptsWhatItSays) {
  const std::vector<Language> languages = {
      {R"(root ::= "yes" | "no" )", {"yes", "no"}, {"", "ye", "yesno", "Yes"}},
      {R"(root ::= "a"* "b"+ "c"?)", {"b", "aab", "abbc"}, {"a", "c", "bcc", "ba"}},
      {R"(root ::= "a"{3} [b-d]{2,} [^x-z]{0,2})",
       {"aaabc", "aaadddd", "aaabcQ!"},
       {"aabc", "aaab", "aaabcz"}},
      {R"(root ::= ("ab" | "cd"){,2} ".")", {".", "ab.", "abcd."}, {"ababab.", "a."}},
      {"root ::= \"x\" (\n  \"a\" # one\n  | \"b\"\n) \"y\"\n", {"xay", "xby"}, {"xy"}},
      {"# nothing\n\nroot ::= one |\n  two\none ::= \"1\"\r\ntwo ::=\n  \"2\"", {"1", "2"}, {"12"}},
      {R"(root ::= "\x41\u00e9\U0001F600\n\t\r\\\"\[\]")", {"A\u00e9\U0001F600\n\t\r\\\"[]"}, {"A"}},
      {R"(root ::= [\x41-\x43\]^ \t-]+)", {"ABC", "]", "\t ^", "-"}, {"D", ""}},
      {R"(root ::= [é-ü€]+ .)", {"é€x", "ü\U0001F600"}, {"e", "é", "éxx"}},
      {R"(root ::= . .)", {"\u00e9\n", "\U0010FFFF\x7f"}, {"\xC3", "a\xED\xA0\x80", "a\xC0\x80", "a\xFF"}},
      {"root ::= a-b c_D9\na-b ::= \"1\"\nc_D9 ::= | \"2\"", {"1", "12"}, {"2"}},
      {"root ::= \"(\" root? \")\"", {"()", "(())", "((()))"}, {"(", "(()", "())"}},
      {"root ::= \"x\" root \"a\" | \"x\" root \"b\" | \"\"",
       {"", "xa", "xxab", "xxxbab"},
       {"x", "xxa", "xaa"}},
      {"root ::= item item\nitem ::= | \"a\" | item2\nitem2 ::= \"b\" item | ",
       {"", "a", "ab", "ba", "bab", "bbb"},
       {"aaa", "bab a"}},
      {"root ::= (\"a\"? \"b\"?)* \"c\"", {"c", "abc", "bbaac"}, {"ab"}},
      {"root ::= s\ns ::= \"a\" s s | \"a\"", {"a", "aaa", "aaaaa"}, {"aa", "aaaa", ""}},
      {"root ::= list\nlist ::= \"x\" | \"x,\" list", {"x", "x,x,x"}, {"x,", ",x"}},
      {R"(root ::= "" "")", {""}, {"a"}},
      {"root ::= \"a\" | loop\nloop ::= \"b\" loop", {"a"}, {"b", "bb"}},
  };
  for (const Language& language : languages) {
    SCOPED_TRACE(language.source);
    const auto grammar = grammar_from_gbnf(language.source, "g");
    for (const auto& text : language.in) EXPECT_TRUE(accepts(grammar, text)) << text;
    for (const auto& text : language.out) EXPECT_FALSE(accepts(grammar, text)) << text;
  }
}

TEST(Gbnf, RefusesWithAPlaceAndASentence) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "g: expected a rule named root, found none"},
      {"start ::= \"a\"", "g: expected a rule named root, found none"},
      {"root ::= \"a", "g:1:12: expected the end of the string, found the end"},
      {"root ::= \"a\n\"", "g:1:12: expected the end of the string, found the end of the line"},
      {"root ::= [ab", "g:1:13: expected the end of the set, found the end"},
      {"root ::= \"a\"\nother \"b\"", "g:2:7: expected '::=' after the name of a rule, found '\"'"},
      {"root ::= (\"a\"", "g:1:14: expected ')', found the end"},
      {"root ::= \"a\")",
       "g:1:13: expected a string, a set, a name, a group, '|' or the end of the rule, found ')'"},
      {"root ::= \"é\" thing",
       "g:1:14: expected the name of a rule that is defined somewhere, found 'thing'"},
      {"root ::= \"a\"\nroot ::= \"b\"", "g:2:1: rule 'root' is defined a second time"},
      {"root ::= \"\\q\"", "g:1:11: expected one of the escapes"},
      {"root ::= \"\\x4\"", "g:1:14: expected 2 hexadecimal digits, found '\"'"},
      {"root ::= \"\\uD800\"", "expected a character up to U+10FFFF that is no surrogate, found U+D800"},
      {"root ::= \"\\U00110000\"",
       "expected a character up to U+10FFFF that is no surrogate, found U+110000"},
      {"root ::= [z-a]", "g:1:11: expected a range from a lower to a higher character, found the opposite"},
      {"root ::= []", "g:1:10: no character is in this set"},
      {"root ::= \"a\"{3,2}", "g:1:13: expected a maximum of at least 3, found 2"},
      {"root ::= \"a\"{x}", "g:1:14: expected a number, found 'x'"},
      {"root ::= \"a\"{1", "g:1:15: expected '}', found the end"},
      {"root ::= \"a\"{99999999999999999999}", "g:1:14: expected a number up to 65536, found a larger one"},
      {"root ::= * \"a\"", "g:1:10: expected a string"},
      {"root ::= <think>", "grammars over token ids are not supported"},
      {"root ::= root \"a\" | \"b\"",
       "rule 'root' is left-recursive: it may begin with itself (root -> root)"},
      {"root ::= e\ne ::= t\nt ::= opt e \"x\" | \"y\"\nopt ::= \"-\"?",
       "rule 'e' is left-recursive: it may begin with itself (e -> t -> e)"},
      {"root ::= \"a\" root", "rule 'root' matches no text"},
      {"root ::= (((\"a\"{1000}){1000}){1000})", "the rules expand to more than 1048576 states"},
      {"root ::= (((\"\"{1000}){1000}){1000})", "the rules expand to more than"},
      {std::string("root ::= \"\xff\""), "g:1:11: expected UTF-8, found a byte that is not"},
      {"root ::= " + std::string(300, '('), "groups nested deeper than 200 levels"},
  };
  for (const auto& [source, sentence] : cases) {
    try {
      grammar_from_gbnf(source, "g");
      ADD_FAILURE() << "accepted: " << source;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(sentence), std::string::npos)
          << source << "\n  " << error.what();
    }
  }
}

// A repetition of many copies, and a chain of many rules, are no trouble.
TEST(Gbnf, LargeGrammars) {
  const auto many = grammar_from_gbnf("root ::= [a-z]{1000,20000}", "g");
  EXPECT_TRUE(accepts(many, std::string(1000, 'q')));
  EXPECT_FALSE(accepts(many, std::string(999, 'q')));
  EXPECT_TRUE(accepts(many, std::string(20000, 'q')));
  EXPECT_FALSE(accepts(many, std::string(20001, 'q')));
  std::string chain = "root ::= r0\n";
  for (int i = 0; i < 20000; ++i)
    chain += "r" + std::to_string(i) + " ::= \"a\" r" + std::to_string(i + 1) + "\n";
  const auto deep = grammar_from_gbnf(chain + "r20000 ::= \"b\"", "g");
  EXPECT_TRUE(accepts(deep, std::string(20000, 'a') + "b"));
  EXPECT_FALSE(accepts(deep, std::string(19999, 'a') + "b"));
}

// With two ways to read every character, stacks would double with each if they did not share.
TEST(Gbnf, AmbiguityIsCheap) {
  const auto grammar = grammar_from_gbnf("root ::= \"x\" root \"a\" | \"x\" root \"b\" | \"\"", "g");
  EXPECT_TRUE(accepts(grammar, std::string(1000, 'x') + std::string(1000, 'b')));
  const auto trees = grammar_from_gbnf("root ::= s\ns ::= \"a\" s s | \"a\"", "g");
  EXPECT_TRUE(accepts(trees, std::string(401, 'a')));
  EXPECT_FALSE(accepts(trees, std::string(400, 'a')));
}

}  // namespace
}  // namespace qkv
