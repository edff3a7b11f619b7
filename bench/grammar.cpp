// What a grammar costs per token: microseconds of mask() and accept() beside a sampler's pass over the
// logits, for the tokens of JSON texts. `first` is a grammar that has seen no text, `again` one that has. One
// JSON line per grammar.
//   bench_grammar TOKENIZER [ROUNDS]
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "qkv/core/error.h"
#include "qkv/core/json.h"
#include "qkv/engine/grammar/grammar.h"

namespace qkv {
namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double quantile(std::vector<double> values, double place) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(place * static_cast<double>(values.size() - 1))];
}

constexpr const char* kPerson = R"json({"type": "object", "properties": {
  "name": {"type": "string"}, "age": {"type": "integer", "minimum": 0, "maximum": 150},
  "email": {"type": "string", "pattern": "^[a-z.]+@[a-z]+\\.com$"}, "bio": {"type": "string", "maxLength": 400},
  "tags": {"type": "array", "items": {"enum": ["admin", "editor", "viewer"]}},
  "address": {"type": "object", "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
              "required": ["street", "city"]},
  "score": {"type": "number"}, "friend": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
  "required": ["name", "age", "tags", "address", "friend"]})json";
constexpr const char* kPersonText =
    R"json({"name": "Ada Lovelace", "age": 36, "email": "ada.lovelace@example.com", )json"
    R"json("bio": "She wrote the first program for a machine that was never built, and saw that such machines )json"
    R"json(might one day compose music and draw pictures as well as count.", "tags": ["admin", "viewer"], )json"
    R"json("address": {"street": "12 St. James's Square", "city": "London"}, "score": 98.75, )json"
    R"json("friend": {"name": "Charles Babbage", "age": 79, "tags": [], )json"
    R"json("address": {"street": "1 Dorset Street", "city": "London"}, "friend": null}})json";
constexpr const char* kAnyText =
    R"json({"menu": {"id": "file", "value": [1, 2.5, -3e10, true, false, null], "popup": {"items": [)json"
    R"json({"label": "New document", "action": "CreateNewDoc()"}, {"label": "Open \"recent\"", )json"
    R"json("action": "OpenDoc()"}, {"label": "Close", "shortcut": ["ctrl", "w"]}], "width": 240}}, )json"
    R"json("notes": "The quick brown fox jumps over the lazy dog while the band plays on."})json";
constexpr const char* kJsonGbnf = R"gbnf(root ::= object
value ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws ( string ":" ws value ("," ws string ":" ws value)* )? "}" ws
array ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9]{1,15})? ws
ws ::= | " " | "\n" [ \t]{0,20}
)gbnf";

struct Times {
  std::vector<double> mask, accept;  // microseconds per token
};

Times follow(const std::shared_ptr<const Grammar>& grammar, const std::shared_ptr<const TokenTrie>& trie,
             const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  GrammarMatcher matcher(grammar, trie, tokenizer.stop_ids(), tokenizer.join_rules().strips_leading_space);
  Times times;
  std::vector<float> logits(static_cast<size_t>(tokenizer.vocab_size()));
  for (const int32_t id : ids) {
    std::fill(logits.begin(), logits.end(), 1.0f);
    const double begin = now();
    require(matcher.mask(logits), "no token is allowed");
    const double middle = now();
    require(matcher.accept(id), "token {} ('{}') is not allowed", id, tokenizer.id_to_token(id));
    times.accept.push_back(1e6 * (now() - middle));
    times.mask.push_back(1e6 * (middle - begin));
  }
  require(matcher.complete(), "the text is not complete");
  return times;
}

void add(Json& json, const std::string& name, const Times& times) {
  double total = 0;
  for (const auto* list : {&times.mask, &times.accept}) {
    for (const double time : *list) total += time;
  }
  json[name] = {{"mean", total / static_cast<double>(times.mask.size())},
                {"median", quantile(times.mask, 0.5) + quantile(times.accept, 0.5)},
                {"mask_p99", quantile(times.mask, 0.99)},
                {"mask_max", quantile(times.mask, 1)},
                {"accept_median", quantile(times.accept, 0.5)}};
}

template <typename Compile>
void measure(const char* name, const Tokenizer& tokenizer, const std::shared_ptr<const TokenTrie>& trie,
             const std::string& text, int rounds, const Compile& compile) {
  const std::vector<int32_t> ids = tokenizer.encode(text, {.add_special = false});
  Times first, again;
  std::vector<double> compile_times;
  Json json = {{"grammar", name}, {"vocabulary", tokenizer.vocab_size()}, {"tokens", ids.size()}};
  for (int round = 0; round < rounds; ++round) {
    const double begin = now();
    const auto grammar = compile();
    compile_times.push_back(1e6 * (now() - begin));
    for (Times* times : {&first, &again}) {
      const Times found = follow(grammar, trie, tokenizer, ids);
      times->mask.insert(times->mask.end(), found.mask.begin(), found.mask.end());
      times->accept.insert(times->accept.end(), found.accept.begin(), found.accept.end());
    }
    if (round == 0) {
      json["states"] = grammar->automaton()->nodes();
      json["cache_bytes"] = grammar->masks(trie)->bytes();
    }
  }
  json["compile"] = quantile(compile_times, 0.5);
  add(json, "first", first);
  add(json, "again", again);
  std::printf("%s\n", dump_json(json).c_str());
}

void run(const std::string& path, int rounds) {
  const auto tokenizer = load_tokenizer(path);
  const double begin = now();
  const auto trie = std::make_shared<const TokenTrie>(*tokenizer);
  std::printf("%s\n", dump_json(Json{{"vocabulary", tokenizer->vocab_size()},
                                     {"trie_nodes", trie->nodes().size()},
                                     {"trie_microseconds", 1e6 * (now() - begin)}})
                          .c_str());
  const Json person = parse_json(kPerson, "person");
  measure("schema: person", *tokenizer, trie, kPersonText, rounds,
          [&] { return grammar_from_json_schema(person, "person"); });
  measure("schema: any JSON", *tokenizer, trie, kAnyText, rounds,
          [&] { return grammar_from_json_schema(Json::object(), "any"); });
  measure("GBNF: JSON", *tokenizer, trie, kAnyText, rounds,
          [&] { return grammar_from_gbnf(kJsonGbnf, "json"); });
}

}  // namespace
}  // namespace qkv

int main(int argc, char** argv) {
  try {
    qkv::require(argc >= 2, "expected bench_grammar TOKENIZER [ROUNDS]");
    qkv::run(argv[1], argc > 2 ? std::atoi(argv[2]) : 5);
    return 0;
  } catch (const qkv::Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 2;
  }
}
