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
  static unsigned most_folded(Tile x) {
    const Tile folded = _mm_xor_si128(_mm_add_epi16(x, x), _mm_srai_epi16(x, 15));
    const Tile least = _mm_minpos_epu16(_mm_xor_si128(folded, _mm_set1_epi32(-1)));
    return 0xFFFF & ~static_cast<unsigned>(_mm_cvtsi128_si32(least));
  }
  // The lowest `width` bits of the first four values, one after the other, and of the last four.
  static void join(Tile x, int width, std::uint64_t* half) {
    const Tile low = _mm_and_si128(x, _mm_set1_epi16(static_cast<short>((1 << width) - 1)));
    const Tile pairs = _mm_madd_epi16(low, _mm_set1_epi32(1 | 1 << (16 + width)));
    const Tile upper = _mm_sll_epi64(_mm_srli_epi64(pairs, 32), _mm_cvtsi32_si128(2 * width));
    const Tile lower = _mm_and_si128(pairs, _mm_set1_epi64x(0xFFFFFFFF));
    _mm_storeu_si128(reinterpret_cast<Tile*>(half), _mm_or_si128(lower, upper));
  }
  static void store_bytes(Tile levels, std::uint8_t* to) {
    _mm_storel_epi64(reinterpret_cast<Tile*>(to), _mm_packus_epi16(levels, levels));
  }
};

}  // namespace
}  // namespace coordl
