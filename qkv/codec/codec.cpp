#include "qkv/codec/codec.h"

#include <zstd.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "qkv/codec/dictionary.h"
#include "qkv/codec/split.h"
#include "qkv/core/error.h"

namespace qkv {
namespace {

constexpr std::array<std::string_view, kCodecCount> kNames = {"raw", "dictionary", "split", "zstd"};

void zstd_decode(std::span<const std::byte> data, std::span<std::byte> raw) {
  const size_t size = ZSTD_decompress(raw.data(), raw.size(), data.data(), data.size());
  require(ZSTD_isError(size) == 0, "[codec] zstd: {}", ZSTD_getErrorName(size));
  require(size == raw.size(), "[codec] zstd: expected {} bytes, found {}", raw.size(), size);
}

// Pieces spread over the chunk, together `1 / share` of it: enough to tell which codecs are hopeless.
void take_sample(std::span<const std::byte> raw, size_t share, std::vector<std::byte>& sample) {
  constexpr size_t pieces = 8;
  const size_t piece = raw.size() / share / pieces / 64 * 64;
  sample.clear();
  for (size_t p = 0; p < pieces; ++p) {
    const size_t begin = raw.size() / pieces * p / 64 * 64;
    sample.insert(sample.end(), raw.begin() + static_cast<std::ptrdiff_t>(begin),
                  raw.begin() + static_cast<std::ptrdiff_t>(begin + piece));
  }
}

// Whether 16-bit words take more than `limit` different values.
bool more_distinct_words(std::span<const std::byte> words, size_t limit) {
  std::vector<uint64_t> seen(65536 / 64);
  size_t count = 0;
  for (size_t i = 0; i + 2 <= words.size() && count <= limit; i += 2) {
    const size_t word = static_cast<size_t>(words[i]) | static_cast<size_t>(words[i + 1]) << 8;
    const uint64_t bit = uint64_t{1} << word % 64;
    count += (seen[word / 64] & bit) == 0 ? 1 : 0;
    seen[word / 64] |= bit;
  }
  return count > limit;
}

}  // namespace

std::string_view codec_name(CodecId codec) {
  return kNames[static_cast<size_t>(codec)];
}

uint64_t largest_expansion(CodecId codec) {
  switch (codec) {
    case CodecId::raw:
      return 1;
    case CodecId::dictionary:
      return 4;  // indices of four bits for words of sixteen
    case CodecId::split:
      return 16;  // two coded fields of one bit each, at least, for words of sixteen; one for bytes
    case CodecId::zstd:
      return 32768;  // a block of 128 KiB takes four bytes at least
  }
  return 1;
}

struct ChunkEncoder::Scratch {
  struct FreeContext {
    void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
  };
  SplitScratch split;
  std::vector<std::byte> sample, small_sample, trial, best;
  std::unique_ptr<ZSTD_CCtx, FreeContext> zstd{ZSTD_createCCtx()};
};

ChunkEncoder::ChunkEncoder(const CodecOptions& options)
    : options_(options), scratch_(std::make_unique<Scratch>()) {}
ChunkEncoder::~ChunkEncoder() = default;

bool ChunkEncoder::encode_by(CodecId codec, std::span<const std::byte> raw, Elements elements,
                             std::vector<std::byte>& out) {
  if (codec == CodecId::dictionary) return dictionary_encode(raw, options_.dictionary_entries, out);
  if (codec == CodecId::split) return split_encode(raw, elements, scratch_->split, out);
  out.resize(ZSTD_compressBound(raw.size()));
  const size_t size = ZSTD_compressCCtx(scratch_->zstd.get(), out.data(), out.size(), raw.data(), raw.size(),
                                        options_.zstd_level);
  require(ZSTD_isError(size) == 0, "[codec] zstd: {}", ZSTD_getErrorName(size));
  out.resize(size);
  return size < raw.size();
}

// What is worth trying on the whole chunk.
std::vector<CodecId> ChunkEncoder::candidates(std::span<const std::byte> raw, Elements elements) {
  std::vector<CodecId> all;
  if (options_.split) all.push_back(CodecId::split);
  if (options_.dictionary && elements != Elements::words32) all.push_back(CodecId::dictionary);
  if (options_.zstd) all.push_back(CodecId::zstd);
  constexpr size_t least_sampled = 1 << 16;
  if (options_.patience <= 0 || all.size() < 2 || raw.size() < least_sampled) return all;

  // How many values there are shows in a larger sample than how many bits they take. Codecs that would have
  // to make a code or a table first are weighed by the small one, and split by its entropy alone: what is
  // spent here is lost to every chunk.
  constexpr size_t values_share = 32, bits_share = 128;
  take_sample(raw, values_share, scratch_->sample);
  // Indices into more than this take more bits than the split codec leaves of a weight: 11 of 16.
  constexpr size_t most_entries = 1024;
  if (options_.split && options_.dictionary && more_distinct_words(scratch_->sample, most_entries))
    std::erase(all, CodecId::dictionary);
  std::vector<std::byte>& small = scratch_->small_sample;
  take_sample(raw, bits_share, small);
  double best = 1;
  std::vector<double> sizes;  // as parts of the raw size
  for (const CodecId codec : all) {
    double size = 1, doubt = 0;
    if (codec == CodecId::dictionary) {  // whose size is known without its data
      const auto sampled = static_cast<double>(scratch_->sample.size());
      size = static_cast<double>(dictionary_bytes(scratch_->sample, options_.dictionary_entries)) / sampled;
      // A codebook costs the sample as much as the whole chunk: it gets the benefit of the doubt.
      doubt = 512 / sampled;
    } else if (codec == CodecId::split) {
      size = split_share(small, elements, scratch_->split);
    } else if (encode_by(codec, small, elements, scratch_->trial)) {
      size = static_cast<double>(scratch_->trial.size()) / static_cast<double>(small.size());
    }
    best = std::min(best, size);
    sizes.push_back(size - doubt);
  }
  std::vector<CodecId> kept;
  for (size_t i = 0; i < all.size(); ++i) {
    if (sizes[i] <= best * options_.patience) kept.push_back(all[i]);
  }
  return kept;
}

ChunkEncoder::Result ChunkEncoder::encode(std::span<const std::byte> raw, Elements elements) {
  Result result{CodecId::raw, raw};
  size_t limit = static_cast<size_t>(static_cast<double>(raw.size()) * (1 - options_.least_saving));
  for (const CodecId codec : candidates(raw, elements)) {
    if (!encode_by(codec, raw, elements, scratch_->trial) || scratch_->trial.size() > limit) continue;
    std::swap(scratch_->trial, scratch_->best);
    result = {codec, scratch_->best};
    limit = result.data.size() - 1;
  }
  return result;
}

void decode_chunk(CodecId codec, std::span<const std::byte> data, std::span<std::byte> raw) {
  switch (codec) {
    case CodecId::raw:
      require(data.size() == raw.size(), "[codec] raw: expected {} bytes, found {}", raw.size(), data.size());
      std::memcpy(raw.data(), data.data(), raw.size());
      return;
    case CodecId::dictionary:
      return dictionary_decode(data, raw);
    case CodecId::split:
      return split_decode(data, raw);
    case CodecId::zstd:
      return zstd_decode(data, raw);
  }
  fail("[codec] unknown codec {}", static_cast<int>(codec));
}

}  // namespace qkv
