// Lossless compression of weights, a chunk at a time: bytes in, the same bytes out, NaN payloads and negative
// zeros included. Chunks are independent of each other, so they are encoded and decoded in parallel and in
// any order.
//
// Four codecs; ChunkEncoder keeps what is smallest:
//   raw         the bytes
//   dictionary  the commonest 16-bit values as a codebook, indices for them, the rest raw (dictionary.h)
//   split       sign, exponent and mantissa apart, the skewed fields entropy-coded (split.h)
//   zstd        what is none of these: integers, sparse tensors, repeated rows
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

namespace qkv {

// The number stored in files.
enum class CodecId : uint16_t { raw = 0, dictionary = 1, split = 2, zstd = 3 };
constexpr int kCodecCount = 4;
std::string_view codec_name(CodecId codec);
// Bytes that one encoded byte can stand for at most: bounds what damaged or hostile sizes can ask for.
uint64_t largest_expansion(CodecId codec);

// What the bytes are: which fields can be told apart.
enum class Elements : uint8_t {
  bytes,    // 8-bit floats, integers, blocks of quantized types
  words16,  // bf16, f16
  words32,  // f32
};

struct CodecOptions {
  bool dictionary = true, split = true, zstd = true;  // codecs that may be used; raw always may
  int zstd_level = 3;
  // A chunk that would not get smaller by this share is stored raw: reading it costs nothing then, and a
  // tensor of raw chunks is used where it lies in the file.
  double least_saving = 1.0 / 256;
  // Codecs are first tried on a sample; those whose sample is this much larger than the best are dropped. 0
  // tries all in full.
  double patience = 1.04;
  // Entries of the dictionary, a power of two from 16 to 4096; 0: what is smallest.
  int dictionary_entries = 0;
};

// Encodes chunks one after the other with the same memory; one per thread.
class ChunkEncoder {
 public:
  explicit ChunkEncoder(const CodecOptions& options = {});
  ~ChunkEncoder();
  ChunkEncoder(const ChunkEncoder&) = delete;
  ChunkEncoder& operator=(const ChunkEncoder&) = delete;

  struct Result {
    CodecId codec = CodecId::raw;
    std::span<const std::byte> data;  // valid until the next call; the chunk itself if it is stored raw
  };
  // The smallest form of the chunk, or the chunk.
  Result encode(std::span<const std::byte> raw, Elements elements);

 private:
  struct Scratch;
  bool encode_by(CodecId codec, std::span<const std::byte> raw, Elements elements,
                 std::vector<std::byte>& out);
  std::vector<CodecId> candidates(std::span<const std::byte> raw, Elements elements);
  CodecOptions options_;
  std::unique_ptr<Scratch> scratch_;
};

// Fills `raw`, whose size must be that of the chunk. Data that no encoder wrote give Error `[codec] ...` or
// wrong bytes, but never an access out of bounds or a loop without end: that the bytes are right is for the
// container's checksum to say.
void decode_chunk(CodecId codec, std::span<const std::byte> data, std::span<std::byte> raw);

}  // namespace qkv
