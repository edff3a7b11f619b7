// Any bytes as a PyTorch file and as the pickle inside of one: accepted, or refused with Error; never a
// crash, a hang or a read outside of the file.
#include <cstdint>
#include <span>

#include "qkv/core/error.h"
#include "qkv/formats/pickle.h"
#include "qkv/formats/pytorch_contents.h"
#include "qkv/formats/pytorch_state.h"
#include "tests/fuzz/targets.h"

namespace {

// Tensors that are expanded far beyond their storage only cost time.
constexpr uint64_t kLargestRead = uint64_t{1} << 20;

void read_all(std::span<const std::byte> file) {
  const qkv::PytorchContents contents = qkv::parse_pytorch(file, "input");
  uint64_t sum = 0;
  for (size_t i = 0; i < contents.entries.size(); ++i) {
    const qkv::TensorEntry& entry = contents.entries[i];
    const qkv::PytorchStorage& storage = contents.storages[contents.places[i].storage];
    if (entry.bytes > kLargestRead || storage.bytes > kLargestRead) continue;
    const qkv::Tensor inflated =
        storage.deflated ? qkv::inflate_storage(file, storage, "input") : qkv::Tensor();
    const auto bytes = storage.deflated ? std::span(inflated.raw(), storage.bytes)
                                        : file.subspan(storage.begin, storage.bytes);
    const qkv::Tensor tensor = qkv::gather(entry, contents.places[i], bytes);
    for (uint64_t at = 0; at < tensor.bytes(); ++at) sum += static_cast<uint64_t>(tensor.raw()[at]);
  }
  volatile uint64_t used = sum;
  (void)used;
}

}  // namespace

using qkv::fuzz::attempt;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const std::byte> file(reinterpret_cast<const std::byte*>(data), size);
  attempt([&] { read_all(file); });
  attempt([&] {
    if (qkv::looks_like_pytorch(file)) qkv::verify_pytorch(file, "input", [](uint64_t, uint64_t) {});
  });
  attempt([&] {
    const qkv::Pickle pickle(file, "input");
    qkv::pytorch_state(pickle, "input");
  });
  return 0;
}
