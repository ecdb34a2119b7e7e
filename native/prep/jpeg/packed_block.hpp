// One block of coefficients in packed form, byte by byte. All numbers are little-endian.
//
//   0  u32  widths: 4 bits for each tile, tile 0 lowest: bits of each of its values, 0 to 12
//   4  i16  the DC coefficient
//   6       the tiles, one after the other: 8 values of `width` bits in two's complement, the first
//           in the lowest bits: `width` bytes
//
// A tile is 2 rows x 4 columns of the block: tile k has rows 2 * (k / 2) and the one below, columns
// 4 * (k % 2) and the three after; values row by row. In tile 0 the DC coefficient counts as 0.
//
// Why so: at the rates photographs have, most coefficients are not zero, so positions are not worth
// storing; neighbours in frequency have like magnitudes, so one width serves eight. No value needs a
// branch: with shuffle and multiply, a tile of any width is three instructions.
#pragma once
#include <cstdint>

namespace coordl {

inline constexpr int kTiles = 8;
inline constexpr int kBlockHeader = 6;
inline constexpr int kMostWidth = 12;  // any of them lies within two bytes; 11 does not
inline constexpr int kMostBlockBytes = kBlockHeader + kTiles * kMostWidth;

constexpr bool is_width(unsigned width) { return width <= 12 && width != 11; }

constexpr int tile_corner(int tile) { return (tile >> 1) * 16 + (tile & 1) * 4; }

// Bytes of a block whose widths these are.
constexpr int block_bytes(std::uint32_t widths) {
  const std::uint32_t pairs = (widths & 0x0f0f0f0fu) + (widths >> 4 & 0x0f0f0f0fu);
  return kBlockHeader + static_cast<int>(pairs * 0x01010101u >> 24);
}

}  // namespace coordl
