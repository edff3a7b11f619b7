#include "qkv/tensor/allocator.h"

#include <sys/mman.h>

#include <fstream>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "qkv/core/error.h"
#include "qkv/core/progress.h"

namespace qkv {
namespace {

constexpr uint64_t kSmall = uint64_t{1} << 16;      // below: malloc, which is good at it
constexpr uint64_t kHugePage = uint64_t{1} << 21;   // from here on ask for huge pages
constexpr uint64_t kCacheLimit = uint64_t{1} << 28;  // idle bytes kept; training steps repeat their sizes

uint64_t rounded(uint64_t bytes) {
  const uint64_t unit = bytes < kHugePage ? 4096 : uint64_t{1} << 16;
  return (bytes + unit - 1) / unit * unit;
}

// Large blocks come from mmap and are cached by size; a request takes the smallest cached block that wastes at most an
// eighth. The oldest idle blocks go back to the system when more than kCacheLimit bytes are idle.
class CpuAllocator {
 public:
  std::shared_ptr<std::byte> allocate(uint64_t bytes) {
    void* data = nullptr;
    uint64_t capacity = 0;
    if (bytes < kSmall) {
      data = ::operator new(bytes == 0 ? 1 : bytes, std::align_val_t{64}, std::nothrow);
    } else {
      capacity = rounded(bytes);
      data = take_or_map(capacity);
    }
    require(data != nullptr, "memory: cannot allocate {} ({} in use by tensors)", format_bytes(bytes), format_bytes(use_.current));
    {
      std::lock_guard<std::mutex> lock(mutex_);
      use_.current += bytes;
      use_.peak = std::max(use_.peak, use_.current);
    }
    return std::shared_ptr<std::byte>(static_cast<std::byte*>(data), [this, bytes, capacity](std::byte* block) {
      release(block, bytes, capacity);
    });
  }

  MemoryUse use() {
    std::lock_guard<std::mutex> lock(mutex_);
    return use_;
  }

  void reset_peak() {
    std::lock_guard<std::mutex> lock(mutex_);
    use_.peak = use_.current;
  }

  void release_cached() {
    std::lock_guard<std::mutex> lock(mutex_);
    shrink_to(0);
  }

 private:
  struct Idle {
    void* data;
    uint64_t age;
  };

  void* take_or_map(uint64_t& capacity) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      const auto it = idle_.lower_bound(capacity);
      if (it != idle_.end() && it->first <= capacity + capacity / 8) {
        void* data = it->second.data;
        capacity = it->first;
        use_.cached -= capacity;
        idle_.erase(it);
        return data;
      }
    }
    void* data = map(capacity);
    if (data == nullptr) {
      release_cached();
      data = map(capacity);
    }
    return data;
  }

  static void* map(uint64_t capacity) {
    void* data = ::mmap(nullptr, capacity, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) return nullptr;
    if (capacity >= kHugePage) ::madvise(data, capacity, MADV_HUGEPAGE);
    return data;
  }

  void release(std::byte* block, uint64_t bytes, uint64_t capacity) {
    if (capacity == 0) ::operator delete(block, std::align_val_t{64});
    std::lock_guard<std::mutex> lock(mutex_);
    use_.current -= bytes;
    if (capacity == 0) return;
    if (capacity > kCacheLimit / 4) {  // a very large block is worth more to the system than to the cache
      ::munmap(block, capacity);
      return;
    }
    idle_.emplace(capacity, Idle{block, next_age_++});
    use_.cached += capacity;
    shrink_to(kCacheLimit);
  }

  // Unmaps the longest idle blocks until at most `limit` bytes are idle. The caller holds mutex_.
  void shrink_to(uint64_t limit) {
    while (use_.cached > limit) {
      auto oldest = idle_.begin();
      for (auto it = idle_.begin(); it != idle_.end(); ++it) {
        if (it->second.age < oldest->second.age) oldest = it;
      }
      ::munmap(oldest->second.data, oldest->first);
      use_.cached -= oldest->first;
      idle_.erase(oldest);
    }
  }

  std::mutex mutex_;
  std::multimap<uint64_t, Idle> idle_;  // by capacity
  uint64_t next_age_ = 0;
  MemoryUse use_;
};

CpuAllocator& cpu_allocator() {
  // Never destroyed: tensors in static storage may outlive any order of destruction.
  static CpuAllocator& instance = *new CpuAllocator;
  return instance;
}

}  // namespace

std::shared_ptr<std::byte> allocate(uint64_t bytes, Device) { return cpu_allocator().allocate(bytes); }
MemoryUse memory_use(Device) { return cpu_allocator().use(); }
void reset_peak(Device) { cpu_allocator().reset_peak(); }
void release_cached_memory(Device) { cpu_allocator().release_cached(); }

uint64_t peak_resident_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("VmHWM:", 0) == 0) return std::stoull(line.substr(6)) * 1024;
  }
  return 0;
}

}  // namespace qkv
