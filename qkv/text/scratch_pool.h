// Buffers that concurrent calls of a const method take and give back, so that each is made once per thread in
// use.
#pragma once

#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace qkv {

template <typename Scratch>
class ScratchPool {
 public:
  class Lease {
   public:
    explicit Lease(ScratchPool& pool) : pool_(pool) {
      {
        std::lock_guard<std::mutex> lock(pool_.mutex_);
        if (!pool_.idle_.empty()) {
          scratch_ = std::move(pool_.idle_.back());
          pool_.idle_.pop_back();
        }
      }
      if (!scratch_) scratch_ = std::make_unique<Scratch>();
    }
    ~Lease() {
      std::lock_guard<std::mutex> lock(pool_.mutex_);
      pool_.idle_.push_back(std::move(scratch_));
    }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    Scratch& operator*() const { return *scratch_; }

   private:
    ScratchPool& pool_;
    std::unique_ptr<Scratch> scratch_;
  };

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Scratch>> idle_;
};

}  // namespace qkv
