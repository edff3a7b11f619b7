// Every bit comes back from every codec; sizes are what theory says; damaged data never leave their bounds.
#include "qkv/codec/codec.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>

#include "qkv/codec/dictionary.h"
#include "qkv/codec/huffman.h"
#include "qkv/codec/split.h"
#include "qkv/core/error.h"
#include "qkv/core/rng.h"
#include "qkv/kernels/scalar_types.h"

namespace qkv {
namespace {

using Bytes = std::vector<std::byte>;

template <typename T>
Bytes bytes_of(const std::vector<T>& values) {
  Bytes bytes(values.size() * sizeof(T));
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

template <typename T, typename Make>
Bytes made(size_t n, Make&& make) {
  std::vector<T> values(n);
  for (auto& value : values) value = make();
  return bytes_of(values);
}

Bytes gaussian_bf16(size_t n, uint64_t seed = 1) {
  Rng rng(seed);
  return made<bf16>(n, [&] { return to_bf16(0.02f * rng.normal()); });
}
Bytes gaussian_f16(size_t n) {
  Rng rng(2);
  return made<f16>(n, [&] { return to_f16(0.02f * rng.normal()); });
}
Bytes gaussian_f32(size_t n) {
  Rng rng(3);
  return made<float>(n, [&] { return 0.02f * rng.normal(); });
}
Bytes noise(size_t n) {
  Rng rng(4);
  return made<uint8_t>(n, [&] { return static_cast<uint8_t>(rng.next_u32()); });
}
Bytes few_words(size_t n, uint32_t distinct) {
  Rng rng(5);
  return made<uint16_t>(n, [&] { return static_cast<uint16_t>(rng.next_u32() % distinct * 251); });
}
Bytes sparse_f32(size_t n) {
  Rng rng(6);
  return made<float>(n, [&] { return rng.next_u32() % 16 == 0 ? rng.normal() : 0.0f; });
}

double round_trip(const Bytes& raw, Elements elements, const CodecOptions& options,
                  CodecId* codec = nullptr) {
  ChunkEncoder encoder(options);
  const auto encoded = encoder.encode(raw, elements);
  EXPECT_LE(encoded.data.size(), raw.size());
  Bytes back(raw.size(), std::byte{0xAA});
  decode_chunk(encoded.codec, encoded.data, back);
  EXPECT_TRUE(back == raw) << codec_name(encoded.codec) << ", " << raw.size() << " bytes";
  if (codec != nullptr) *codec = encoded.codec;
  return static_cast<double>(encoded.data.size()) / static_cast<double>(std::max<size_t>(1, raw.size()));
}

CodecOptions only(bool dictionary, bool split, bool zstd) {
  CodecOptions options;
  options.dictionary = dictionary;
  options.split = split;
  options.zstd = zstd;
  return options;
}

TEST(Codec, EveryBitComesBack) {
  const CodecOptions all[] = {only(true, true, true), only(true, false, false), only(false, true, false),
                               only(false, false, true), only(false, false, false)};
  for (const auto& options : all) {
    for (Elements elements : {Elements::bytes, Elements::words16, Elements::words32}) {
      for (const Bytes& whole :
           {gaussian_bf16(5000), gaussian_f16(5000), gaussian_f32(3000), noise(9001), few_words(4000, 7),
            few_words(4000, 300), sparse_f32(2000), Bytes(6000), Bytes(777, std::byte{0x80})}) {
        for (size_t size : {size_t{0}, size_t{1}, size_t{2}, size_t{3}, size_t{4}, size_t{7}, size_t{16},
                            size_t{30}, size_t{254}, whole.size() - 3, whole.size()}) {
          if (size <= whole.size())
            round_trip(Bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)), elements,
                       options);
        }
      }
    }
  }
}

TEST(Codec, EveryWordOfSixteenBitsComesBack) {  // NaN payloads, negative zeros, subnormals
  std::vector<uint16_t> words(65536);
  for (size_t i = 0; i < words.size(); ++i) words[i] = static_cast<uint16_t>(i * 40503);
  for (const auto& options : {only(false, true, false), only(true, false, false), only(true, true, true)}) {
    round_trip(bytes_of(words), Elements::words16, options);
    round_trip(bytes_of(words), Elements::words32, options);
  }
}

TEST(Codec, GaussianBf16ReachesTheEntropyOfItsPlanes) {
  const Bytes raw = gaussian_bf16(1 << 19);
  CodecId codec{};
  const double share = round_trip(raw, Elements::words16, {}, &codec);
  EXPECT_EQ(codec, CodecId::split);
  EXPECT_LE(share, 0.663);
  EXPECT_LE(share, plane_entropy_share(raw, Elements::words16) + 0.003);
  EXPECT_NEAR(plane_entropy_share(raw, Elements::words16), 0.6573,
              0.001);  // of Gaussian numbers, by integration
  // The codebook alone: what the distribution allows it.
  CodecOptions dictionary = only(true, false, false);
  dictionary.dictionary_entries = 256;
  EXPECT_NEAR(round_trip(raw, Elements::words16, dictionary), 0.892, 0.01);
  dictionary.dictionary_entries = 1024;
  EXPECT_NEAR(round_trip(raw, Elements::words16, dictionary), 0.738, 0.01);
}

TEST(Codec, FullPrecisionAndHalf) {
  const Bytes f16 = gaussian_f16(1 << 18), f32 = gaussian_f32(1 << 17);
  EXPECT_LE(round_trip(f16, Elements::words16, {}), 0.86);
  // Planes less than 2 % below eight bits stay as they are, and a Huffman code may lose 0.06 bits on such
  // exponents.
  EXPECT_LE(round_trip(f32, Elements::words32, {}),
            plane_entropy_share(f32, Elements::words32) + (3 * 0.16 + 0.06) / 32);
  // f32 that holds bf16 values: two planes are constant.
  std::vector<float> widened;
  Rng rng(8);
  for (int i = 0; i < 1 << 17; ++i) widened.push_back(to_float(to_bf16(rng.normal())));
  EXPECT_LE(round_trip(bytes_of(widened), Elements::words32, only(false, true, false)), 0.40);
}

TEST(Codec, FewDistinctValuesAreHalved) {
  CodecId codec{};
  EXPECT_LE(round_trip(few_words(1 << 19, 256), Elements::words16, only(true, false, false), &codec), 0.52);
  EXPECT_EQ(codec, CodecId::dictionary);
  EXPECT_LE(round_trip(few_words(1 << 19, 16), Elements::words16, only(true, false, false)),
            0.26);  // four bits an element
}

TEST(Codec, RepeatsAreForZstd) {
  Bytes raw = noise(4096);
  while (raw.size() < 1 << 20) raw.insert(raw.end(), raw.begin(), raw.begin() + 4096);
  CodecId codec{};
  EXPECT_LE(round_trip(raw, Elements::bytes, {}, &codec), 0.02);
  EXPECT_EQ(codec, CodecId::zstd);
  round_trip(noise(1 << 20), Elements::bytes, {}, &codec);
  EXPECT_EQ(codec, CodecId::raw);
}

TEST(Codec, OneEncoderForManyChunks) {
  ChunkEncoder encoder;
  for (const Bytes& raw : {gaussian_bf16(100000), noise(50), gaussian_bf16(70001, 9), Bytes(1 << 17)}) {
    const auto encoded = encoder.encode(raw, Elements::words16);
    Bytes back(raw.size());
    decode_chunk(encoded.codec, encoded.data, back);
    EXPECT_TRUE(back == raw);
  }
}

TEST(Codec, UnalignedMemory) {
  const Bytes raw = gaussian_bf16(1000);
  ChunkEncoder encoder(only(false, true, false));
  const auto encoded = encoder.encode(raw, Elements::words16);
  Bytes data(encoded.data.size() + 1), back(raw.size() + 1);
  std::copy(encoded.data.begin(), encoded.data.end(), data.begin() + 1);
  decode_chunk(encoded.codec, std::span(data).subspan(1), std::span(back).subspan(1));
  EXPECT_TRUE(std::equal(raw.begin(), raw.end(), back.begin() + 1));
}

// Whatever the data, decoding ends, and within its buffers (the address sanitizer watches in the asan build).
TEST(Codec, DamagedDataStayInBounds) {
  const std::pair<Bytes, Elements> chunks[] = {{gaussian_bf16(600), Elements::words16},
                                               {gaussian_f32(300), Elements::words32},
                                               {few_words(600, 40), Elements::words16},
                                               {sparse_f32(400), Elements::bytes}};
  for (const auto& [raw, elements] : chunks) {
    for (const auto& options :
         {only(true, false, false), only(false, true, false), only(false, false, true)}) {
      ChunkEncoder encoder(options);
      const auto encoded = encoder.encode(raw, elements);
      const Bytes data(encoded.data.begin(), encoded.data.end());
      const auto decode = [&, codec = encoded.codec](const Bytes& damaged) {
        Bytes back(raw.size());
        try {
          decode_chunk(codec, damaged, back);
        } catch (const Error& error) {
          EXPECT_EQ(std::string(error.what()).rfind("[codec] ", 0), 0u) << error.what();
        }
      };
      for (size_t size = 0; size < data.size(); ++size)
        decode(Bytes(data.begin(), data.begin() + static_cast<std::ptrdiff_t>(size)));
      Rng rng(11);
      for (int i = 0; i < 2000; ++i) {
        Bytes damaged = data;
        for (uint32_t flips = 1 + rng.next_u32() % 3; flips > 0; --flips)
          damaged[rng.next_u32() % damaged.size()] ^= static_cast<std::byte>(1u << rng.next_u32() % 8);
        decode(damaged);
      }
    }
  }
  Bytes back(10);
  EXPECT_THROW(decode_chunk(static_cast<CodecId>(9), back, back), Error);
}

TEST(Huffman, LengthsAreTheBestWithinTheLimit) {
  // Fibonacci counts want a code of 19 bits; within 11 it must still be a code, and no worse than equal
  // lengths.
  SymbolCounts counts{};
  uint32_t a = 1, b = 1;
  for (size_t s = 0; s < 20; ++s) {
    counts[s] = a;
    b += a;
    std::swap(a, b);
  }
  std::vector<uint16_t> symbols;
  for (size_t s = 0; s < 20; ++s) symbols.insert(symbols.end(), counts[s], static_cast<uint16_t>(s));
  Bytes out;
  HuffmanCode(counts).encode(symbols, out);
  std::vector<uint16_t> back(symbols.size());
  EXPECT_EQ(huffman_decode(out, 512, 0, back), out.size());
  EXPECT_EQ(back, symbols);
  const double bits = 8.0 * static_cast<double>(out.size()) / static_cast<double>(symbols.size());
  const double overhead =
      8.0 * 62 / static_cast<double>(symbols.size());  // header and padding of the streams
  double unlimited = 0;  // the unary code: 1 bit for the commonest, 19 for the two rarest
  for (size_t s = 0; s < 20; ++s)
    unlimited +=
        counts[s] * static_cast<double>(20 - std::max<size_t>(s, 1)) / static_cast<double>(symbols.size());
  EXPECT_LT(bits, unlimited + 0.01 + overhead);
  EXPECT_GE(bits, entropy_bits(counts));
}

TEST(Huffman, AllSymbolsEquallyOften) {
  std::vector<uint16_t> symbols;
  for (uint16_t round = 0; round < 9; ++round) {
    for (uint16_t s = 0; s < 512; ++s) symbols.push_back(static_cast<uint16_t>((s * 7 + round) % 512));
  }
  Bytes out;
  HuffmanCode(count_symbols(symbols)).encode(symbols, out);
  std::vector<uint16_t> back(symbols.size());
  huffman_decode(out, 512, 0, back);
  EXPECT_EQ(back, symbols);
  EXPECT_NEAR(entropy_bits(count_symbols(symbols)), 9, 1e-9);
}

}  // namespace
}  // namespace qkv
