// Activations rounded to bytes, eight groups at a time (AVX-512 VNNI): the same bits as round_activations().

// The largest of the 16 lanes of each of eight registers.
HWY_INLINE __m256 largest_of_eight(const __m512 (&v)[8]) {
  __m128 four[2];
  for (int i = 0; i < 2; ++i) {
    const __m512 a = _mm512_max_ps(_mm512_unpacklo_ps(v[4 * i], v[4 * i + 1]), _mm512_unpackhi_ps(v[4 * i], v[4 * i + 1]));
    const __m512 b = _mm512_max_ps(_mm512_unpacklo_ps(v[4 * i + 2], v[4 * i + 3]), _mm512_unpackhi_ps(v[4 * i + 2], v[4 * i + 3]));
    const __m512 low = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
    const __m512 high = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
    const __m512 of_quarters = _mm512_max_ps(low, high);
    const __m256 half = _mm256_max_ps(_mm512_castps512_ps256(of_quarters), _mm512_extractf32x8_ps(of_quarters, 1));
    four[i] = _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  }
  return _mm256_insertf128_ps(_mm256_castps128_ps256(four[0]), four[1], 1);
}

// Sums of 16 neighbouring codes of 256.
HWY_INLINE __m512i sums_of_16(const int8_t* codes) {
  __m512i s[4];
  for (int j = 0; j < 4; ++j) {
    s[j] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(1), _mm512_loadu_si512(codes + 64 * j));
    s[j] = _mm512_add_epi32(s[j], _mm512_shuffle_epi32(s[j], _MM_PERM_CDAB));
    s[j] = _mm512_add_epi32(s[j], _mm512_shuffle_epi32(s[j], _MM_PERM_BADC));
  }
  __m512i by_quarter = _mm512_mask_mov_epi32(s[0], 0x2222, s[1]);
  by_quarter = _mm512_mask_mov_epi32(by_quarter, 0x4444, s[2]);
  by_quarter = _mm512_mask_mov_epi32(by_quarter, 0x8888, s[3]);
  return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), by_quarter);
}

void round_activations_wide(const float* x, int64_t n, int8_t* codes, float* scales, float* sums16, float* sums32, int32_t* code_sums16) {
  constexpr int kNotFinite = 0x99;  // either NaN, either infinity
  int64_t first = 0;
  for (; first + 256 <= n; first += 256) {
    __m512 in[8][2], magnitudes[8];
    __mmask8 bad = 0;
    for (int g = 0; g < 8; ++g) {
      for (int i = 0; i < 2; ++i) in[g][i] = _mm512_loadu_ps(x + first + 32 * g + 16 * i);
      magnitudes[g] = _mm512_max_ps(_mm512_abs_ps(in[g][0]), _mm512_abs_ps(in[g][1]));
      const __mmask16 some = _mm512_fpclass_ps_mask(in[g][0], kNotFinite) | _mm512_fpclass_ps_mask(in[g][1], kNotFinite);
      bad = static_cast<__mmask8>(bad | (some != 0) << g);
    }
    __m256 scale = _mm256_div_ps(largest_of_eight(magnitudes), _mm256_set1_ps(127.0f));
    scale = _mm256_mask_mov_ps(scale, bad, _mm256_set1_ps(__builtin_nanf("")));
    const __mmask8 counts = _mm256_cmp_ps_mask(scale, _mm256_set1_ps(kLeastActivationScale), _CMP_GE_OQ);
    const __m512 inverses = _mm512_castps256_ps512(_mm256_div_ps(_mm256_set1_ps(1.0f), scale));
    for (int g = 0; g < 8; ++g) {
      const __m512 inverse = _mm512_permutexvar_ps(_mm512_set1_epi32(g), inverses);
      const auto lanes = static_cast<__mmask16>((counts >> g & 1) != 0 ? 0xFFFF : 0);
      for (int i = 0; i < 2; ++i) {
        const __m512i q = _mm512_maskz_cvtps_epi32(lanes, _mm512_mul_ps(in[g][i], inverse));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + first + 32 * g + 16 * i), _mm512_cvtsepi32_epi8(q));
      }
    }
    _mm256_storeu_ps(scales + first / 32, scale);
    const __m512i of_16 = sums_of_16(codes + first);
    _mm512_storeu_si512(code_sums16 + first / 16, of_16);
    const __m512i twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    const __m512 scale16 = _mm512_permutexvar_ps(twice, _mm512_castps256_ps512(scale));
    _mm512_storeu_ps(sums16 + first / 16, _mm512_mul_ps(scale16, _mm512_cvtepi32_ps(of_16)));
    const __m512i of_32 = _mm512_add_epi32(of_16, _mm512_shuffle_epi32(of_16, _MM_PERM_CDAB));
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 0, 0, 0, 0, 0, 0, 0, 0);
    const __m256i sums = _mm512_castsi512_si256(_mm512_permutexvar_epi32(even, of_32));
    _mm256_storeu_ps(sums32 + first / 32, _mm256_mul_ps(scale, _mm256_cvtepi32_ps(sums)));
  }
  round_activations(x + first, n - first, codes + first, scales + first / 32, sums16 + first / 16, sums32 + first / 32,
                    code_sums16 + first / 16);
}
