// Vectors of 32 values of 16 bits, AVX-512 F, BW, VL, DQ; see kernels_vector.hpp for what each
// operation must do.
#pragma once
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "prep/simd_ssse3.hpp"

namespace coordl {
namespace {

struct Avx512 : Ssse3Tile {
  using I = __m512i;
  static constexpr int kLanes = 32;

  static I load(const void* from) { return _mm512_loadu_si512(from); }
  static void store(void* to, I x) { _mm512_storeu_si512(to, x); }
  static I zero() { return _mm512_setzero_si512(); }
  static I set16(int x) { return _mm512_set1_epi16(static_cast<short>(x)); }
  static I set32(int x) { return _mm512_set1_epi32(x); }
  static I add16(I a, I b) { return _mm512_add_epi16(a, b); }
  static I sub16(I a, I b) { return _mm512_sub_epi16(a, b); }
  static I mullo16(I a, I b) { return _mm512_mullo_epi16(a, b); }
  static I mulhi16(I a, I b) { return _mm512_mulhi_epi16(a, b); }
  static I mulhi_u16(I a, I b) { return _mm512_mulhi_epu16(a, b); }
  template <int n> static I sra16(I a) { return _mm512_srai_epi16(a, n); }
  template <int n> static I srl16(I a) { return _mm512_srli_epi16(a, n); }
  static I madd16(I a, I b) { return _mm512_madd_epi16(a, b); }
  static I add32(I a, I b) { return _mm512_add_epi32(a, b); }
  static I sub32(I a, I b) { return _mm512_sub_epi32(a, b); }
  template <int n> static I sra32(I a) { return _mm512_srai_epi32(a, n); }
  static I packs32(I a, I b) { return _mm512_packs_epi32(a, b); }
  static I packs16(I a, I b) { return _mm512_packs_epi16(a, b); }
  static I packus16(I a, I b) { return _mm512_packus_epi16(a, b); }
  static I xor_(I a, I b) { return _mm512_xor_si512(a, b); }
  static I or_(I a, I b) { return _mm512_or_si512(a, b); }
  static I and_(I a, I b) { return _mm512_and_si512(a, b); }
  static bool any(I a) { return _mm512_test_epi32_mask(a, a) != 0; }
  static I lo8(I a, I b) { return _mm512_unpacklo_epi8(a, b); }
  static I hi8(I a, I b) { return _mm512_unpackhi_epi8(a, b); }
  static I lo16(I a, I b) { return _mm512_unpacklo_epi16(a, b); }
  static I hi16(I a, I b) { return _mm512_unpackhi_epi16(a, b); }
  static I lo32(I a, I b) { return _mm512_unpacklo_epi32(a, b); }
  static I hi32(I a, I b) { return _mm512_unpackhi_epi32(a, b); }
  static I lo64(I a, I b) { return _mm512_unpacklo_epi64(a, b); }
  static I hi64(I a, I b) { return _mm512_unpackhi_epi64(a, b); }

  static I widen(const std::uint8_t* from) {
    return _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  }
  static I repeat_part(const std::uint16_t* from) { return _mm512_broadcast_i32x4(load_tile(from)); }
  template <class T>
  static I gather_parts(const T* from, std::size_t step) {
    I x = _mm512_castsi128_si512(load_tile(from));
    x = _mm512_inserti32x4(x, load_tile(from + step), 1);
    x = _mm512_inserti32x4(x, load_tile(from + 2 * step), 2);
    return _mm512_inserti32x4(x, load_tile(from + 3 * step), 3);
  }
  template <int kStep, class T>
  static I gather_parts(const T* from) { return gather_parts(from, kStep); }
  static Tile part(I x, int which) {
    switch (which) {
      case 0: return _mm512_castsi512_si128(x);
      case 1: return _mm512_extracti32x4_epi32(x, 1);
      case 2: return _mm512_extracti32x4_epi32(x, 2);
      default: return _mm512_extracti32x4_epi32(x, 3);
    }
  }
  // Each part holds 8 bytes of one row, then 8 of the next.
  static void store_row_pair(I x, std::uint8_t* first, std::uint8_t* second) {
    x = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), x);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(first), _mm512_castsi512_si256(x));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(second), _mm512_extracti64x4_epi64(x, 1));
  }
  // What was unpacked low and high from one vector of bytes, in order again.
  static void store_halves(I low, I high, std::uint16_t* to) {
    const I first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
    const I second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    store(to, _mm512_permutex2var_epi64(low, first, high));
    store(to + 32, _mm512_permutex2var_epi64(low, second, high));
  }
  static __m256 to_floats(Tile levels, float scale, float bias) {
    const __m256 values = _mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(levels));
    return _mm256_add_ps(_mm256_mul_ps(values, _mm256_set1_ps(scale)), _mm256_set1_ps(bias));
  }
  static void store_floats(Tile levels, float scale, float bias, float* to) {
    _mm256_storeu_ps(to, to_floats(levels, scale, bias));
  }
  static void stream_floats(Tile left, Tile right, float scale, float bias, float* to) {
    const __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(left), right, 1);
    const __m512 values = _mm512_cvtepi32_ps(_mm512_cvtepu16_epi32(both));
    _mm512_stream_ps(to, _mm512_add_ps(_mm512_mul_ps(values, _mm512_set1_ps(scale)),
                                       _mm512_set1_ps(bias)));
  }
  static void drain() { _mm_sfence(); }
};

}  // namespace
}  // namespace coordl
