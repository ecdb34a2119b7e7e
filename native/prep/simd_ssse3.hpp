// Eight values of 16 bits: what the x86 kernels do part by part, up to SSE4.1.
#pragma once
#include <immintrin.h>

#include <cstdint>

namespace coordl {
namespace {

struct Ssse3Tile {
  using Tile = __m128i;
  static Tile unpack_tile(const std::uint8_t* packed, const std::uint8_t* bytes,
                          const std::uint16_t* lift, const std::uint64_t* drop) {
    const Tile pairs = _mm_shuffle_epi8(load_tile(packed), load_tile(bytes));
    return _mm_sra_epi16(_mm_mullo_epi16(pairs, load_tile(lift)), load_tile(drop));
  }
  static Tile load_tile(const void* from) { return _mm_loadu_si128(static_cast<const Tile*>(from)); }
  static void store_tile(void* to, Tile x) { _mm_storeu_si128(static_cast<Tile*>(to), x); }
  static Tile tile_lo64(Tile a, Tile b) { return _mm_unpacklo_epi64(a, b); }
  static Tile tile_hi64(Tile a, Tile b) { return _mm_unpackhi_epi64(a, b); }
  static Tile load_corner(const std::int16_t* top, const std::int16_t* below) {
    return _mm_unpacklo_epi64(_mm_loadl_epi64(reinterpret_cast<const Tile*>(top)),
                              _mm_loadl_epi64(reinterpret_cast<const Tile*>(below)));
  }
  static Tile drop_first(Tile x) { return _mm_insert_epi16(x, 0, 0); }
  static Tile tile_or(Tile a, Tile b) { return _mm_or_si128(a, b); }
  static Tile tile_lo16(Tile a, Tile b) { return _mm_unpacklo_epi16(a, b); }
  static Tile tile_hi16(Tile a, Tile b) { return _mm_unpackhi_epi16(a, b); }
  static Tile tile_lo32(Tile a, Tile b) { return _mm_unpacklo_epi32(a, b); }
  static Tile tile_hi32(Tile a, Tile b) { return _mm_unpackhi_epi32(a, b); }
  // Twice the value, or twice and one less below 0: has as many bits as the value in two's complement.
  static Tile fold(Tile x) { return _mm_xor_si128(_mm_add_epi16(x, x), _mm_srai_epi16(x, 15)); }
  // How many bits each of the eight has, one byte for each: the exponent as a float.
  static std::uint64_t bit_lengths(Tile x) {
    const Tile halves[2] = {_mm_cvtepu16_epi32(x), _mm_unpackhi_epi16(x, _mm_setzero_si128())};
    Tile lengths[2];
    for (int i = 0; i < 2; ++i) {
      const Tile exponents = _mm_srli_epi32(_mm_castps_si128(_mm_cvtepi32_ps(halves[i])), 23);
      lengths[i] = _mm_max_epi32(_mm_sub_epi32(exponents, _mm_set1_epi32(126)), _mm_setzero_si128());
    }
    const Tile all = _mm_packs_epi32(lengths[0], lengths[1]);
    std::uint64_t bytes;
    _mm_storel_epi64(reinterpret_cast<Tile*>(&bytes), _mm_packus_epi16(all, all));
    return bytes;
  }
  // The lowest bits, as many as the tables are for, of the first four values, one after the other, and
  // of the last four.
  static void join(Tile x, const std::uint16_t* mask, const std::uint16_t* beside,
                   const std::uint64_t* shift, std::uint64_t* half) {
    const Tile pairs = _mm_madd_epi16(_mm_and_si128(x, load_tile(mask)), load_tile(beside));
    const Tile upper = _mm_srl_epi64(_mm_and_si128(pairs, _mm_set1_epi64x(-1LL << 32)), load_tile(shift));
    const Tile lower = _mm_and_si128(pairs, _mm_set1_epi64x(0xFFFFFFFF));
    _mm_storeu_si128(reinterpret_cast<Tile*>(half), _mm_or_si128(lower, upper));
  }
  static void store_bytes(Tile levels, std::uint8_t* to) {
    _mm_storel_epi64(reinterpret_cast<Tile*>(to), _mm_packus_epi16(levels, levels));
  }
  static void store_bytes(Tile left, Tile right, std::uint8_t* to) {
    store_tile(to, _mm_packus_epi16(left, right));
  }
};

}  // namespace
}  // namespace coordl
