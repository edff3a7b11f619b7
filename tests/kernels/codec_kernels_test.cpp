// The codecs' loops of every instruction set against the definitions, around their vector lengths.
#include "qkv/kernels/codec_kernels.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "qkv/core/rng.h"

namespace qkv {
namespace {

constexpr int64_t kLengths[] = {0, 1, 7, 8, 9, 31, 63, 64, 65, 127, 128, 200, 1000, 4099};

template <typename T>
std::vector<T> random_numbers(size_t n, uint64_t seed) {
  Rng rng(seed);
  std::vector<T> numbers(n);
  for (T& number : numbers) number = static_cast<T>(rng.next_u32());
  return numbers;
}

TEST(CodecKernels, WordsComeApartAndTogether) {
  for (const Isa isa : available_isas()) {
    const CodecKernels kernels = codec_kernels_for(isa);
    for (const int64_t n : kLengths) {
      const auto size = static_cast<size_t>(n);
      const auto words = random_numbers<uint16_t>(size, 1);
      std::vector<uint16_t> field(size), back(size);
      std::vector<uint8_t> rest(size);
      kernels.split_words(words.data(), n, field.data(), rest.data());
      for (size_t i = 0; i < size; ++i) {
        ASSERT_EQ(field[i], words[i] >> 6 & 511);
        ASSERT_EQ(rest[i], (words[i] >> 15) * 64 + (words[i] & 63));
        back[i] = static_cast<uint16_t>(field[i] << 6);
      }
      std::vector<uint16_t> again = back;
      kernels.join_words(rest.data(), n, back.data());
      EXPECT_EQ(back, words) << isa_name(isa) << " n=" << n;

      const size_t packed_bytes = (size + 7) / 8 * 7;
      std::vector<std::byte> packed(packed_bytes + 1);
      kernels.pack7(rest.data(), n, packed.data());
      for (size_t i = 0; i < size; ++i) {  // bit by bit
        unsigned number = 0;
        for (size_t b = 0; b < 7; ++b) {
          const size_t bit = i * 7 + b;
          number |= (static_cast<unsigned>(packed[bit / 8]) >> bit % 8 & 1u) << b;
        }
        ASSERT_EQ(number, rest[i]) << isa_name(isa) << " n=" << n << " i=" << i;
      }
      packed.resize(packed_bytes);  // of exactly its size: sanitizers see a read behind it
      packed.shrink_to_fit();
      kernels.join_packed(packed.data(), n, again.data());
      EXPECT_EQ(again, words) << isa_name(isa) << " n=" << n;
    }
  }
}

TEST(CodecKernels, IndicesOfEveryWidthAreLookedUp) {
  for (const Isa isa : available_isas()) {
    const CodecKernels kernels = codec_kernels_for(isa);
    for (int bits = 4; bits <= 12; ++bits) {
      const auto codebook = random_numbers<uint16_t>(size_t{1} << bits, 2);
      for (const int64_t n : kLengths) {
        const auto indices = random_numbers<uint16_t>(static_cast<size_t>(n), 3);
        std::vector<std::byte> packed((static_cast<size_t>(n * bits) + 7) / 8 + (bits == 8 ? 0 : 8));
        std::vector<uint16_t> expected, found(static_cast<size_t>(n));
        for (size_t i = 0; i < indices.size(); ++i) {
          const unsigned index = indices[i] & ((1u << bits) - 1);
          expected.push_back(codebook[index]);
          for (size_t b = 0; b < static_cast<size_t>(bits); ++b) {
            const size_t bit = i * static_cast<size_t>(bits) + b;
            packed[bit / 8] |= static_cast<std::byte>((index >> b & 1u) << bit % 8);
          }
        }
        kernels.look_up(packed.data(), bits, n, codebook.data(), found.data());
        EXPECT_EQ(found, expected) << isa_name(isa) << " bits=" << bits << " n=" << n;
      }
    }
  }
}

TEST(CodecKernels, WordsAreMergedByTheirBitmaps) {
  constexpr size_t slack = 32;
  for (const Isa isa : available_isas()) {
    const CodecKernels kernels = codec_kernels_for(isa);
    for (const size_t groups : {0, 1, 3, 4, 5, 8, 33, 256}) {
      auto bitmaps = random_numbers<uint8_t>(groups, 4);
      if (groups > 4) {
        bitmaps[2] = 0;
        bitmaps[3] = 255;
      }
      const auto known = random_numbers<uint16_t>(groups * 8 + slack, 5),
                 others = random_numbers<uint16_t>(groups * 8 + slack, 6);
      std::vector<std::byte> unaligned(2 * others.size() + 1);
      std::memcpy(unaligned.data() + 1, others.data(), 2 * others.size());
      std::vector<uint16_t> expected, found(groups * 8);
      size_t k = 0, o = 0;
      for (size_t i = 0; i < groups * 8; ++i)
        expected.push_back((bitmaps[i / 8] >> i % 8 & 1) != 0 ? known[k++] : others[o++]);
      kernels.merge_words(reinterpret_cast<const std::byte*>(bitmaps.data()), static_cast<int64_t>(groups),
                          known.data(), unaligned.data() + 1, found.data());
      EXPECT_EQ(found, expected) << isa_name(isa) << " groups=" << groups;
    }
  }
}

// Symbols of 3 to 5 bits, written and read back; the streams end where the arithmetic says.
template <typename T, typename Write, typename Read>
void expect_streams(const char* set, Write write, Read read) {
  // Code of symbol s < 16: 1 s3 s2 s1 s0 from the lowest bit up, of 5 bits.
  std::vector<uint32_t> codes;
  for (uint32_t s = 0; s < 16; ++s) codes.push_back((1 | s << 1) | 5u << 16);
  std::vector<uint64_t> table(size_t{1} << kCodecBits);
  for (size_t bits = 0; bits < table.size(); ++bits) {
    const uint64_t first = bits >> 1 & 15, second = bits >> 6 & 15;
    table[bits] = 10 | uint64_t{2} << 8 | first << 16 | second << (16 + 8 * sizeof(T));
  }
  constexpr int64_t steps = 40;
  constexpr size_t n = steps * kCodecLookups;
  std::vector<T> symbols = random_numbers<T>(n * kCodecStreams, 7);
  for (T& symbol : symbols) symbol = static_cast<T>(symbol & 15);
  std::vector<std::vector<std::byte>> bytes(kCodecStreams, std::vector<std::byte>(n + 16));
  std::array<HuffmanWriter<T>, kCodecStreams> writers;
  for (size_t s = 0; s < kCodecStreams; ++s) writers[s] = {symbols.data() + s * n, bytes[s].data(), 0, 0};
  write(writers.data(), steps, codes.data());
  std::vector<T> back(symbols.size() + HuffmanReader<T>::kSlack);
  std::array<HuffmanReader<T>, kCodecStreams> readers;
  for (size_t s = 0; s < kCodecStreams; ++s) {
    EXPECT_EQ(writers[s].symbol, symbols.data() + (s + 1) * n) << set;
    EXPECT_EQ(8 * (writers[s].to - bytes[s].data()) + writers[s].used, static_cast<int64_t>(5 * n)) << set;
    std::memcpy(writers[s].to, &writers[s].word, 8);
    readers[s] = {bytes[s].data(), bytes[s].data() + bytes[s].size() - 8, 0, back.data() + s * n,
                  back.data() + (s + 1) * n};
  }
  read(readers.data(), table.data());
  for (size_t s = 0; s < kCodecStreams; ++s) {
    const auto done = static_cast<size_t>(readers[s].out - back.data()) - s * n;
    EXPECT_FALSE(readers[s].has_step()) << set;
    EXPECT_EQ(8 * (readers[s].in - bytes[s].data()) + static_cast<int64_t>(readers[s].bit),
              static_cast<int64_t>(5 * done))
        << set;
    EXPECT_TRUE(std::equal(back.begin() + static_cast<std::ptrdiff_t>(s * n),
                           back.begin() + static_cast<std::ptrdiff_t>(s * n + done),
                           symbols.begin() + static_cast<std::ptrdiff_t>(s * n)))
        << set;
  }
}

TEST(CodecKernels, StreamsAreWrittenAndRead) {
  for (const Isa isa : available_isas()) {
    const CodecKernels kernels = codec_kernels_for(isa);
    expect_streams<uint16_t>(isa_name(isa), kernels.huffman_write16, kernels.huffman_read16);
    expect_streams<uint8_t>(isa_name(isa), kernels.huffman_write8, kernels.huffman_read8);
  }
}

}  // namespace
}  // namespace qkv
