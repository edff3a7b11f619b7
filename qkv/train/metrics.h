// Named numbers of training, averaged over what was added since they were last taken; the names are TRL's
// where it has them (rewards/chosen, rewards/margins, kl).
#pragma once

#include <map>
#include <string>

namespace qkv {

class Metrics {
 public:
  void add(const std::string& name, double sum, double count) {
    Entry& entry = entries_[name];
    entry.sum += sum;
    entry.count += count;
  }
  std::map<std::string, double> means() const {
    std::map<std::string, double> result;
    for (const auto& [name, entry] : entries_) {
      if (entry.count > 0) result[name] = entry.sum / entry.count;
    }
    return result;
  }
  std::map<std::string, double> take() {
    std::map<std::string, double> result = means();
    entries_.clear();
    return result;
  }

 private:
  struct Entry {
    double sum = 0, count = 0;
  };
  std::map<std::string, Entry> entries_;
};

}  // namespace qkv
