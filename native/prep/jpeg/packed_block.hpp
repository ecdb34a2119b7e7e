// One block of coefficients in packed form, byte by byte. All numbers are little-endian.
//
//   0  u16  lowest 4 bits: n, how many tiles are stored, 0 to 8; above: the DC coefficient, 12 bits in
//           two's complement
//   2       (n + 1) / 2 bytes: 4 bits for each tile stored, the first lowest: bits of each of its
//           values, 0 to 12 and not 11
//           the tiles, one after the other: 8 values of `width` bits in two's complement, the first
//           in the lowest bits: `width` bytes
//
// A tile is 2 rows x 4 columns of the block: tile k has rows 2 * (k / 2) and the one below, columns
// 4 * (k % 2) and the three after; values row by row. In tile 0 the DC coefficient counts as 0. Tiles
// come in kTileOrder, and those left out at its end are 0.
//
// Why so: at the rates photographs have, most coefficients are not zero, so positions are not worth
// storing; neighbours in frequency have like magnitudes, so one width serves eight. No value needs a
// branch: with shuffle and multiply, a tile of any width is three instructions.
#pragma once
#include <array>
#include <cstdint>
#include <cstring>

namespace coordl {

inline constexpr int kTiles = 8;
inline constexpr int kMostWidth = 12;  // any of them lies within two bytes; 11 does not
inline constexpr int kMostPackedDc = 2047;
inline constexpr int kMostBlockBytes = 2 + kTiles / 2 + kTiles * kMostWidth;

// From those that are hardly ever 0 to those that mostly are.
inline constexpr std::array<int, kTiles> kTileOrder = {0, 2, 4, 1, 3, 6, 5, 7};

constexpr bool is_width(unsigned width) { return width <= 12 && width != 11; }

constexpr int tile_corner(int tile) { return (tile >> 1) * 16 + (tile & 1) * 4; }

// What begins a block. Reads 6 bytes, whatever the block has.
struct BlockHeader {
  int dc = 0;
  int tiles = 0;             // stored
  std::uint32_t widths = 0;  // 4 bits each, 0 for tiles that are not stored
  int bytes = 0;             // of the header itself

  static BlockHeader read(const std::uint8_t* from) {
    std::uint16_t word;
    std::uint32_t widths;
    std::memcpy(&word, from, sizeof word);
    std::memcpy(&widths, from + sizeof word, sizeof widths);
    BlockHeader header;
    header.dc = static_cast<std::int16_t>(word) >> 4;
    header.tiles = word & 15;
    header.widths = static_cast<std::uint32_t>(widths & ((std::uint64_t(1) << (4 * header.tiles)) - 1));
    header.bytes = 2 + (header.tiles + 1) / 2;
    return header;
  }
  // Bytes of the whole block.
  int block_bytes() const {
    const std::uint32_t pairs = (widths & 0x0f0f0f0fu) + (widths >> 4 & 0x0f0f0f0fu);
    return bytes + static_cast<int>(pairs * 0x01010101u >> 24);
  }
};

}  // namespace coordl
