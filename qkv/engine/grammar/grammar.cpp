#include "qkv/engine/grammar/grammar.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>

#include "qkv/core/error.h"

namespace qkv {

Grammar::Grammar(const GrammarBuilder& builder, RuleId root)
    : automaton_(std::make_shared<const Automaton>(builder, root)) {}

std::shared_ptr<const Grammar> compile_grammar(const GrammarBuilder& builder, RuleId root,
                                               std::string_view where) {
  try {
    return std::make_shared<const Grammar>(builder, root);
  } catch (const Error& error) {
    fail("{}: {}", where, error.what());
  }
}

std::shared_ptr<MaskCache> Grammar::masks(const std::shared_ptr<const TokenTrie>& trie) const {
  const std::lock_guard lock(mutex_);
  if (masks_ == nullptr || &masks_->trie() != trie.get())
    masks_ = std::make_shared<MaskCache>(automaton_, trie);
  return masks_;
}

GrammarMatcher::GrammarMatcher(const std::shared_ptr<const Grammar>& grammar,
                               const std::shared_ptr<const TokenTrie>& tokens,
                               std::span<const int32_t> end_ids, bool drops_space)
    : shared_(std::make_shared<Shared>(grammar)), drops_space_(drops_space) {
  shared_->masks = grammar->masks(tokens);
  shared_->end_ids.assign(end_ids.begin(), end_ids.end());
  state_ = shared_->machine.start(shared_->pool);
}

bool GrammarMatcher::is_end(int32_t token) const {
  return std::find(shared_->end_ids.begin(), shared_->end_ids.end(), token) != shared_->end_ids.end();
}

std::string_view GrammarMatcher::text_of(int32_t token) const {
  std::string_view text = shared_->masks->trie().bytes(token);
  if (drops_space_ && text.starts_with(' ')) text.remove_prefix(1);
  return text;
}

ParseState GrammarMatcher::after(std::string_view bytes) const {
  if (ended_) return {};
  ParseState state = state_;
  for (const char byte : bytes) {
    state = shared_->machine.step(shared_->pool, state, static_cast<uint8_t>(byte));
    if (state.items.empty() && !state.at_end) break;
  }
  return state;
}

bool GrammarMatcher::accept(std::string_view bytes) {
  ParseState next = after(bytes);
  if (next.dead()) return false;
  state_ = std::move(next);
  return true;
}

bool GrammarMatcher::accept(int32_t token) {
  if (!ended_ && complete() && is_end(token)) {
    ended_ = true;
    return true;
  }
  const std::string_view text = text_of(token);
  if (text.empty() || !accept(text)) return false;
  drops_space_ = false;
  return true;
}

bool GrammarMatcher::allows(int32_t token) const {
  if (!ended_ && complete() && is_end(token)) return true;
  const std::string_view text = text_of(token);
  return !text.empty() && !after(text).dead();
}

bool GrammarMatcher::mask(std::span<float> logits) const {
  std::vector<uint64_t>& bits = shared_->bits;
  bits.assign(std::max(shared_->masks->trie().vocabulary(), logits.size()) / 64 + 1, 0);
  if (!ended_) {
    shared_->masks->add_allowed(shared_->pool, state_, drops_space_, bits);
    if (complete()) {
      for (const int32_t id : shared_->end_ids) {
        if (id >= 0 && static_cast<size_t>(id) < logits.size())
          bits[static_cast<size_t>(id) / 64] |= uint64_t{1} << (id % 64);
      }
    }
  }
  constexpr float kForbidden = -std::numeric_limits<float>::infinity();
  bool any = false;
  for (size_t begin = 0; begin < logits.size(); begin += 64) {
    const uint64_t word = bits[begin / 64];
    const size_t count = std::min<size_t>(64, logits.size() - begin);
    const uint64_t used = count == 64 ? ~uint64_t{0} : (uint64_t{1} << count) - 1;
    any = any || (word & used) != 0;
    if ((word & used) == used) continue;
    float* values = logits.data() + begin;
    if ((word & used) == 0) {
      std::fill(values, values + count, kForbidden);
      continue;
    }
    for (size_t i = 0; i < count; ++i) {
      if ((word >> i & 1) == 0) values[i] = kForbidden;
    }
  }
  return any;
}

std::string GrammarMatcher::forced(size_t limit) const {
  std::string text;
  ParseState state = ended_ ? ParseState() : state_;
  while (text.size() < limit && !state.at_end) {
    const std::optional<uint8_t> byte = shared_->machine.only_byte(state);
    if (!byte) break;
    text += static_cast<char>(*byte);
    state = shared_->machine.step(shared_->pool, state, *byte);
  }
  return text;
}

}  // namespace qkv
