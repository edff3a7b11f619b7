// Codes into blocks: 32 or 256 codes of a block in the order of their values, as the search left them
// (levels, not indices).
#pragma once

#include <cstdint>

#include "qkv/kernels/blocks.h"

namespace qkv {

// Levels -8 ... 7, 0 ... 15, -16 ... 15, 0 ... 31, -127 ... 127, and members of kIq4Values and kMxfp4Values.
void pack_codes(const int8_t* codes, BlockQ4_0& block);
void pack_codes(const int8_t* codes, BlockQ4_1& block);
void pack_codes(const int8_t* codes, BlockQ5_0& block);
void pack_codes(const int8_t* codes, BlockQ5_1& block);
void pack_codes(const int8_t* codes, BlockQ8_0& block);
void pack_codes(const int8_t* codes, BlockIq4Nl& block);
void pack_codes(const int8_t* codes, BlockMxfp4& block);
// Levels -1, 0, 1.
void pack_codes(const int8_t* codes, BlockTq1_0& block);
void pack_codes(const int8_t* codes, BlockTq2_0& block);
// Levels 0 ... 3, -4 ... 3, 0 ... 15, 0 ... 31, -32 ... 31, members of kIq4Values.
void pack_codes(const int8_t* codes, BlockQ2K& block);
void pack_codes(const int8_t* codes, BlockQ3K& block);
void pack_codes(const int8_t* codes, BlockQ4K& block);
void pack_codes(const int8_t* codes, BlockQ5K& block);
void pack_codes(const int8_t* codes, BlockQ6K& block);
void pack_codes(const int8_t* codes, BlockIq4Xs& block);

// The group's quantized scale and minimum, in their ranges: 0 ... 15 both; 0 ... 63 both.
void pack_scales(const int* scales, const int* minimums, BlockQ2K& block);
void pack_scales(const int* scales, const int* minimums, BlockQ4K& block);
void pack_scales(const int* scales, const int* minimums, BlockQ5K& block);
// Scales -32 ... 31, -128 ... 127, -32 ... 31.
void pack_scales(const int* scales, BlockQ3K& block);
void pack_scales(const int* scales, BlockQ6K& block);
void pack_scales(const int* scales, BlockIq4Xs& block);

}  // namespace qkv
