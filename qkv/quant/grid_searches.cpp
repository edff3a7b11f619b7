// Blocks whose codes are indices into codebooks of 4 or 8 values: iq2_*, iq3_*, iq1_*.
//
// The error of a vector x at a scale s with entry g is sum w x^2 - s (2 sum w x g - s sum w g^2). Neither sum
// depends on the scale, so both are computed once per vector for all entries, and the best entry at a scale
// is found exactly, also with weights, by one pass over them. What is in the brackets is a line in s: the
// best entries over a range of scales are the upper envelope of all lines, which has few pieces. The entries
// found at a few scales therefore stand for all of them in what follows: the choice of the block's number and
// of the groups' multiples of it, as in super_blocks.cpp.
#include <cstring>

#include "qkv/quant/block_searches.h"
#include "qkv/quant/grid_codebooks.h"

namespace qkv {
namespace {

// value = d * factor * (code + 1/2) * grid, codes 0 ... most_code for every group of `group` values.
template <class Block>
struct GridRule;
template <>
struct GridRule<BlockIq2Xxs> {
  static constexpr int group = 32, most_code = 15;
  static constexpr bool even_signs = true;
  static constexpr float factor = 0.25f, largest = 43;
  static SearchGrid grid() { return search_grid(kIq2XxsGrid); }
};
template <>
struct GridRule<BlockIq2Xs> {
  static constexpr int group = 16, most_code = 15;
  static constexpr bool even_signs = true;
  static constexpr float factor = 0.25f, largest = 43;
  static SearchGrid grid() { return search_grid(kIq2XsGrid); }
};
template <>
struct GridRule<BlockIq2S> {
  static constexpr int group = 16, most_code = 15;
  static constexpr bool even_signs = false;
  static constexpr float factor = 0.25f, largest = 43;
  static SearchGrid grid() { return search_grid(kIq2SGrid); }
};
template <>
struct GridRule<BlockIq3Xxs> {
  static constexpr int group = 32, most_code = 15;
  static constexpr bool even_signs = true;
  static constexpr float factor = 0.5f, largest = 62;
  static SearchGrid grid() { return search_grid(kIq3XxsGrid); }
};
template <>
struct GridRule<BlockIq3S> {
  static constexpr int group = 32, most_code = 15;
  static constexpr bool even_signs = false;
  static constexpr float factor = 2, largest = 15;
  static SearchGrid grid() { return search_grid(kIq3SGrid); }
};

// Scales to try, as parts of the one that maps the largest value to the largest level.
constexpr std::array<float, 9> kMagnitudeScales = {0.58f, 0.7f, 0.8f, 0.9f, 0.98f, 1.07f, 1.18f, 1.32f, 1.5f};
constexpr std::array<float, 6> kTernaryScales = {0.25f, 0.34f, 0.44f, 0.56f, 0.73f, 0.97f};

// What a block writes, group by group and vector by vector.
struct GridChoice {
  float d = 0;
  float gain = 0;                            // of all groups
  std::array<int, 16> code{};                // of groups
  std::array<bool, 32> down{};               // iq1: of vectors, which of the two shifts
  std::array<int, 64> index{};               // of vectors
  std::array<double, 16> product{}, norm{};  // of groups: sums over the vectors' entries
};

// One block. Several grids compete within each `shared` vectors (iq1's shifts).
class GridBlock {
 public:
  GridBlock(const std::vector<SearchGrid>& grids, int group, int shared, int most_code, float factor)
      : grids_(grids),
        dims_(grids[0].dims),
        entries_(grids[0].entries),
        group_(group),
        groups_(256 / group),
        shared_(shared),
        most_code_(most_code),
        factor_(factor),
        products_(static_cast<size_t>(entries_)),
        norms_(products_.size()),
        found_(grids.size() * static_cast<size_t>(256 / dims_)) {}

  // x (256) as magnitudes or plain values, w (256).
  template <size_t count>
  GridChoice search(const float* x, const float* w, const std::array<float, count>& parts, float largest) {
    static_assert(count <= kMostFound);
    std::array<float, 16> wanted{};
    float most = 0;
    for (int g = 0; g < groups_; ++g) {
      float extreme = 0;
      for (int i = 0; i < group_; ++i) extreme = std::max(extreme, std::abs(x[g * group_ + i]));
      std::array<float, count> scales;
      for (size_t k = 0; k < count; ++k) scales[k] = std::max(extreme, 1e-15f) / largest * parts[k];
      find_entries(x, w, g, scales.data(), count);
      if (extreme > 1e-15f) wanted[static_cast<size_t>(g)] = best_scale(g, scales.data(), count);
      most = std::max(most, wanted[static_cast<size_t>(g)]);
    }
    GridChoice best;
    best.d = rounded_to_f16(most / (factor_ * (static_cast<float>(most_code_) + 0.5f)));
    if (best.d == 0) return best;
    for (int g = 0; g < groups_; ++g) {
      const float code = wanted[static_cast<size_t>(g)] / (best.d * factor_) - 0.5f;
      best.code[static_cast<size_t>(g)] = nearest_int(std::clamp(code, 0.0f, static_cast<float>(most_code_)));
    }
    choose_codes(best);
    for (int round = 0; round < kRounds; ++round) {
      // The block's number that suits these codes and entries.
      double product = 0, norm = 0;
      for (size_t g = 0; g < static_cast<size_t>(groups_); ++g) {
        const double multiple = static_cast<double>(factor_) * (best.code[g] + 0.5);
        product += multiple * best.product[g];
        norm += multiple * multiple * best.norm[g];
      }
      GridChoice next = best;
      next.d = norm > 0 ? rounded_to_f16(static_cast<float>(product / norm)) : 0.0f;
      if (!(next.d > 0)) break;
      choose_codes(next);
      if (!(next.gain > best.gain)) break;
      best = next;
    }
    best.d = lengthened(best, x, w);
    return best;
  }

 private:
  static constexpr size_t kMostFound = 9;
  static constexpr int kRounds = 3;
  // The block's number that makes it as long as its values.
  float lengthened(const GridChoice& choice, const float* x, const float* w) const {
    double values = 0, products = 0;
    for (int i = 0; i < 256; ++i) values += static_cast<double>(w[i] * x[i] * x[i]);
    for (size_t g = 0; g < static_cast<size_t>(groups_); ++g)
      products += static_cast<double>(choice.d * factor_) * (choice.code[g] + 0.5) * choice.product[g];
    return rounded_to_f16(static_cast<float>(static_cast<double>(choice.d) * lengthening(values, products)));
  }
  // An entry that is the best of its vector at some scale.
  struct Entry {
    int index;
    float product, norm;
  };
  struct Found {
    size_t count = 0;
    std::array<Entry, kMostFound> entries;
    const Entry& best(float scale) const {
      size_t at = 0;
      for (size_t i = 1; i < count; ++i) {
        if (gain(i, scale) > gain(at, scale)) at = i;
      }
      return entries[at];
    }
    float gain(size_t i, float scale) const {
      return scale * (2 * entries[i].product - scale * entries[i].norm);
    }
  };

  Found& found(size_t variant, int vector) {
    return found_[variant * static_cast<size_t>(256 / dims_) + static_cast<size_t>(vector)];
  }
  const Found& found(size_t variant, int vector) const {
    return found_[variant * static_cast<size_t>(256 / dims_) + static_cast<size_t>(vector)];
  }

  // The best entries of the group's vectors at each of the scales.
  void find_entries(const float* x, const float* w, int group, const float* scales, size_t count) {
    float wx[32];
    for (int i = 0; i < group_; ++i) wx[i] = w[group * group_ + i] * x[group * group_ + i];
    for (size_t variant = 0; variant < grids_.size(); ++variant) {
      const SearchGrid& grid = grids_[variant];
      for (int i = 0; i < group_; i += dims_) {
        k_.grid_products(wx + i, w + group * group_ + i, grid.values.data(), grid.squares.data(), dims_,
                         entries_, products_.data(), norms_.data());
        Found& list = found(variant, (group * group_ + i) / dims_);
        list.count = 0;
        for (size_t k = 0; k < count; ++k) {
          const int index = k_.grid_best(products_.data(), norms_.data(), entries_, scales[k]);
          if (list.count > 0 && list.entries[list.count - 1].index == index) continue;
          const auto at = static_cast<size_t>(index);
          list.entries[list.count++] = {index, products_[at], norms_[at]};
        }
      }
    }
  }

  // take(vector, variant, entry): the best entry of every vector of the group at a scale. Returns by how much
  // they lower the error.
  template <class Take>
  float for_entries(int group, float scale, Take&& take) const {
    const int vectors = group_ / dims_;
    float sum = 0;
    for (int first = group * vectors; first < (group + 1) * vectors; first += shared_) {
      size_t chosen = 0;
      float best_gain = 0;
      for (size_t variant = 0; variant < grids_.size(); ++variant) {
        float gain = 0;
        for (int i = first; i < first + shared_; ++i) {
          const Entry& entry = found(variant, i).best(scale);
          gain += scale * (2 * entry.product - scale * entry.norm);
        }
        if (variant == 0 || gain > best_gain) {
          best_gain = gain;
          chosen = variant;
        }
      }
      sum += best_gain;
      for (int i = first; i < first + shared_; ++i) take(i, chosen, found(chosen, i).best(scale));
    }
    return sum;
  }
  float group_gain(int group, float scale) const {
    return for_entries(group, scale, [](int, size_t, const Entry&) {});
  }

  float best_scale(int group, const float* scales, size_t count) const {
    float best = 0, best_gain = 0;
    for (size_t k = 0; k < count; ++k) {
      const float gain = group_gain(group, scales[k]);
      if (gain > best_gain) {
        best_gain = gain;
        best = scales[k];
      }
    }
    if (best == 0) return 0;
    double product = 0, norm = 0;
    for_entries(group, best, [&](int, size_t, const Entry& entry) {
      product += static_cast<double>(entry.product);
      norm += static_cast<double>(entry.norm);
    });
    return norm > 0 && product > 0 ? static_cast<float>(product / norm) : best;
  }

  // Of every group the best multiple at most two off, with its entries.
  void choose_codes(GridChoice& choice) const {
    choice.gain = 0;
    for (int g = 0; g < groups_; ++g) {
      const auto scale_of = [&](int code) { return choice.d * factor_ * (static_cast<float>(code) + 0.5f); };
      const int near = choice.code[static_cast<size_t>(g)];
      float best_gain = -1e38f;
      int best = near;
      for (const int code : {near, near - 1, near + 1, near - 2, near + 2}) {
        if (code < 0 || code > most_code_) continue;
        const float gain = group_gain(g, scale_of(code));
        if (gain > best_gain) {
          best_gain = gain;
          best = code;
        }
      }
      choice.code[static_cast<size_t>(g)] = best;
      choice.gain += best_gain;
      double product = 0, norm = 0;
      for_entries(g, scale_of(best), [&](int vector, size_t variant, const Entry& entry) {
        choice.index[static_cast<size_t>(vector)] = entry.index;
        if (grids_.size() > 1) choice.down[static_cast<size_t>(vector)] = variant == 1;
        product += static_cast<double>(entry.product);
        norm += static_cast<double>(entry.norm);
      });
      choice.product[static_cast<size_t>(g)] = product;
      choice.norm[static_cast<size_t>(g)] = norm;
    }
  }

  const QuantizeKernels& k_ = quantize_kernels();
  const std::vector<SearchGrid>& grids_;
  int dims_, entries_, group_, groups_, shared_, most_code_;
  float factor_;
  std::vector<float> products_, norms_;  // (entries): of the vector at hand
  std::vector<Found> found_;             // (variants, vectors)
};

// Eight signs; with `even` their number is made even by turning the value that costs least.
uint8_t take_signs(const float* x, const float* w, bool even, float* magnitudes) {
  int signs = 0;
  for (int i = 0; i < 8; ++i) {
    magnitudes[i] = std::abs(x[i]);
    signs |= (x[i] < 0 ? 1 : 0) << i;
  }
  if (even && __builtin_popcount(static_cast<unsigned>(signs)) % 2 != 0) {
    int turned = 0;
    for (int i = 1; i < 8; ++i) {
      if (w[i] * x[i] * x[i] < w[turned] * x[turned] * x[turned]) turned = i;
    }
    signs ^= 1 << turned;
    magnitudes[turned] = -magnitudes[turned];
  }
  return static_cast<uint8_t>(signs);
}

uint8_t byte(int value) {
  return static_cast<uint8_t>(value);
}
uint32_t four_signs(const uint8_t* signs) {  // 4 x 7 bits
  uint32_t word = 0;
  for (int l = 0; l < 4; ++l) word |= static_cast<uint32_t>(signs[l] & 127) << (7 * l);
  return word;
}

void pack(const GridChoice& c, const uint8_t* signs, BlockIq2Xxs& b) {
  for (size_t g = 0; g < 8; ++g) {
    uint32_t words[2] = {0, four_signs(signs + 4 * g) | static_cast<uint32_t>(c.code[g]) << 28};
    for (size_t l = 0; l < 4; ++l) words[0] |= static_cast<uint32_t>(c.index[4 * g + l]) << (8 * l);
    std::memcpy(b.qs + 4 * g, words, sizeof words);
  }
}
void pack(const GridChoice& c, const uint8_t* signs, BlockIq2Xs& b) {
  for (size_t i = 0; i < 32; ++i) b.qs[i] = static_cast<uint16_t>(c.index[i] | (signs[i] & 127) << 9);
  for (size_t g = 0; g < 8; ++g) b.scales[g] = byte(c.code[2 * g] | c.code[2 * g + 1] << 4);
}
void pack(const GridChoice& c, const uint8_t* signs, BlockIq2S& b) {
  std::memcpy(b.signs, signs, sizeof b.signs);
  for (size_t i = 0; i < 32; ++i) {
    b.qs[i] = byte(c.index[i] & 255);
    b.qh[i / 4] = byte(b.qh[i / 4] | (c.index[i] >> 8) << (2 * (i % 4)));
  }
  for (size_t g = 0; g < 8; ++g) b.scales[g] = byte(c.code[2 * g] | c.code[2 * g + 1] << 4);
}
void pack(const GridChoice& c, const uint8_t* signs, BlockIq3Xxs& b) {
  for (size_t i = 0; i < 64; ++i) b.qs[i] = byte(c.index[i]);
  for (size_t g = 0; g < 8; ++g) {
    const uint32_t word = four_signs(signs + 4 * g) | static_cast<uint32_t>(c.code[g]) << 28;
    std::memcpy(b.scales_and_signs + 4 * g, &word, sizeof word);
  }
}
void pack(const GridChoice& c, const uint8_t* signs, BlockIq3S& b) {
  std::memcpy(b.signs, signs, sizeof b.signs);
  for (size_t i = 0; i < 64; ++i) {
    b.qs[i] = byte(c.index[i] & 255);
    b.qh[i / 8] = byte(b.qh[i / 8] | (c.index[i] >> 8) << (i % 8));
  }
  for (size_t g = 0; g < 4; ++g) b.scales[g] = byte(c.code[2 * g] | c.code[2 * g + 1] << 4);
}

void take_weights(const BlockSource& source, int64_t first, float* w) {
  if (source.importance == nullptr) {
    std::fill_n(w, 256, 1.0f);
  } else {
    std::copy_n(source.importance + first % source.cols, 256, w);
  }
}

template <class Block>
void quantize_magnitudes(const BlockSource& source, Block* out) {
  using Rule = GridRule<Block>;
  static const std::vector<SearchGrid> grids = {Rule::grid()};
  GridBlock search(grids, Rule::group, 1, Rule::most_code, Rule::factor);
  float x[256], w[256];
  uint8_t signs[32];
  for (int64_t i = 0; i < source.blocks; ++i) {
    take_weights(source, i * 256, w);
    for (int v = 0; v < 32; ++v) {
      signs[v] = take_signs(source.x + i * 256 + 8 * v, w + 8 * v, Rule::even_signs, x + 8 * v);
    }
    const GridChoice choice = search.search(x, w, kMagnitudeScales, Rule::largest);
    out[i] = {};
    out[i].d = finite_f16(choice.d);
    pack(choice, signs, out[i]);
  }
}

const std::vector<SearchGrid>& ternary_grids() {
  constexpr float kShift = 0.125f;
  static const std::vector<SearchGrid> grids = {search_grid(kIq1Grid, kShift),
                                                search_grid(kIq1Grid, -kShift)};
  return grids;
}

void quantize_ternary(const BlockSource& source, BlockIq1S* out) {
  GridBlock search(ternary_grids(), 32, 4, 7, 2);
  float w[256];
  for (int64_t i = 0; i < source.blocks; ++i) {
    take_weights(source, i * 256, w);
    const GridChoice c = search.search(source.x + i * 256, w, kTernaryScales, 1.125f);
    BlockIq1S& b = out[i];
    b = {};
    b.d = finite_f16(c.d);
    for (size_t v = 0; v < 32; ++v) {
      b.qs[v] = byte(c.index[v] & 255);
      b.qh[v / 4] = static_cast<uint16_t>(b.qh[v / 4] | (c.index[v] >> 8) << (3 * (v % 4)));
    }
    for (size_t g = 0; g < 8; ++g) {
      b.qh[g] = static_cast<uint16_t>(b.qh[g] | c.code[g] << 12 | (c.down[4 * g] ? 0x8000 : 0));
    }
  }
}

void quantize_ternary(const BlockSource& source, BlockIq1M* out) {
  GridBlock search(ternary_grids(), 16, 1, 7, 2);
  float w[256];
  for (int64_t i = 0; i < source.blocks; ++i) {
    take_weights(source, i * 256, w);
    const GridChoice c = search.search(source.x + i * 256, w, kTernaryScales, 1.125f);
    BlockIq1M& b = out[i];
    b = {};
    for (size_t v = 0; v < 32; ++v) {
      b.qs[v] = byte(c.index[v] & 255);
      b.qh[v / 2] = byte(b.qh[v / 2] | (c.index[v] >> 8 | (c.down[v] ? 8 : 0)) << (4 * (v % 2)));
    }
    const uint32_t d = finite_f16(c.d).bits;
    uint16_t words[4];
    for (size_t part = 0; part < 4; ++part) {
      uint32_t word = (d >> (4 * part) & 15) << 12;
      for (size_t g = 0; g < 4; ++g) word |= static_cast<uint32_t>(c.code[4 * part + g]) << (3 * g);
      words[part] = static_cast<uint16_t>(word);
    }
    std::memcpy(b.scales, words, sizeof words);
  }
}

}  // namespace

void quantize_grids(BlockType type, const BlockSource& source, void* out) {
  switch (type) {
    case BlockType::iq2_xxs:
      return quantize_magnitudes(source, static_cast<BlockIq2Xxs*>(out));
    case BlockType::iq2_xs:
      return quantize_magnitudes(source, static_cast<BlockIq2Xs*>(out));
    case BlockType::iq2_s:
      return quantize_magnitudes(source, static_cast<BlockIq2S*>(out));
    case BlockType::iq3_xxs:
      return quantize_magnitudes(source, static_cast<BlockIq3Xxs*>(out));
    case BlockType::iq3_s:
      return quantize_magnitudes(source, static_cast<BlockIq3S*>(out));
    case BlockType::iq1_s:
      return quantize_ternary(source, static_cast<BlockIq1S*>(out));
    default:
      return quantize_ternary(source, static_cast<BlockIq1M*>(out));
  }
}

}  // namespace qkv
