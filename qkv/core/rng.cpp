#include "qkv/core/rng.h"

#include <cmath>

namespace qkv {

std::array<uint32_t, 4> philox4x32(uint64_t seed, uint64_t stream, uint64_t counter) {
  uint32_t c0 = static_cast<uint32_t>(counter), c1 = static_cast<uint32_t>(counter >> 32);
  uint32_t c2 = static_cast<uint32_t>(stream), c3 = static_cast<uint32_t>(stream >> 32);
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53} * c0;
    const uint64_t p1 = uint64_t{0xCD9E8D57} * c2;
    const uint32_t n0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    const uint32_t n2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c1 = static_cast<uint32_t>(p1);
    c3 = static_cast<uint32_t>(p0);
    c0 = n0;
    c2 = n2;
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  return {c0, c1, c2, c3};
}

Rng Rng::split(uint64_t stream) const {
  // Mixed through one block so that split(a).split(b) and split(b).split(a) are different streams.
  const auto words = philox4x32(stream_, 0x51C17A7EULL, stream);
  return Rng(seed_, (uint64_t{words[0]} << 32) | words[1]);
}

uint32_t Rng::next_u32() {
  const uint64_t counter = position_ / 4;
  if (counter != cached_counter_) {
    cached_ = philox4x32(seed_, stream_, counter);
    cached_counter_ = counter;
  }
  return cached_[position_++ % 4];
}

uint64_t Rng::next_u64() {
  const uint64_t low = next_u32();
  return (uint64_t{next_u32()} << 32) | low;
}

float Rng::uniform() { return static_cast<float>(next_u32() >> 8) * 0x1p-24f; }

double Rng::uniform_double() { return static_cast<double>(next_u64() >> 11) * 0x1p-53; }

uint64_t Rng::below(uint64_t bound) {
  // Lemire's method with rejection: the product's high word is uniform once the biased low words are refused.
  unsigned __int128 product = static_cast<unsigned __int128>(next_u64()) * bound;
  if (static_cast<uint64_t>(product) < bound) {
    const uint64_t threshold = (0 - bound) % bound;
    while (static_cast<uint64_t>(product) < threshold) {
      product = static_cast<unsigned __int128>(next_u64()) * bound;
    }
  }
  return static_cast<uint64_t>(product >> 64);
}

float Rng::normal() {
  constexpr double two_pi = 6.283185307179586476925;
  const double u = 1.0 - uniform_double();
  const double v = uniform_double();
  return static_cast<float>(std::sqrt(-2.0 * std::log(u)) * std::cos(two_pi * v));
}

}  // namespace qkv
