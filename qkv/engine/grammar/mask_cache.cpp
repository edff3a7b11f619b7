#include "qkv/engine/grammar/mask_cache.h"

#include <algorithm>
#include <utility>

namespace qkv {
namespace {

uint64_t hash_of(const ParseState& state) {
  uint64_t hash = state.at_end ? 0x51ED270B : 0;
  for (const auto& [frame, node, table] : state.items) {
    for (const uint64_t value : {static_cast<uint64_t>(frame) << 32 | node, static_cast<uint64_t>(table)}) {
      hash = (hash ^ value) * 0x9E3779B97F4A7C15ULL;
      hash ^= hash >> 29;
    }
  }
  return hash;
}

void set_bit(std::vector<uint64_t>& bits, int32_t id) {
  bits[static_cast<size_t>(id) / 64] |= uint64_t{1} << (static_cast<size_t>(id) % 64);
}

}  // namespace

MaskCache::MaskCache(std::shared_ptr<const Automaton> automaton, std::shared_ptr<const TokenTrie> trie)
    : automaton_(std::move(automaton)),
      trie_(std::move(trie)),
      machine_(*automaton_),
      path_(trie_->depth() + 1) {
  const auto& classes = automaton_->byte_classes();
  representative_.resize(classes.count);
  for (size_t byte = 0; byte < 256; ++byte)
    representative_[classes.of_byte[byte]] = static_cast<uint8_t>(byte);
  clear();
}

void MaskCache::clear() {
  pool_ = FramePool();
  states_.clear();
  masks_.clear();
  next_.clear();
  known_.clear();
  entries_.clear();
  bytes_ = 0;
  link({});  // the dead state is number 0
}

MaskCache::Link MaskCache::link(ParseState state) {
  const uint64_t hash = hash_of(state);
  const auto [first, last] = known_.equal_range(hash);
  for (auto entry = first; entry != last; ++entry) {
    if (states_[entry->second / 4] == state) return entry->second;
  }
  const Link made = static_cast<Link>(states_.size() * 4) + (state.at_end ? kLeaves : 0) +
                    (state.items.empty() ? kStops : 0);
  constexpr size_t kEntry = 160;  // of the containers
  bytes_ += state.items.size() * sizeof(ParseItem) + representative_.size() * sizeof(Link) + kEntry;
  states_.push_back(std::move(state));
  masks_.emplace_back();
  next_.resize(next_.size() + representative_.size(), kUnknown);
  known_.emplace(hash, made);
  return made;
}

MaskCache::Link MaskCache::entry(uint32_t node) {
  const auto found = entries_.find(node);
  if (found != entries_.end()) return found->second;
  const Link made = link(machine_.enter(pool_, node));
  entries_.emplace(node, made);
  return made;
}

MaskCache::Link MaskCache::follow(Link from, size_t byte_class) {
  const size_t place = from / 4 * representative_.size() + byte_class;
  if (next_[place] == kUnknown) {
    const Link made = link(machine_.step(pool_, states_[from / 4], representative_[byte_class]));
    next_[place] = made;
  }
  return next_[place];
}

template <typename Accept>
void MaskCache::walk_nodes(uint32_t begin, uint32_t end, Exits& exits, const Accept& accept) {
  const TokenTrie::Node* nodes = trie_->nodes().data();
  const auto& classes = automaton_->byte_classes().of_byte;
  const size_t width = representative_.size();
  for (uint32_t node = begin; node < end;) {
    const auto& [subtree_end, first_token, depth, byte] = nodes[node];
    const Link from = path_[depth - 1];
    Link to = next_[from / 4 * width + classes[byte]];
    if (to == kUnknown) to = follow(from, classes[byte]);
    if (to == kDead) {
      node = subtree_end;
      continue;
    }
    for (const int32_t id : trie_->tokens_at(node)) accept(id);
    if ((to & kLeaves) != 0 && subtree_end > node + 1) exits.push_back(node);
    if ((to & kStops) != 0) {
      node = subtree_end;
      continue;
    }
    path_[depth] = to;
    ++node;
  }
}

template <typename Accept>
void MaskCache::walk(uint32_t from, Link link, Exits& exits, const Accept& accept) {
  const TokenTrie::Node& node = trie_->nodes()[from];
  path_[node.depth] = link;
  walk_nodes(from + 1, node.end, exits, accept);
}

const MaskCache::Mask& MaskCache::mask(Link link) {
  if (masks_[link / 4] == nullptr) {
    auto made = std::make_unique<Mask>();
    walk(0, link, made->exits, [&](int32_t id) { made->few.push_back(id); });
    const size_t words = trie_->vocabulary() / 64 + 1;
    if (made->few.size() > 2 * words) {  // as large as the bits
      made->bits.resize(words);
      for (const int32_t id : made->few) set_bit(made->bits, id);
      made->few = {};
    }
    made->few.shrink_to_fit();
    bytes_ += made->few.size() * 4 + made->bits.size() * 8 + made->exits.size() * 4;
    masks_[link / 4] = std::move(made);
  }
  return *masks_[link / 4];
}

void MaskCache::add_without_space(Link link, Exits& exits, std::vector<uint64_t>& bits) {
  const auto accept = [&](int32_t id) { set_bit(bits, id); };
  path_[0] = link;
  const uint32_t space = trie_->child_of_root(' ');
  if (space == 0) {
    walk(0, link, exits, accept);
    return;
  }
  walk_nodes(1, space, exits, accept);
  walk_nodes(trie_->nodes()[space].end, trie_->nodes()[0].end, exits, accept);
  walk(space, link, exits, accept);
}

void MaskCache::add_allowed(const FramePool& pool, const ParseState& state, bool drops_space,
                            std::vector<uint64_t>& bits) {
  const std::lock_guard lock(mutex_);
  if (bytes_ + pool_.bytes() > kMaximumBytes) clear();
  // Exits by frame. Callers have smaller numbers, so the largest has all of its exits when its turn comes.
  ExitsByFrame exits;
  for (size_t i = 0; i < state.items.size();) {
    const uint32_t frame = state.items[i].frame;
    ParseState top;
    for (; i < state.items.size() && state.items[i].frame == frame; ++i)
      top.items.push_back({FramePool::kBottom, state.items[i].node, state.items[i].table});
    const Link on_top = link(std::move(top));
    Exits& leaving = exits[frame];
    if (drops_space) {
      add_without_space(on_top, leaving, bits);
      continue;
    }
    const Mask& known = mask(on_top);
    for (const int32_t id : known.few) set_bit(bits, id);
    for (size_t word = 0; word < known.bits.size(); ++word) bits[word] |= known.bits[word];
    leaving.insert(leaving.end(), known.exits.begin(), known.exits.end());
  }
  while (!exits.empty()) {
    const auto [frame, found] = std::move(*exits.begin());
    exits.erase(exits.begin());
    if (frame == FramePool::kBottom) continue;  // the text would be over in the middle of a token
    Exits nodes = found;
    std::sort(nodes.begin(), nodes.end());
    nodes.erase(std::unique(nodes.begin(), nodes.end()), nodes.end());
    for (const auto& back : pool.returns(frame)) {
      const Link below = entry(back.node);
      Exits& further = exits[back.frame];
      if ((below & kLeaves) != 0) further.insert(further.end(), nodes.begin(), nodes.end());
      if ((below & kStops) != 0) continue;
      for (const uint32_t node : nodes) walk(node, below, further, [&](int32_t id) { set_bit(bits, id); });
    }
  }
}

}  // namespace qkv
