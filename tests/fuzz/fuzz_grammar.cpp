// Any bytes as a GBNF grammar, a JSON schema and a regular expression: each is compiled or refused with
// Error, and what is compiled can be followed: every token that it allows is accepted, and it never runs into
// a dead end.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "qkv/core/error.h"
#include "qkv/engine/grammar/grammar.h"

namespace {

constexpr int32_t kEnd = 256 + 4;

const std::shared_ptr<const qkv::TokenTrie>& vocabulary() {
  static const auto made = [] {
    static std::vector<std::string> tokens;
    for (int byte = 0; byte < 256; ++byte) tokens.push_back(std::string(1, static_cast<char>(byte)));
    for (const char* token : {"\", \"", "\":", "}]", "ab"}) tokens.push_back(token);
    return std::make_shared<const qkv::TokenTrie>(
        std::vector<std::string_view>(tokens.begin(), tokens.end()));
  }();
  return made;
}

void follow(const std::shared_ptr<const qkv::Grammar>& grammar, size_t choice) {
  const int32_t ends[] = {kEnd};
  qkv::GrammarMatcher matcher(grammar, vocabulary(), ends);
  for (int step = 0; step < 48 && !matcher.exhausted(); ++step) {
    std::vector<float> logits(kEnd + 1, 0);
    if (!matcher.mask(logits)) std::abort();
    std::vector<int32_t> allowed;
    for (int32_t id = 0; id <= kEnd; ++id) {
      const bool possible = !std::isinf(logits[static_cast<size_t>(id)]);
      if (possible != matcher.allows(id)) std::abort();
      if (possible) allowed.push_back(id);
    }
    choice = choice * 6364136223846793005u + 1442695040888963407u;
    if (!matcher.accept(allowed[(choice >> 33) % allowed.size()])) std::abort();
  }
}

template <typename Compile>
void attempt(const Compile& compile, size_t size) {
  try {
    follow(compile(), size);
  } catch (const qkv::Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view source(reinterpret_cast<const char*>(data), size);
  attempt([&] { return qkv::grammar_from_gbnf(source, "input"); }, size);
  attempt([&] { return qkv::grammar_from_regex(source, "input"); }, size);
  attempt([&] { return qkv::grammar_from_json_schema(qkv::parse_json(source, "input"), "input"); }, size);
  return 0;
}
