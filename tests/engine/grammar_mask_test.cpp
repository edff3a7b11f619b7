// Masks over vocabularies equal trying every token; where tokens cut characters and cross rules; ends;
// copies.
#include <gtest/gtest.h>

#include <filesystem>

#include "qkv/core/error.h"
#include "tests/engine/engine_support.h"
#include "tests/engine/grammar_support.h"
#include "tests/support/test_paths.h"

namespace qkv {
namespace {

using test::accepts;
using test::allowed_one_by_one;
using test::allowed_tokens;
using test::random_text;
using test::SmallVocabulary;

constexpr char kJson[] = R"(root ::= object
value ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws ( string ":" ws value ("," ws string ":" ws value)* )? "}" ws
array ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws ::= | " " | "\n" [ \t]{0,20}
)";
constexpr char kWords[] =
    "root ::= word (sep word)* \".\"\nword ::= [a-zé€😀]+\nsep ::= \" \" | \", \" | list\nlist ::= \"\\n\" "
    "list | \"\\n\"";
constexpr char kTrees[] = "root ::= s\ns ::= \"a\" s s | \"ab\" s \"bc\" | \"a\" | \"[\" s \"]\"";
// Not copied: a rule that is too long to be, and called from two places.
const std::string kCalls = "root ::= long \",\" long \"]\" | \"[\" root \"]\"\nlong ::= [a-z]{0,300}";

TEST(GrammarMask, EqualsTryingEveryToken) {
  const SmallVocabulary vocabulary = SmallVocabulary::mixed();
  for (const std::string& source : {std::string(kJson), std::string(kWords), std::string(kTrees), kCalls}) {
    const auto grammar = grammar_from_gbnf(source, "g");
    for (uint64_t seed = 0; seed < 20; ++seed) {
      const std::string text = random_text(grammar, vocabulary, seed, 40, true);
      EXPECT_TRUE(accepts(grammar, text)) << text;
    }
  }
}

TEST(GrammarMask, EqualsTryingEveryTokenOfRealVocabularies) {
  int seen = 0;
  for (const char* name : {"gpt2", "llama2", "llama3"}) {
    const std::string folder = test::shared(std::string("data/tokenizers/") + name);
    if (!std::filesystem::exists(folder)) continue;
    ++seen;
    const auto tokenizer = load_tokenizer(folder);
    const auto trie = std::make_shared<const TokenTrie>(*tokenizer);
    const auto grammar = grammar_from_gbnf(kJson, "json");
    const std::string text =
        "{\"name\": \"Zo\u00eb \\n 1\", \"list\":[1, -2.5e3,[true, {}]], \"\u20ac\": {\"a\":null}}";
    const auto size = static_cast<size_t>(tokenizer->vocab_size());
    GrammarMatcher matcher(grammar, trie, tokenizer->stop_ids(),
                           tokenizer->join_rules().strips_leading_space);
    for (const int32_t id : tokenizer->encode(text, {.add_special = false})) {
      ASSERT_EQ(allowed_tokens(matcher, size), allowed_one_by_one(matcher, size)) << name;
      ASSERT_TRUE(matcher.allows(id)) << name << " " << tokenizer->id_to_token(id);
      ASSERT_TRUE(matcher.accept(id));
    }
    EXPECT_TRUE(matcher.complete());
  }
  if (seen == 0) GTEST_SKIP() << "no tokenizers under " << test::shared("data/tokenizers");
}

TEST(GrammarMask, CharactersCutByTokens) {
  const SmallVocabulary vocabulary = SmallVocabulary::mixed();
  const auto grammar = grammar_from_gbnf("root ::= [é€]+ \"\\\"\"", "g");
  GrammarMatcher matcher = vocabulary.matcher(grammar);
  std::set<std::string> allowed;
  for (const int32_t id : allowed_tokens(matcher, vocabulary.size())) allowed.insert(vocabulary.token(id));
  EXPECT_EQ(allowed, (std::set<std::string>{"\xC3", "\xC3\xA9", "\xE2", "\xE2\x82"}));
  ASSERT_TRUE(matcher.accept(std::string_view("\xE2\x82")));
  EXPECT_FALSE(matcher.accept(std::string_view("\xA9")));  // U+20A9
  allowed.clear();
  for (const int32_t id : allowed_tokens(matcher, vocabulary.size())) allowed.insert(vocabulary.token(id));
  EXPECT_EQ(allowed, (std::set<std::string>{"\xAC", "\xAC\""}));
}

TEST(GrammarMask, EndsOnlyWhereTheTextIsWhole) {
  const SmallVocabulary vocabulary = SmallVocabulary::mixed();
  GrammarMatcher matcher = vocabulary.matcher(grammar_from_gbnf("root ::= \"ab\" \"c\"?", "g"));
  const auto has_end = [&] {
    const auto ids = allowed_tokens(matcher, vocabulary.size());
    return std::find(ids.begin(), ids.end(), vocabulary.end()) != ids.end();
  };
  EXPECT_FALSE(has_end());
  EXPECT_FALSE(matcher.accept(vocabulary.end()));
  ASSERT_TRUE(matcher.accept(std::string_view("ab")));
  EXPECT_TRUE(has_end());
  EXPECT_TRUE(matcher.complete());
  EXPECT_FALSE(matcher.exhausted());
  GrammarMatcher copy = matcher;  // goes its own way
  ASSERT_TRUE(copy.accept(std::string_view("c")));
  EXPECT_TRUE(copy.exhausted());
  EXPECT_FALSE(copy.accept(std::string_view("c")));
  EXPECT_FALSE(matcher.exhausted());
  EXPECT_TRUE(matcher.accept(vocabulary.end()));
  EXPECT_TRUE(allowed_tokens(matcher, vocabulary.size()).empty());
  EXPECT_FALSE(matcher.accept(vocabulary.end()));
}

TEST(GrammarMask, ForcedBytes) {
  const SmallVocabulary vocabulary = SmallVocabulary::mixed();
  GrammarMatcher matcher = vocabulary.matcher(
      grammar_from_gbnf("root ::= \"{é\" (\"abc\" | \"abd\" [x-z]) \"}\"? | \"{éa\"", "g"));
  EXPECT_EQ(matcher.forced(), "{éa");
  EXPECT_EQ(matcher.forced(2), "{\xC3");
  ASSERT_TRUE(matcher.accept(std::string_view("{é")));
  EXPECT_EQ(matcher.forced(), "a");
  ASSERT_TRUE(matcher.accept(std::string_view("a")));
  EXPECT_EQ(matcher.forced(), "");  // may end
  ASSERT_TRUE(matcher.accept(std::string_view("b")));
  EXPECT_EQ(matcher.forced(), "");
  ASSERT_TRUE(matcher.accept(std::string_view("c}")));
  EXPECT_EQ(matcher.forced(), "");
}

// SentencePiece drops the space that a text begins with.
TEST(GrammarMask, DroppedSpace) {
  const SmallVocabulary vocabulary = SmallVocabulary::mixed();
  const auto grammar = grammar_from_gbnf("root ::= \"the a\" | \" abc\"", "g");
  GrammarMatcher matcher = vocabulary.matcher(grammar, true);
  std::set<std::string> allowed;
  for (const int32_t id : allowed_tokens(matcher, vocabulary.size())) allowed.insert(vocabulary.token(id));
  EXPECT_EQ(allowed, (std::set<std::string>{"t", "the ", " the", "  "}));
  EXPECT_EQ(allowed_tokens(matcher, vocabulary.size()), allowed_one_by_one(matcher, vocabulary.size()));
  for (int32_t id = 0; id < vocabulary.end(); ++id) {
    if (vocabulary.token(id) == " the") {
      EXPECT_TRUE(matcher.accept(id));
    }
  }
  allowed.clear();
  for (const int32_t id : allowed_tokens(matcher, vocabulary.size())) allowed.insert(vocabulary.token(id));
  EXPECT_EQ(allowed, (std::set<std::string>{" ", " a"}));
}

// A logits row may be longer than the vocabulary (padded embeddings) or shorter.
TEST(GrammarMask, PaddedRows) {
  const auto& bytes = test::byte_vocabulary();
  GrammarMatcher matcher = bytes.matcher(grammar_from_gbnf("root ::= \"a\" | \"\xC3\xBF\"", "g"));
  std::vector<float> logits(300, 1);
  EXPECT_TRUE(matcher.mask(logits));
  for (size_t id = 0; id < logits.size(); ++id)
    EXPECT_EQ(std::isinf(logits[id]), id != 'a' && id != 0xC3) << id;
  std::vector<float> few(90, 1);
  EXPECT_FALSE(matcher.mask(few));
}

// Deep nesting neither overflows the call stack nor slows down.
TEST(GrammarMask, DeepNesting) {
  const SmallVocabulary vocabulary = SmallVocabulary::mixed();
  const auto grammar = grammar_from_gbnf("root ::= \"[\" root? \"]\" | \"x\" root", "g");
  GrammarMatcher matcher = vocabulary.matcher(grammar);
  ASSERT_TRUE(matcher.accept(std::string(100000, '[')));
  EXPECT_FALSE(allowed_tokens(matcher, vocabulary.size()).empty());
  ASSERT_TRUE(matcher.accept(std::string(99999, ']')));
  EXPECT_FALSE(matcher.complete());
  ASSERT_TRUE(matcher.accept(std::string_view("]")));
  EXPECT_TRUE(matcher.exhausted());
}

TEST(GrammarEngine, AnswersKeepToTheGrammar) {
  const auto model = test::small_llama();
  const test::ByteTokenizer tokenizer;
  const auto grammar = grammar_from_gbnf("root ::= \"<\" [a-f]{3,9} (\";\" [é€]+){2} \">\"", "g");
  std::vector<Request> requests;
  for (uint64_t seed = 0; seed < 6; ++seed) {
    Request request;
    request.prompt = test::bytes("Once");
    request.sampler.seed = seed;
    request.max_new_tokens = 90;
    request.grammar = grammar;
    request.ignore_eos = seed % 2 == 1;
    requests.push_back(request);
  }
  Engine engine(*model, &tokenizer);
  int whole = 0;
  for (const Completion& answer : complete(engine, requests)) {
    if (answer.finish == FinishReason::stop) {
      ++whole;
      EXPECT_TRUE(accepts(grammar, answer.text)) << answer.text;
    } else {
      EXPECT_TRUE(answer.finish == FinishReason::context || answer.finish == FinishReason::length);
    }
  }
  EXPECT_GT(whole, 0);
}

// Drafted tokens are checked one after the other, and the grammar with them.
TEST(GrammarEngine, SpeculationChangesNothing) {
  const auto model = test::small_llama();
  const test::ByteTokenizer tokenizer;
  Request request = test::greedy(test::bytes("<abc;abc;abc;"), 60);
  request.grammar = grammar_from_gbnf("root ::= (\"ab\" [a-f]{1,3} \";\"){3,12} \">\"", "g");
  Engine plain(*model, &tokenizer);
  const Completion expected = complete(plain, {request}).front();
  EngineOptions options;
  options.drafter = std::make_shared<PromptLookup>();
  Engine drafting(*model, &tokenizer, options);
  EXPECT_EQ(complete(drafting, {request}).front().tokens, expected.tokens);
  EXPECT_GT(drafting.stats().accepted_drafts, 0);
}

TEST(GrammarEngine, Refusals) {
  const auto model = test::small_llama();
  Request request = test::greedy(test::bytes("x"), 5);
  request.grammar = grammar_from_gbnf("root ::= \"a\"", "g");
  Engine plain(*model);
  EXPECT_THROW(plain.submit(request), Error);
}

}  // namespace
}  // namespace qkv
