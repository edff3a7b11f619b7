// Any bytes as a `.qkv` file, and any bytes as the directory of one whose checksums hold (they would hide the
// rest of the reader from the fuzzer): accepted, or refused with Error; what is accepted lies within the file
// and reads.
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>

#include "qkv/core/error.h"
#include "qkv/formats/qkv_file.h"

namespace {

void read_all(std::span<const std::byte> file) {
  const auto directory = qkv::parse_qkv(file, "input");
  qkv::verify_qkv(file, directory, "input", [](uint64_t, uint64_t) {});
  for (const auto* records : {&directory.files, &directory.tensors}) {
    for (const auto& record : *records) {
      // A few bytes of zstd may well stand for many; only not for more than their number allows.
      constexpr uint64_t most_bytes = 16 << 20;
      if (record.entry.bytes > most_bytes) continue;
      try {
        const auto tensor = qkv::decode_qkv_record(file, directory, record, "record", "input");
        if (tensor.bytes() != record.entry.bytes) std::abort();
      } catch (const qkv::Error&) {
      }
    }
  }
  // What is written is what was read.
  const std::string again = qkv::make_qkv_directory(directory, "again");
  const auto original =
      file.subspan(directory.offset, file.size() - directory.offset - qkv::kQkvTrailerBytes);
  if (again != std::string_view(reinterpret_cast<const char*>(original.data()), original.size()))
    std::abort();
}

void attempt(std::string_view file) {
  try {
    read_all(std::as_bytes(std::span(file.data(), file.size())));
  } catch (const qkv::Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  attempt(input);
  constexpr size_t kDataBytes = 256;
  std::string whole = qkv::make_qkv_prologue(64) + std::string(kDataBytes, '\0');
  const uint64_t offset = whole.size();
  whole += input;
  attempt(whole + qkv::make_qkv_trailer(offset, input));
  return 0;
}
