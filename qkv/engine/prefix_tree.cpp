#include "qkv/engine/prefix_tree.h"

#include <algorithm>
#include <utility>

#include "qkv/core/error.h"

namespace qkv {

// Tokens from the parent's end on; leaves have states, inner nodes may.
struct PrefixTree::Node {
  std::vector<int32_t> run;
  Node* parent = nullptr;
  std::map<int32_t, std::unique_ptr<Node>> children;  // by the first token of their runs
  std::optional<SequenceState> state;                 // of all tokens from the root to the end of the run
  uint64_t used = 0;
};

// Where a sequence leaves the tree.
struct PrefixTree::Place {
  Node* node;       // the last whose run has matched, if only in part
  int64_t matched;  // tokens in all
  int64_t of_run;   // tokens of the node's run
};

int64_t common_prefix(std::span<const int32_t> a, std::span<const int32_t> b) {
  const auto end = a.begin() + static_cast<std::ptrdiff_t>(std::min(a.size(), b.size()));
  return std::mismatch(a.begin(), end, b.begin()).first - a.begin();
}

namespace {

bool can_fork(const SequenceState& state, int64_t length) {
  try {
    state.fork(length);
    return true;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace

PrefixTree::PrefixTree() : root_(std::make_unique<Node>()) {}
PrefixTree::~PrefixTree() = default;

PrefixTree::Place PrefixTree::locate(std::span<const int32_t> tokens) const {
  Place place{root_.get(), 0, 0};
  while (static_cast<size_t>(place.matched) < tokens.size()) {
    const auto rest = tokens.subspan(static_cast<size_t>(place.matched));
    const auto child = place.node->children.find(rest.front());
    if (child == place.node->children.end()) break;
    place.node = child->second.get();
    place.of_run = common_prefix(place.node->run, rest);
    place.matched += place.of_run;
    if (static_cast<size_t>(place.of_run) < place.node->run.size()) break;
  }
  return place;
}

std::pair<PrefixTree::Node*, int64_t> PrefixTree::source(std::span<const int32_t> tokens,
                                                         int64_t limit) const {
  const Place place = locate(tokens);
  const int64_t length = std::min(place.matched, limit);
  if (length <= 0) return {nullptr, 0};
  // Any state below this place begins with what has matched.
  Node* below = place.node;
  while (!below->state && !below->children.empty()) below = below->children.begin()->second.get();
  if (below->state && can_fork(*below->state, length)) return {below, length};
  for (Node* node = place.node; node != nullptr; node = node->parent) {
    if (node->state && node->state->length <= length) return {node, node->state->length};
  }
  return {nullptr, 0};
}

int64_t PrefixTree::match(std::span<const int32_t> tokens, int64_t limit) const {
  return source(tokens, limit).second;
}

std::optional<SequenceState> PrefixTree::find(std::span<const int32_t> tokens, int64_t limit) {
  const auto [node, length] = source(tokens, limit);
  if (length == 0) return std::nullopt;
  node->used = ++clock_;
  return node->state->fork(length);
}

void PrefixTree::insert(std::span<const int32_t> tokens, SequenceState state) {
  require(state.length == static_cast<int64_t>(tokens.size()),
          "prefix tree: {} tokens do not fit a state of {}", tokens.size(), state.length);
  if (tokens.empty()) return;
  const auto [known, length] = source(tokens, state.length);
  if (length == state.length) {  // a longer one begins so
    known->used = ++clock_;
    return;
  }
  const Place place = locate(tokens);
  Node* node = place.node;
  if (static_cast<size_t>(place.of_run) < node->run.size()) {  // its run is cut in two
    auto upper = std::make_unique<Node>();
    upper->run.assign(node->run.begin(), node->run.begin() + place.of_run);
    upper->parent = node->parent;
    auto& slot = node->parent->children.at(node->run.front());
    std::unique_ptr<Node> lower = std::exchange(slot, std::move(upper));
    lower->run.erase(lower->run.begin(), lower->run.begin() + place.of_run);
    lower->parent = slot.get();
    node = slot.get();
    node->children.emplace(lower->run.front(), std::move(lower));
  }
  if (static_cast<size_t>(place.matched) < tokens.size()) {
    auto leaf = std::make_unique<Node>();
    leaf->run.assign(tokens.begin() + place.matched, tokens.end());
    leaf->parent = node;
    auto& slot = node->children[leaf->run.front()];
    slot = std::move(leaf);
    node = slot.get();
  }
  if (!node->state) ++size_;
  node->state = std::move(state);
  node->used = ++clock_;
  const Node& added = *node;
  for (Node* above = node->parent; above != nullptr;) {
    Node* const next = above->parent;
    if (above->state && can_fork(*added.state, above->state->length)) forget(*above);
    above = next;
  }
}

// Takes a node's state, and the nodes that are no longer needed without it.
void PrefixTree::forget(Node& node) {
  node.state.reset();
  --size_;
  Node* current = &node;
  while (current->children.empty() && !current->state && current->parent != nullptr) {
    Node* const parent = current->parent;
    parent->children.erase(current->run.front());
    current = parent;
  }
  if (current->parent == nullptr || current->state || current->children.size() != 1) return;
  // An only child is one run with its parent.
  std::unique_ptr<Node> child = std::move(current->children.begin()->second);
  child->run.insert(child->run.begin(), current->run.begin(), current->run.end());
  child->parent = current->parent;
  auto& slot = current->parent->children.at(current->run.front());
  slot = std::move(child);
}

bool PrefixTree::drop_oldest() {
  Node* oldest = nullptr;
  std::vector<Node*> open = {root_.get()};
  while (!open.empty()) {
    Node* const node = open.back();
    open.pop_back();
    if (node->state && (oldest == nullptr || node->used < oldest->used)) oldest = node;
    for (auto& entry : node->children) open.push_back(entry.second.get());
  }
  if (oldest == nullptr) return false;
  forget(*oldest);
  return true;
}

std::vector<const SequenceState*> PrefixTree::states() const {
  std::vector<const SequenceState*> all;
  std::vector<const Node*> open = {root_.get()};
  while (!open.empty()) {
    const Node* const node = open.back();
    open.pop_back();
    if (node->state) all.push_back(&*node->state);
    for (const auto& entry : node->children) open.push_back(entry.second.get());
  }
  return all;
}

uint64_t PrefixTree::bytes() const {
  uint64_t total = 0;
  for (const SequenceState* state : states()) total += state->bytes();
  return total;
}

}  // namespace qkv
