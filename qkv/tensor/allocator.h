// Tensor memory: 64-byte aligned blocks, reused through a cache, counted exactly.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace qkv {

// Where a tensor's bytes are. The seam for accelerators: the CPU is the only device built today.
enum class DeviceKind : uint8_t { cpu };
struct Device {
  DeviceKind kind = DeviceKind::cpu;
  int index = 0;
  bool operator==(const Device&) const = default;
};

struct MemoryUse {
  uint64_t current = 0;  // bytes in live tensors, as requested
  uint64_t peak = 0;     // the largest `current` since the last reset_peak()
  uint64_t cached = 0;   // bytes held for reuse
};

// `bytes` of uninitialized memory; released to the cache when the last reference goes. Throws Error naming the size if the
// system has none.
std::shared_ptr<std::byte> allocate(uint64_t bytes, Device device = {});
MemoryUse memory_use(Device device = {});
void reset_peak(Device device = {});
// Gives cached blocks back to the system.
void release_cached_memory(Device device = {});
// The process's peak resident memory in bytes (VmHWM), what an observer outside sees.
uint64_t peak_resident_bytes();

}  // namespace qkv
