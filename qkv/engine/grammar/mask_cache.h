// Which tokens a grammar allows next. For a stack of rules the answer is put together from what depends on
// the topmost rule alone, which is computed once and kept, and from the few tokens that leave this rule and
// go on in those below (Dong et al., "XGrammar", arXiv 2411.15100). What is computed on the way are the
// states of a finite automaton over bytes, made when they are first reached.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "qkv/engine/grammar/stacks.h"
#include "qkv/engine/grammar/token_trie.h"

namespace qkv {

// Of one grammar and one vocabulary. May be used from many threads; they wait for each other.
class MaskCache {
 public:
  // Memory that is kept between calls.
  static constexpr size_t kMaximumBytes = size_t{64} << 20;

  MaskCache(std::shared_ptr<const Automaton> automaton, std::shared_ptr<const TokenTrie> trie);

  // Sets the bits of the tokens that `state`, whose frames are in `pool`, allows. `bits`: one per id of the
  // vocabulary. With `drops_space` a space that a token begins with does not count, and a token that is only
  // this space is not allowed.
  void add_allowed(const FramePool& pool, const ParseState& state, bool drops_space,
                   std::vector<uint64_t>& bits);

  const TokenTrie& trie() const { return *trie_; }
  size_t bytes() const { return bytes_; }  // kept at the moment

 private:
  // A state on top of a rule whose callers are not known, with what it says in short: a link is
  // number * 4 + (kLeaves if the rule can end here) + (kStops if nothing can be read within it).
  using Link = uint32_t;
  static constexpr Link kLeaves = 1, kStops = 2, kDead = kStops, kUnknown = UINT32_MAX;
  using Exits = std::vector<uint32_t>;  // nodes of the trie where the rule has ended and the token has not
  using ExitsByFrame = std::map<uint32_t, Exits, std::greater<>>;
  struct Mask {
    std::vector<int32_t> few;    // the tokens that are allowed, if they are few
    std::vector<uint64_t> bits;  // otherwise
    Exits exits;
  };

  void clear();
  Link link(ParseState state);
  Link entry(uint32_t node);
  Link follow(Link from, size_t byte_class);
  // Tries what is below trie node `from`, in state `link`. Calls accept(id) for every token that ends in a
  // live state.
  template <typename Accept>
  void walk(uint32_t from, Link link, Exits& exits, const Accept& accept);
  template <typename Accept>
  void walk_nodes(uint32_t begin, uint32_t end, Exits& exits, const Accept& accept);
  const Mask& mask(Link link);
  void add_without_space(Link link, Exits& exits, std::vector<uint64_t>& bits);

  std::mutex mutex_;
  const std::shared_ptr<const Automaton> automaton_;
  const std::shared_ptr<const TokenTrie> trie_;
  ParseMachine machine_;
  FramePool pool_;
  std::vector<ParseState> states_;                 // by number
  std::vector<std::unique_ptr<Mask>> masks_;       // by number
  std::vector<Link> next_;                         // by number and byte class
  std::unordered_multimap<uint64_t, Link> known_;  // by hash of the state
  std::unordered_map<uint32_t, Link> entries_;     // by node
  std::vector<uint8_t> representative_;            // a byte of each class
  std::vector<Link> path_;                         // by depth in the trie
  size_t bytes_ = 0;
};

}  // namespace qkv
