// Packing and unpacking of blocks, written once over a vector type V; see packed_block.hpp for the form
// and kernels_vector.hpp for V, which includes this.
#pragma once
#include <cstdint>
#include <cstring>

#include "prep/jpeg/packed_block.hpp"

#define COORDL_INLINE __attribute__((always_inline)) inline

namespace coordl {
namespace {

// For a tile of each width: which two bytes a value lies in, what moves it to the top of 16 bits, and
// how far down it then goes. The reverse: the bits it keeps, the factors that put the second of two
// values behind the first, and how far the upper pair of four goes down to meet the lower one.
struct TileTables {
  alignas(64) std::uint8_t bytes[kMostWidth + 1][16];
  alignas(64) std::uint16_t lift[kMostWidth + 1][8];
  alignas(64) std::uint64_t drop[kMostWidth + 1][2];
  alignas(64) std::uint16_t mask[kMostWidth + 1][8];
  alignas(64) std::uint16_t beside[kMostWidth + 1][8];
  alignas(64) std::uint64_t shift[kMostWidth + 1][2];
};

constexpr TileTables make_tile_tables() {
  TileTables tables{};
  for (int width = 0; width <= kMostWidth; ++width) {
    for (int i = 0; i < 8; ++i) {
      const int bit = i * width, place = bit & 7;
      const bool real = width > 0 && width + place <= 16;
      tables.bytes[width][2 * i] = static_cast<std::uint8_t>(real ? bit >> 3 : 0x80);
      tables.bytes[width][2 * i + 1] = static_cast<std::uint8_t>(real ? (bit >> 3) + 1 : 0x80);
      tables.lift[width][i] = static_cast<std::uint16_t>(real ? 1 << (16 - width - place) : 0);
      tables.mask[width][i] = static_cast<std::uint16_t>((1 << width) - 1);
      tables.beside[width][i] = static_cast<std::uint16_t>(i % 2 == 0 ? 1 : 1 << width);
    }
    tables.drop[width][0] = static_cast<std::uint64_t>(width == 0 ? 0 : 16 - width);
    tables.shift[width][0] = static_cast<std::uint64_t>(32 - 2 * width);
  }
  return tables;
}

template <class V>
struct PackedKernels {
  static COORDL_INLINE typename V::Tile tile(const std::uint8_t*& packed, unsigned width) {
    static constexpr TileTables tables = make_tile_tables();
    const auto values = V::unpack_tile(packed, tables.bytes[width], tables.lift[width],
                                       tables.drop[width]);
    packed += width;
    return values;
  }

  static const std::uint8_t* unpack(const std::uint8_t* packed, int blocks, std::int16_t* out) {
    for (; blocks > 0; --blocks, out += 64) {
      const BlockHeader header = BlockHeader::read(packed);
      packed += header.bytes;
      typename V::Tile tiles[kTiles];
      for (int i = 0; i < kTiles; ++i) {
        tiles[kTileOrder[i]] = tile(packed, header.widths >> (4 * i) & 15);
      }
      for (int pair = 0; pair < 4; ++pair) {
        const auto left = tiles[2 * pair], right = tiles[2 * pair + 1];
        V::store_tile(out + 16 * pair, V::tile_lo64(left, right));
        V::store_tile(out + 16 * pair + 8, V::tile_hi64(left, right));
      }
      out[0] = static_cast<std::int16_t>(header.dc);
    }
    return packed;
  }

  // The OR of each tile's eight values, side by side.
  static COORDL_INLINE typename V::Tile or_tiles(const typename V::Tile* x) {
    typename V::Tile pairs[4], fours[2];
    for (int i = 0; i < 4; ++i) {
      pairs[i] = V::tile_or(V::tile_lo16(x[2 * i], x[2 * i + 1]), V::tile_hi16(x[2 * i], x[2 * i + 1]));
    }
    for (int i = 0; i < 2; ++i) {
      fours[i] = V::tile_or(V::tile_lo32(pairs[2 * i], pairs[2 * i + 1]),
                            V::tile_hi32(pairs[2 * i], pairs[2 * i + 1]));
    }
    return V::tile_or(V::tile_lo64(fours[0], fours[1]), V::tile_hi64(fours[0], fours[1]));
  }

  // No branch but for what no image has: how many tiles there are is hard to predict.
  static std::uint8_t* pack(const std::int16_t* block, std::uint8_t* to) {
    static constexpr TileTables tables = make_tile_tables();
    constexpr std::uint64_t each = 0x0101010101010101u;
    if (block[0] > kMostPackedDc || block[0] < -kMostPackedDc) return nullptr;
    typename V::Tile values[kTiles], folded[kTiles];
    for (int i = 0; i < kTiles; ++i) {
      const std::int16_t* corner = block + tile_corner(kTileOrder[i]);
      values[i] = V::load_corner(corner, corner + 8);
      if (i == 0) values[i] = V::drop_first(values[i]);
      folded[i] = V::fold(values[i]);
    }
    std::uint64_t width = V::bit_lengths(or_tiles(folded));  // one byte for each tile
    if (((width + (0x7F - kMostWidth) * each) & (0x80 * each)) != 0) return nullptr;
    width += ((0x10 * each - (width ^ (11 * each))) >> 4) & each;  // 11 becomes 12
    std::uint64_t nibbles = (width | width >> 4) & 0x00FF00FF00FF00FFu;
    nibbles = (nibbles | nibbles >> 8) & 0x0000FFFF0000FFFFu;
    const auto widths = static_cast<std::uint32_t>(nibbles | nibbles >> 16);
    const int tiles = widths == 0 ? 0 : (35 - __builtin_clz(widths)) / 4;
    const auto word = static_cast<std::uint16_t>(tiles | block[0] << 4);
    std::memcpy(to, &word, sizeof word);
    std::memcpy(to + sizeof word, &widths, sizeof widths);
    to += sizeof word + (tiles + 1) / 2;
    for (int i = 0; i < kTiles; ++i, width >>= 8) {
      const auto bits = static_cast<unsigned>(width & 15);
      std::uint64_t half[2];
      V::join(values[i], tables.mask[bits], tables.beside[bits], tables.shift[bits], half);
      const std::uint64_t low = half[0] | half[1] << (4 * bits), high = half[1] >> 1 >> (63 - 4 * bits);
      std::memcpy(to, &low, sizeof low);
      std::memcpy(to + 8, &high, sizeof high);
      to += bits;
    }
    return to;
  }
};

}  // namespace
}  // namespace coordl
