// Stop strings in a stream of text: they end it, and no part of one is ever passed on.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace qkv {

// The result does not depend on how the text is cut into pieces: the stop string that is complete first ends
// the text.
class StopMatcher {
 public:
  // Error if one is empty.
  explicit StopMatcher(std::vector<std::string> stops);

  // Text that can be passed on now. What may be the beginning of a stop string is held back.
  std::string push(std::string_view text);
  // A stop string is complete; push() gives nothing from then on.
  bool matched() const { return matched_; }
  // What is still held back, because no more text comes. Nothing after a match.
  std::string finish();

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool matched_ = false;
};

}  // namespace qkv
