// Blocks whose codes are indices into codebooks of 4 or 8 values: iq2_*, iq3_*, iq1_*.
//
// The error of a vector x at a scale s with entry g is sum w x^2 - (2 s sum w x g - s^2 sum w g^2). Neither
// sum depends on the scale, so both are computed once per vector for all entries, and every scale after that
// costs one pass over them: the search for the nearest entry is exact, also with weights. A group tries a
// range of scales; the block's number and the groups' multiples of it then follow as in super_blocks.cpp.
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
constexpr std::array<float, 14> kMagnitudeScales = {0.55f, 0.65f, 0.72f, 0.78f, 0.84f, 0.9f,  0.95f,
                                                    1.0f,  1.05f, 1.1f,  1.17f, 1.25f, 1.35f, 1.5f};
constexpr std::array<float, 7> kTernaryScales = {0.25f, 0.32f, 0.39f, 0.47f, 0.57f, 0.72f, 0.95f};

// What a block writes, group by group and vector by vector.
struct GridChoice {
  float d = 0;
  float gain = 0;                            // of all groups
  std::array<int, 16> code{};                // of groups
  std::array<bool, 32> down{};               // iq1: of vectors, which of the two shifts
  std::array<int, 64> index{};               // of vectors
  std::array<double, 16> product{}, norm{};  // of groups: sums over the vectors' entries
};

// One block. `variants` grids compete within each `shared` vectors (iq1's shifts). Products with all entries
// are made for a group at a time and stay in the nearer caches.
class GridBlock {
 public:
  GridBlock(const std::vector<SearchGrid>& grids, int group, int shared, int most_code, float factor)
      : grids_(grids),
        dims_(grids[0].dims),
        entries_(grids[0].entries),
        variants_(static_cast<int>(grids.size())),
        group_(group),
        vectors_(group / dims_),
        groups_(256 / group),
        shared_(shared),
        most_code_(most_code),
        factor_(factor),
        products_(static_cast<size_t>(variants_) * static_cast<size_t>(vectors_) *
                  static_cast<size_t>(entries_)),
        norms_(products_.size()) {}

  // x (256) as magnitudes or plain values, w (256).
  template <size_t count>
  GridChoice search(const float* x, const float* w, const std::array<float, count>& parts, float largest) {
    std::array<float, 16> wanted{};
    float most = 0;
    for (int g = 0; g < groups_; ++g) {
      float extreme = 0;
      for (int i = 0; i < group_; ++i) extreme = std::max(extreme, std::abs(x[g * group_ + i]));
      prepare(x, w, g);
      wanted[static_cast<size_t>(g)] = best_scale(extreme / largest, parts);
      most = std::max(most, wanted[static_cast<size_t>(g)]);
    }
    GridChoice best;
    best.d = rounded_to_f16(most / (factor_ * (static_cast<float>(most_code_) + 0.5f)));
    if (best.d == 0) return best;
    for (int g = 0; g < groups_; ++g) {
      const float code = wanted[static_cast<size_t>(g)] / (best.d * factor_) - 0.5f;
      best.code[static_cast<size_t>(g)] = nearest_int(std::clamp(code, 0.0f, static_cast<float>(most_code_)));
    }
    choose_codes(best, x, w);
    // The block's number that suits these codes and entries.
    double product = 0, norm = 0;
    for (size_t g = 0; g < static_cast<size_t>(groups_); ++g) {
      const double multiple = static_cast<double>(factor_) * (best.code[g] + 0.5);
      product += multiple * best.product[g];
      norm += multiple * multiple * best.norm[g];
    }
    GridChoice next = best;
    next.d = norm > 0 ? rounded_to_f16(static_cast<float>(product / norm)) : 0.0f;
    if (!(next.d > 0) || next.d == best.d) return best;
    choose_codes(next, x, w);
    return next.gain > best.gain ? next : best;
  }

 private:
  size_t place(int variant, int vector) const {
    return (static_cast<size_t>(variant) * static_cast<size_t>(vectors_) + static_cast<size_t>(vector)) *
           static_cast<size_t>(entries_);
  }

  void prepare(const float* x, const float* w, int group) {
    float wx[32];
    for (int i = 0; i < group_; ++i) wx[i] = w[group * group_ + i] * x[group * group_ + i];
    for (int v = 0; v < variants_; ++v) {
      const SearchGrid& grid = grids_[static_cast<size_t>(v)];
      for (int i = 0; i < vectors_; ++i) {
        k_.grid_products(wx + i * dims_, w + group * group_ + i * dims_, grid.values.data(),
                         grid.squares.data(), dims_, entries_, &products_[place(v, i)], &norms_[place(v, i)]);
      }
    }
  }

  // By how much `shared_` vectors from `first` on lower the error at a scale, and with which variant.
  float gain_of(int first, float scale, int& variant) const {
    float best = 0;
    for (int v = 0; v < variants_; ++v) {
      float gain = 0;
      for (int i = first; i < first + shared_; ++i) {
        gain += k_.grid_gain(&products_[place(v, i)], &norms_[place(v, i)], entries_, scale);
      }
      if (v == 0 || gain > best) {
        best = gain;
        variant = v;
      }
    }
    return best;
  }
  float group_gain(float scale) const {
    float gain = 0;
    int variant = 0;
    for (int i = 0; i < vectors_; i += shared_) gain += gain_of(i, scale, variant);
    return gain;
  }

  // found(vector, variant, entry): the best entry of every vector of the group at a scale.
  template <class Found>
  void for_entries(float scale, Found&& found) const {
    for (int first = 0; first < vectors_; first += shared_) {
      int variant = 0;
      if (variants_ > 1) gain_of(first, scale, variant);
      for (int i = first; i < first + shared_; ++i) {
        found(i, variant,
              k_.grid_best(&products_[place(variant, i)], &norms_[place(variant, i)], entries_, scale));
      }
    }
  }

  template <size_t count>
  float best_scale(float unit, const std::array<float, count>& parts) const {
    if (!(unit > 1e-15f)) return 0;
    float best = 0, best_gain = 0;
    for (const float part : parts) {
      const float gain = group_gain(unit * part);
      if (gain > best_gain) {
        best_gain = gain;
        best = unit * part;
      }
    }
    if (best == 0) return 0;
    double product = 0, norm = 0;
    for_entries(best, [&](int vector, int variant, int entry) {
      product += static_cast<double>(products_[place(variant, vector) + static_cast<size_t>(entry)]);
      norm += static_cast<double>(norms_[place(variant, vector) + static_cast<size_t>(entry)]);
    });
    return norm > 0 && product > 0 ? static_cast<float>(product / norm) : best;
  }

  // Of every group the best multiple at most one off, with its entries.
  void choose_codes(GridChoice& choice, const float* x, const float* w) {
    choice.gain = 0;
    for (int g = 0; g < groups_; ++g) {
      prepare(x, w, g);
      const auto scale_of = [&](int code) { return choice.d * factor_ * (static_cast<float>(code) + 0.5f); };
      const int near = choice.code[static_cast<size_t>(g)];
      float best_gain = -1e38f;
      int best = near;
      for (const int code : {near, near - 1, near + 1}) {
        if (code < 0 || code > most_code_) continue;
        const float gain = group_gain(scale_of(code));
        if (gain > best_gain) {
          best_gain = gain;
          best = code;
        }
      }
      choice.code[static_cast<size_t>(g)] = best;
      choice.gain += best_gain;
      double product = 0, norm = 0;
      for_entries(scale_of(best), [&](int vector, int variant, int entry) {
        const auto at = static_cast<size_t>(g * vectors_ + vector);
        choice.index[at] = entry;
        if (variants_ > 1) choice.down[at] = variant == 1;
        product += static_cast<double>(products_[place(variant, vector) + static_cast<size_t>(entry)]);
        norm += static_cast<double>(norms_[place(variant, vector) + static_cast<size_t>(entry)]);
      });
      choice.product[static_cast<size_t>(g)] = product;
      choice.norm[static_cast<size_t>(g)] = norm;
    }
  }

  const QuantizeKernels& k_ = quantize_kernels();
  const std::vector<SearchGrid>& grids_;
  int dims_, entries_, variants_, group_, vectors_, groups_, shared_, most_code_;
  float factor_;
  std::vector<float> products_, norms_;  // (variants, vectors of a group, entries)
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
  block_weights(source.x + first, 256,
                source.importance == nullptr ? nullptr : source.importance + first % source.cols, w);
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
