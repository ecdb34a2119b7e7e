// Eight values of 16 bits: what the x86 kernels do part by part.
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
  static void store_bytes(Tile levels, std::uint8_t* to) {
    _mm_storel_epi64(reinterpret_cast<Tile*>(to), _mm_packus_epi16(levels, levels));
  }
};

}  // namespace
}  // namespace coordl
