#include "qkv/engine/stop_matcher.h"

#include <algorithm>
#include <utility>

#include "qkv/core/error.h"

namespace qkv {

StopMatcher::StopMatcher(std::vector<std::string> stops) : stops_(std::move(stops)) {
  for (const auto& stop : stops_) require(!stop.empty(), "stop string: expected text, found an empty string");
}

std::string StopMatcher::push(std::string_view text) {
  if (matched_) return {};
  held_ += text;
  size_t begin = std::string::npos, end = std::string::npos;  // of the stop string that ends first
  for (const auto& stop : stops_) {
    const size_t at = held_.find(stop);
    if (at == std::string::npos) continue;
    const size_t after = at + stop.size();
    if (end == std::string::npos || after < end || (after == end && at < begin)) {
      begin = at;
      end = after;
    }
  }
  if (end != std::string::npos) {
    matched_ = true;
    std::string result = held_.substr(0, begin);
    held_.clear();
    return result;
  }
  size_t keep = 0;  // longest end of the text that begins a stop string
  for (const auto& stop : stops_) {
    for (size_t n = std::min(stop.size() - 1, held_.size()); n > keep; --n) {
      if (std::string_view(held_).substr(held_.size() - n) == std::string_view(stop).substr(0, n)) {
        keep = n;
        break;
      }
    }
  }
  std::string result = held_.substr(0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return result;
}

std::string StopMatcher::finish() {
  return std::exchange(held_, {});
}

}  // namespace qkv
