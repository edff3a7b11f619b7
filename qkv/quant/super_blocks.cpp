// Blocks of 256 values whose groups have scales that are quantized themselves, as multiples of one or two f16
// numbers.
//
// Every group is fitted by itself first. The block's number follows from the largest scale; each group then
// takes the best of the whole multiples near its own; and from all codes together the block's number is
// solved again. A round is kept where it lowers the block's error. In the end the block is made as long as
// its values are (group_batch.h).
#include "qkv/quant/block_searches.h"
#include "qkv/quant/pack_blocks.h"

namespace qkv {
namespace {

template <class Block>
struct AffineRule;
template <>
struct AffineRule<BlockQ2K> {
  static constexpr int n = 16, most = 3, most_scale = 15;
  static constexpr SearchSteps steps = {-0.9f, 0.1f, 19};
};
template <>
struct AffineRule<BlockQ4K> {
  static constexpr int n = 32, most = 15, most_scale = 63;
  static constexpr SearchSteps steps = {-0.9f, 0.225f, 9};
};
template <>
struct AffineRule<BlockQ5K> {
  static constexpr int n = 32, most = 31, most_scale = 63;
  static constexpr SearchSteps steps = {-0.9f, 0.225f, 9};
};

template <class Block>
struct ScaledRule;
template <>
struct ScaledRule<BlockQ3K> {
  static constexpr int n = 16, least_scale = -32, most_scale = 31;
  static constexpr Levels levels = {Levels::Kind::linear, -4, 3};
  static constexpr SearchSteps steps = {-0.9f, 0.1f, 19};
};
template <>
struct ScaledRule<BlockQ6K> {
  static constexpr int n = 16, least_scale = -128, most_scale = 127;
  static constexpr Levels levels = {Levels::Kind::linear, -32, 31};
  static constexpr SearchSteps steps = {-0.9f, 0.4f, 5};
};
template <>
struct ScaledRule<BlockIq4Xs> {
  static constexpr int n = 32, least_scale = -32, most_scale = 31;
  static constexpr Levels levels = {Levels::Kind::iq4, 0, 0};
  static constexpr SearchSteps steps = {-24, 3, 14, true};
};

// What a batch of blocks has at one moment: the blocks' numbers, the groups' multiples of them, and the
// errors.
struct Choice {
  std::array<float, kGroupLanes> d{}, dmin{};     // of each group's block
  std::array<int, kGroupLanes> scale{}, least{};  // multiples
  std::array<float, kGroupLanes> error{};
};

template <int groups>
float block_error(const Choice& choice, size_t first) {
  float sum = 0;
  for (size_t g = first; g < first + groups; ++g) sum += choice.error[g];
  return sum;
}

// Takes over the blocks in which `next` is better.
template <int groups>
void keep_better(Choice& best, const Choice& next) {
  for (size_t first = 0; first < kGroupLanes; first += groups) {
    if (!(block_error<groups>(next, first) < block_error<groups>(best, first))) continue;
    for (size_t g = first; g < first + groups; ++g) {
      best.d[g] = next.d[g];
      best.dmin[g] = next.dmin[g];
      best.scale[g] = next.scale[g];
      best.least[g] = next.least[g];
      best.error[g] = next.error[g];
    }
  }
}

int multiple(float value, float unit, int least, int most) {
  return unit != 0
             ? nearest_int(std::clamp(value / unit, static_cast<float>(least), static_cast<float>(most)))
             : 0;
}

// ---- scale and offset ----

template <class Block>
class AffineSearch {
  using Rule = AffineRule<Block>;

 public:
  static constexpr int groups = static_cast<int>(Block::length) / Rule::n;
  explicit AffineSearch(const BlockSource& source) : batch_(source, Rule::n, groups) {}

  void load(int64_t first, int count) { batch_.load(first * Block::length, count * groups); }

  // The numbers of the blocks, with their codes in lanes.
  Choice choose() {
    Choice best = search();
    encode(best, &sums_);
    for (size_t first = 0; first < kGroupLanes; first += groups) {
      double values = 0, products = 0;
      for (size_t g = first; g < first + groups; ++g) {
        values += static_cast<double>(sums_.xx[g]);
        products += static_cast<double>(best.d[g]) * best.scale[g] * static_cast<double>(sums_.xl[g]) -
                    static_cast<double>(best.dmin[g]) * best.least[g] * static_cast<double>(sums_.x[g]);
      }
      const double factor = lengthening(values, products);
      best.d[first] = rounded_to_f16(static_cast<float>(factor * static_cast<double>(best.d[first])));
      best.dmin[first] = rounded_to_f16(static_cast<float>(factor * static_cast<double>(best.dmin[first])));
    }
    return best;
  }

  void write(const Choice& choice, int first, Block& block) {
    int8_t codes[Block::length];
    block = {};
    block.d = finite_f16(choice.d[static_cast<size_t>(first)]);
    block.dmin = finite_f16(choice.dmin[static_cast<size_t>(first)]);
    pack_scales(&choice.scale[static_cast<size_t>(first)], &choice.least[static_cast<size_t>(first)], block);
    take_codes(lanes_.data(), Rule::n, first, groups, codes);
    pack_codes(codes, block);
  }

 private:
  Choice search() {
    k_.fit_affine(batch_.x(), batch_.w(), Rule::n, Rule::most, true, Rule::steps, wanted_scale_.data(),
                  wanted_offset_.data());
    Choice best;
    for (size_t first = 0; first < kGroupLanes; first += groups) {
      float largest = 0, lowest = 0;
      for (size_t g = first; g < first + groups; ++g) {
        largest = std::max(largest, wanted_scale_[g]);
        lowest = std::min(lowest, wanted_offset_[g]);
      }
      set_units(best, first, largest / static_cast<float>(Rule::most_scale),
                -lowest / static_cast<float>(Rule::most_scale));
    }
    choose_multiples(best, 9);
    Choice next = best;
    encode(best, &sums_);
    for (size_t first = 0; first < kGroupLanes; first += groups) solve_units(next, first);
    choose_multiples(next, 5);
    keep_better<groups>(best, next);
    return best;
  }

  void encode(const Choice& choice, GroupSums* sums) {
    GroupFloats scales, offsets;
    for (size_t g = 0; g < kGroupLanes; ++g) {
      scales[g] = choice.d[g] * static_cast<float>(choice.scale[g]);
      offsets[g] = -(choice.dmin[g] * static_cast<float>(choice.least[g]));
    }
    k_.encode_affine(batch_.x(), batch_.w(), Rule::n, Rule::most, scales.data(), offsets.data(),
                     lanes_.data(), sums);
  }

  void set_units(Choice& choice, size_t first, float d, float dmin) {
    d = rounded_to_f16(d);
    dmin = rounded_to_f16(dmin);
    for (size_t g = first; g < first + groups; ++g) {
      choice.d[g] = d;
      choice.dmin[g] = dmin;
      choice.scale[g] = multiple(wanted_scale_[g], choice.d[g], 0, Rule::most_scale);
      choice.least[g] = multiple(-wanted_offset_[g], choice.dmin[g], 0, Rule::most_scale);
    }
  }

  // The two numbers of a block with the least error for the codes that encode() left.
  void solve_units(Choice& choice, size_t first) {
    double ss = 0, sm = 0, mm = 0, xs = 0, xm = 0;
    for (size_t g = first; g < first + groups; ++g) {
      const double s = choice.scale[g], m = choice.least[g];
      ss += s * s * static_cast<double>(sums_.ll[g]);
      sm -= s * m * static_cast<double>(sums_.l[g]);
      mm += m * m * static_cast<double>(sums_.one[g]);
      xs += s * static_cast<double>(sums_.xl[g]);
      xm -= m * static_cast<double>(sums_.x[g]);
    }
    const double determinant = ss * mm - sm * sm;
    double d = 0, dmin = 0;
    if (determinant > 1e-9 * ss * mm) {
      d = (xs * mm - xm * sm) / determinant;
      dmin = (xm * ss - xs * sm) / determinant;
    } else if (ss > 0) {
      d = xs / ss;
    } else if (mm > 0) {
      dmin = xm / mm;
    }
    if (!(d >= 0 && dmin >= 0)) return;
    std::fill_n(choice.d.begin() + static_cast<std::ptrdiff_t>(first), groups,
                rounded_to_f16(static_cast<float>(d)));
    std::fill_n(choice.dmin.begin() + static_cast<std::ptrdiff_t>(first), groups,
                rounded_to_f16(static_cast<float>(dmin)));
  }

  // Every group: the best of the multiples at most one off; 5 candidates: of one of the two, 9: of both.
  void choose_multiples(Choice& choice, int candidates) {
    constexpr int kMost = 9;
    constexpr int kByScale[kMost] = {0, -1, 1, 0, 0, -1, -1, 1, 1},
                  kByLeast[kMost] = {0, 0, 0, -1, 1, -1, 1, -1, 1};
    std::array<float, kMost * kGroupLanes> scales, offsets;
    std::array<std::array<int, kGroupLanes>, kMost> scale, least;
    for (size_t c = 0; c < static_cast<size_t>(candidates); ++c) {
      const int by_scale = kByScale[c], by_least = kByLeast[c];
      for (size_t g = 0; g < kGroupLanes; ++g) {
        scale[c][g] = std::clamp(choice.scale[g] + by_scale, 0, Rule::most_scale);
        least[c][g] = std::clamp(choice.least[g] + by_least, 0, Rule::most_scale);
        scales[c * kGroupLanes + g] = choice.d[g] * static_cast<float>(scale[c][g]);
        offsets[c * kGroupLanes + g] = -(choice.dmin[g] * static_cast<float>(least[c][g]));
      }
    }
    GroupInts chosen;
    k_.pick_affine(batch_.x(), batch_.w(), Rule::n, Rule::most, candidates, scales.data(), offsets.data(),
                   chosen.data(), choice.error.data());
    for (size_t g = 0; g < kGroupLanes; ++g) {
      choice.scale[g] = scale[static_cast<size_t>(chosen[g])][g];
      choice.least[g] = least[static_cast<size_t>(chosen[g])][g];
    }
  }

  const QuantizeKernels& k_ = quantize_kernels();
  GroupBatch batch_;
  GroupFloats wanted_scale_, wanted_offset_;
  GroupSums sums_;
  std::array<int8_t, static_cast<size_t>(Rule::n) * kGroupLanes> lanes_;
};

// ---- scale alone ----

template <class Block>
class ScaledSearch {
  using Rule = ScaledRule<Block>;

 public:
  static constexpr int groups = static_cast<int>(Block::length) / Rule::n;
  explicit ScaledSearch(const BlockSource& source) : batch_(source, Rule::n, groups) {}

  void load(int64_t first, int count) { batch_.load(first * Block::length, count * groups); }

  // The numbers of the blocks, with their codes in lanes.
  Choice choose() {
    Choice best = search();
    encode(best, &sums_);
    for (size_t first = 0; first < kGroupLanes; first += groups) {
      double values = 0, products = 0;
      for (size_t g = first; g < first + groups; ++g) {
        values += static_cast<double>(sums_.xx[g]);
        products += static_cast<double>(best.d[g]) * best.scale[g] * static_cast<double>(sums_.xl[g]);
      }
      best.d[first] = rounded_to_f16(
          static_cast<float>(lengthening(values, products) * static_cast<double>(best.d[first])));
    }
    return best;
  }

  void write(const Choice& choice, int first, Block& block) {
    int8_t codes[Block::length];
    block = {};
    block.d = finite_f16(choice.d[static_cast<size_t>(first)]);
    pack_scales(&choice.scale[static_cast<size_t>(first)], block);
    take_codes(lanes_.data(), Rule::n, first, groups, codes);
    pack_codes(codes, block);
  }

 private:
  Choice search() {
    k_.fit_scale(batch_.x(), batch_.w(), Rule::n, Rule::levels, Rule::steps, wanted_.data());
    Choice best;
    for (size_t first = 0; first < kGroupLanes; first += groups) {
      float extreme = 0;
      for (size_t g = first; g < first + groups; ++g) {
        if (std::abs(wanted_[g]) > std::abs(extreme)) extreme = wanted_[g];
      }
      const float d = rounded_to_f16(extreme / static_cast<float>(Rule::least_scale));
      for (size_t g = first; g < first + groups; ++g) {
        best.d[g] = d;
        best.scale[g] = multiple(wanted_[g], d, Rule::least_scale, Rule::most_scale);
      }
    }
    choose_multiples(best, 3);
    Choice next = best;
    encode(best, &sums_);
    for (size_t first = 0; first < kGroupLanes; first += groups) {
      double squares = 0, products = 0;
      for (size_t g = first; g < first + groups; ++g) {
        const double s = best.scale[g];
        squares += s * s * static_cast<double>(sums_.ll[g]);
        products += s * static_cast<double>(sums_.xl[g]);
      }
      if (!(squares > 0)) continue;
      std::fill_n(next.d.begin() + static_cast<std::ptrdiff_t>(first), groups,
                  rounded_to_f16(static_cast<float>(products / squares)));
    }
    // Multiples of eight bits are as good as they were.
    choose_multiples(next, Rule::most_scale > 100 ? 1 : 3);
    keep_better<groups>(best, next);
    return best;
  }

  void encode(const Choice& choice, GroupSums* sums) {
    GroupFloats scales;
    for (size_t g = 0; g < kGroupLanes; ++g) scales[g] = choice.d[g] * static_cast<float>(choice.scale[g]);
    k_.encode_scale(batch_.x(), batch_.w(), Rule::n, Rule::levels, scales.data(), lanes_.data(), sums);
  }

  // Every group: the best of its multiple alone, or of the multiples at most one off (3 candidates).
  void choose_multiples(Choice& choice, int candidates) {
    constexpr int kSteps[] = {0, -1, 1}, kMost = 3;
    std::array<float, kMost * kGroupLanes> scales;
    std::array<std::array<int, kGroupLanes>, kMost> scale;
    for (size_t c = 0; c < static_cast<size_t>(candidates); ++c) {
      for (size_t g = 0; g < kGroupLanes; ++g) {
        scale[c][g] = std::clamp(choice.scale[g] + kSteps[c], Rule::least_scale, Rule::most_scale);
        scales[c * kGroupLanes + g] = choice.d[g] * static_cast<float>(scale[c][g]);
      }
    }
    GroupInts chosen;
    k_.pick_scale(batch_.x(), batch_.w(), Rule::n, Rule::levels, candidates, scales.data(), chosen.data(),
                  choice.error.data());
    for (size_t g = 0; g < kGroupLanes; ++g) choice.scale[g] = scale[static_cast<size_t>(chosen[g])][g];
  }

  const QuantizeKernels& k_ = quantize_kernels();
  GroupBatch batch_;
  GroupFloats wanted_;
  GroupSums sums_;
  std::array<int8_t, static_cast<size_t>(Rule::n) * kGroupLanes> lanes_;
};

// As many whole blocks at a time as there are lanes for their groups.
template <class Search, class Block>
void search_blocks(const BlockSource& source, Block* out) {
  constexpr int kBlocks = kGroupLanes / Search::groups;
  Search search(source);
  for (int64_t first = 0; first < source.blocks; first += kBlocks) {
    const int count = static_cast<int>(std::min<int64_t>(kBlocks, source.blocks - first));
    search.load(first, count);
    const Choice best = search.choose();
    for (int b = 0; b < count; ++b) search.write(best, b * Search::groups, out[first + b]);
  }
}

}  // namespace

void quantize_super_blocks(BlockType type, const BlockSource& source, void* out) {
  switch (type) {
    case BlockType::q2_k:
      return search_blocks<AffineSearch<BlockQ2K>>(source, static_cast<BlockQ2K*>(out));
    case BlockType::q4_k:
      return search_blocks<AffineSearch<BlockQ4K>>(source, static_cast<BlockQ4K*>(out));
    case BlockType::q5_k:
      return search_blocks<AffineSearch<BlockQ5K>>(source, static_cast<BlockQ5K*>(out));
    case BlockType::q3_k:
      return search_blocks<ScaledSearch<BlockQ3K>>(source, static_cast<BlockQ3K*>(out));
    case BlockType::q6_k:
      return search_blocks<ScaledSearch<BlockQ6K>>(source, static_cast<BlockQ6K*>(out));
    default:
      return search_blocks<ScaledSearch<BlockIq4Xs>>(source, static_cast<BlockIq4Xs*>(out));
  }
}

}  // namespace qkv
