#include "qkv/formats/byte_reader.h"

#include "qkv/core/error.h"

namespace qkv {

std::string ByteReader::prefix(std::string_view what) const {
  return fmt::format("{}: {}{}{}", where_, subject_, subject_.empty() ? "" : ": ", what);
}

void ByteReader::fail_short(uint64_t size, std::string_view what) const {
  fail("{}: expected {} bytes at offset {}, found the end of the file after {}", prefix(what), size,
       position_, remaining());
}

uint64_t ByteReader::count(uint64_t least_bytes, std::string_view what) {
  const auto value = number<uint64_t>(what);
  if (value > remaining() / least_bytes) {
    fail("{}: expected at most {}, as {} bytes follow; found {}", prefix(what), remaining() / least_bytes,
         remaining(), value);
  }
  return value;
}

}  // namespace qkv
