// Generation that keeps to a grammar: a compiled grammar, and where one text stands in it.
//
//   const auto grammar = grammar_from_json_schema(schema, "schema");  // or GBNF, or a regular expression
//   const auto tokens = std::make_shared<const TokenTrie>(tokenizer);       // once per tokenizer
//   GrammarMatcher matcher(grammar, tokens, tokenizer.stop_ids());
//   matcher.mask(logits);  ...choose a token...  matcher.accept(token);     // for every token
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "qkv/core/json.h"
#include "qkv/engine/grammar/automaton.h"
#include "qkv/engine/grammar/mask_cache.h"

namespace qkv {

// Immutable; may be shared by any number of sequences and threads.
class Grammar {
 public:
  // See Automaton for what is refused.
  Grammar(const GrammarBuilder& builder, RuleId root);
  const std::shared_ptr<const Automaton>& automaton() const { return automaton_; }
  // What has been found out about the tokens of a vocabulary. That of the latest vocabulary is kept.
  std::shared_ptr<MaskCache> masks(const std::shared_ptr<const TokenTrie>& trie) const;

 private:
  std::shared_ptr<const Automaton> automaton_;
  mutable std::mutex mutex_;
  mutable std::shared_ptr<MaskCache> masks_;
};

// Each throws Error that begins with `where` and says what was expected and what was found.
//
// llama.cpp's grammar language, at rule "root".
std::shared_ptr<const Grammar> grammar_from_gbnf(std::string_view text, std::string_view where);
// The texts that a regular expression matches as a whole (see regex_grammar.h for the syntax).
std::shared_ptr<const Grammar> grammar_from_regex(std::string_view pattern, std::string_view where);
// JSON texts that satisfy a schema (docs/grammar.md lists the keywords). The schema {} allows any JSON.
std::shared_ptr<const Grammar> grammar_from_json_schema(const Json& schema, std::string_view where);

// The rules of a builder, with `where` before what is wrong with them.
std::shared_ptr<const Grammar> compile_grammar(const GrammarBuilder& builder, RuleId root,
                                               std::string_view where);

// Where one text stands in a grammar. A copy goes its own way, as speculation needs; it costs a few dozen
// bytes. Copies share memory that grows with the text: use them from one thread at a time.
class GrammarMatcher {
 public:
  // `end_ids`: tokens that end a text; they are allowed where the grammar is complete. `drops_space`: the
  // text begins with the first token, and loses the space that this begins with (see JoinRules).
  GrammarMatcher(const std::shared_ptr<const Grammar>& grammar,
                 const std::shared_ptr<const TokenTrie>& tokens, std::span<const int32_t> end_ids,
                 bool drops_space = false);

  // Goes on by a token, or by bytes. False, and nothing changes, if the grammar does not allow it.
  bool accept(int32_t token);
  bool accept(std::string_view bytes);
  bool allows(int32_t token) const;
  // Makes -infinity of the logits of all tokens that are not allowed. False if none is.
  bool mask(std::span<float> logits) const;

  // The bytes that have to follow, whatever the model says: up to the next choice, the next possible end, or
  // `limit`.
  std::string forced(size_t limit = 256) const;

  // The text so far is in the language of the grammar.
  bool complete() const { return state_.at_end; }
  // Nothing can follow but an end.
  bool exhausted() const { return ended_ || state_.items.empty(); }

 private:
  struct Shared {
    explicit Shared(const std::shared_ptr<const Grammar>& made)
        : grammar(made), machine(*made->automaton()) {}
    std::shared_ptr<const Grammar> grammar;
    std::shared_ptr<MaskCache> masks;
    std::vector<int32_t> end_ids;
    FramePool pool;
    ParseMachine machine;
    std::vector<uint64_t> bits;  // scratch
  };
  bool is_end(int32_t token) const;
  ParseState after(std::string_view bytes) const;
  std::string_view text_of(int32_t token) const;

  std::shared_ptr<Shared> shared_;
  ParseState state_;
  bool drops_space_;
  bool ended_ = false;
};

}  // namespace qkv
