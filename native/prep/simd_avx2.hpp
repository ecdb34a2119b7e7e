// Vectors of 16 values of 16 bits, AVX2; see kernels_vector.hpp for what each operation must do.
#pragma once
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "prep/simd_ssse3.hpp"

namespace coordl {
namespace {

struct Avx2 : Ssse3Tile {
  using I = __m256i;
  static constexpr int kLanes = 16;

  static I load(const void* from) { return _mm256_loadu_si256(static_cast<const I*>(from)); }
  static void store(void* to, I x) { _mm256_storeu_si256(static_cast<I*>(to), x); }
  static I zero() { return _mm256_setzero_si256(); }
  static I set16(int x) { return _mm256_set1_epi16(static_cast<short>(x)); }
  static I set32(int x) { return _mm256_set1_epi32(x); }
  static I add16(I a, I b) { return _mm256_add_epi16(a, b); }
  static I sub16(I a, I b) { return _mm256_sub_epi16(a, b); }
  static I mullo16(I a, I b) { return _mm256_mullo_epi16(a, b); }
  static I mulhi16(I a, I b) { return _mm256_mulhi_epi16(a, b); }
  static I mulhi_u16(I a, I b) { return _mm256_mulhi_epu16(a, b); }
  template <int n> static I sra16(I a) { return _mm256_srai_epi16(a, n); }
  template <int n> static I srl16(I a) { return _mm256_srli_epi16(a, n); }
  static I madd16(I a, I b) { return _mm256_madd_epi16(a, b); }
  static I add32(I a, I b) { return _mm256_add_epi32(a, b); }
  static I sub32(I a, I b) { return _mm256_sub_epi32(a, b); }
  template <int n> static I sra32(I a) { return _mm256_srai_epi32(a, n); }
  static I packs32(I a, I b) { return _mm256_packs_epi32(a, b); }
  static I packs16(I a, I b) { return _mm256_packs_epi16(a, b); }
  static I packus16(I a, I b) { return _mm256_packus_epi16(a, b); }
  static I xor_(I a, I b) { return _mm256_xor_si256(a, b); }
  static I or_(I a, I b) { return _mm256_or_si256(a, b); }
  static I and_(I a, I b) { return _mm256_and_si256(a, b); }
  static bool any(I a) { return _mm256_testz_si256(a, a) == 0; }
  static I lo8(I a, I b) { return _mm256_unpacklo_epi8(a, b); }
  static I hi8(I a, I b) { return _mm256_unpackhi_epi8(a, b); }
  static I lo16(I a, I b) { return _mm256_unpacklo_epi16(a, b); }
  static I hi16(I a, I b) { return _mm256_unpackhi_epi16(a, b); }
  static I lo32(I a, I b) { return _mm256_unpacklo_epi32(a, b); }
  static I hi32(I a, I b) { return _mm256_unpackhi_epi32(a, b); }
  static I lo64(I a, I b) { return _mm256_unpacklo_epi64(a, b); }
  static I hi64(I a, I b) { return _mm256_unpackhi_epi64(a, b); }

  static I widen(const std::uint8_t* from) {
    return _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  static I repeat_part(const std::uint16_t* from) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  template <class T>
  static I gather_parts(const T* from, std::size_t step) {
    const auto low = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    const auto high = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + step));
    return _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
  }
  template <int kStep, class T>
  static I gather_parts(const T* from) { return gather_parts(from, kStep); }
  static Tile part(I x, int which) {
    return which == 0 ? _mm256_castsi256_si128(x) : _mm256_extracti128_si256(x, 1);
  }
  // Each part holds 8 bytes of one row, then 8 of the next.
  static void store_row_pair(I x, std::uint8_t* first, std::uint8_t* second) {
    const Tile low = part(x, 0), high = part(x, 1);
    _mm_storeu_si128(reinterpret_cast<Tile*>(first), _mm_unpacklo_epi64(low, high));
    _mm_storeu_si128(reinterpret_cast<Tile*>(second), _mm_unpackhi_epi64(low, high));
  }
  // What was unpacked low and high from one vector of bytes, in order again.
  static void store_halves(I low, I high, std::uint16_t* to) {
    store_tile(to, part(low, 0));
    store_tile(to + 8, part(high, 0));
    store_tile(to + 16, part(low, 1));
    store_tile(to + 24, part(high, 1));
  }
  static __m256 to_floats(Tile levels, float scale, float bias) {
    const __m256 values = _mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(levels));
    return _mm256_add_ps(_mm256_mul_ps(values, _mm256_set1_ps(scale)), _mm256_set1_ps(bias));
  }
  static void store_floats(Tile levels, float scale, float bias, float* to) {
    _mm256_storeu_ps(to, to_floats(levels, scale, bias));
  }
  static void stream_floats(Tile left, Tile right, float scale, float bias, float* to) {
    _mm256_stream_ps(to, to_floats(left, scale, bias));
    _mm256_stream_ps(to + 8, to_floats(right, scale, bias));
  }
  static void drain() { _mm_sfence(); }
};

}  // namespace
}  // namespace coordl
