// Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
// The n-th number of a stream is a pure function of (seed, stream, n): any thread can make any part of it, dropout needs
// no stored mask, and the whole state of a generator is three integers in a checkpoint.
#pragma once

#include <array>
#include <cstdint>

namespace qkv {

// Four 32-bit words for counter `counter` of the stream.
std::array<uint32_t, 4> philox4x32(uint64_t seed, uint64_t stream, uint64_t counter);

class Rng {
 public:
  explicit Rng(uint64_t seed = 0, uint64_t stream = 0) : seed_(seed), stream_(stream) {}

  uint64_t seed() const { return seed_; }
  uint64_t stream() const { return stream_; }
  // How many 32-bit words have been drawn.
  uint64_t position() const { return position_; }
  void set_position(uint64_t position) { position_ = position; }

  // An independent generator: same seed, another stream, position 0.
  Rng split(uint64_t stream) const;

  uint32_t next_u32();
  uint64_t next_u64();
  // Uniform in [0, 1), 24 bits.
  float uniform();
  // Uniform in [0, 1), 53 bits.
  double uniform_double();
  // Uniform in [0, bound), without bias; bound >= 1.
  uint64_t below(uint64_t bound);
  // Standard normal (Box-Muller).
  float normal();

 private:
  uint64_t seed_;
  uint64_t stream_;
  uint64_t position_ = 0;
  uint64_t cached_counter_ = ~uint64_t{0};
  std::array<uint32_t, 4> cached_{};
};

// Fisher-Yates on anything with size() and operator[].
template <typename Container>
void shuffle(Container& items, Rng& rng) {
  for (uint64_t i = items.size(); i > 1; --i) {
    using std::swap;
    swap(items[i - 1], items[rng.below(i)]);
  }
}

}  // namespace qkv
