#include "qkv/nn/page_pool.h"

#include <algorithm>

#include "qkv/core/progress.h"
#include "qkv/tensor/allocator.h"

namespace qkv {

CachePage::CachePage(std::shared_ptr<PagePool> pool, uint64_t bytes)
    : pool_(std::move(pool)), memory_(allocate(bytes)), bytes_(bytes) {
  pool_->bytes_ += bytes;
  pool_->peak_ = std::max(pool_->peak_, pool_->bytes_);
  ++pool_->pages_;
}

CachePage::~CachePage() {
  pool_->bytes_ -= bytes_;
  --pool_->pages_;
}

std::shared_ptr<PagePool> PagePool::make(uint64_t limit) {
  return std::shared_ptr<PagePool>(new PagePool(limit));
}

std::shared_ptr<CachePage> PagePool::take(uint64_t bytes) {
  if (limit_ > 0 && bytes > limit_ - std::min(limit_, bytes_)) {
    throw CacheFull(fmt::format("cache: its {} are in use, {} more are needed", format_bytes(limit_),
                                format_bytes(bytes)));
  }
  return std::make_shared<CachePage>(shared_from_this(), bytes);
}

}  // namespace qkv
