// Memory of caches: pages that several states may share, counted and limited in one place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "qkv/core/error.h"

namespace qkv {

// The pool's limit is reached. Nothing has changed: whoever catches it can free other states and try again.
class CacheFull : public Error {
 public:
  using Error::Error;
};

class PagePool;

// (report/page.h has the page of a report.) Fixed memory, counted by its pool until the last reference is
// gone. More than one: nobody may write.
class CachePage {
 public:
  CachePage(std::shared_ptr<PagePool> pool, uint64_t bytes);
  ~CachePage();
  CachePage(const CachePage&) = delete;
  CachePage& operator=(const CachePage&) = delete;
  std::byte* data() const { return memory_.get(); }
  uint64_t bytes() const { return bytes_; }

 private:
  std::shared_ptr<PagePool> pool_;
  std::shared_ptr<std::byte> memory_;
  uint64_t bytes_;
};

// Used from one thread at a time, as are the states whose pages it counts. A pool lives as long as its pages.
class PagePool : public std::enable_shared_from_this<PagePool> {
 public:
  // `limit`: bytes of all pages together; 0: none.
  static std::shared_ptr<PagePool> make(uint64_t limit = 0);
  // A page of memory that nobody has written. CacheFull beyond the limit, Error if the system has none left.
  std::shared_ptr<CachePage> take(uint64_t bytes);

  uint64_t limit() const { return limit_; }
  uint64_t bytes() const { return bytes_; }  // a shared page counts once
  uint64_t peak_bytes() const { return peak_; }
  int64_t pages() const { return pages_; }

 private:
  friend class CachePage;
  explicit PagePool(uint64_t limit) : limit_(limit) {}
  uint64_t limit_, bytes_ = 0, peak_ = 0;
  int64_t pages_ = 0;
};

}  // namespace qkv
