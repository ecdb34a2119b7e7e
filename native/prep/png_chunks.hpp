// The chunks of a PNG file, and whether Pillow would read them to the end without a complaint.
//
// Only files whose every checksum holds are taken, and only chunks of which it is known that Pillow
// ignores them for `Image.open(f).convert("RGB")`: its reader raises for some ancillary chunks, and
// text under certain keywords ends up in the dictionary that steers it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

struct libdeflate_decompressor;

namespace coordl {

struct PngChunks {
  enum Colour : std::uint8_t { grey = 0, rgb = 2, palette = 3, grey_alpha = 4, rgb_alpha = 6 };
  int width = 0, height = 0;
  int depth = 0;  // bits a sample
  Colour colour = grey;
  bool interlaced = false;
  std::span<const std::uint8_t> colours;  // PLTE: 3 bytes an entry; at most 256 entries
  std::vector<std::span<const std::uint8_t>> data;  // IDAT, in order: one zlib stream
  std::size_t data_bytes = 0;

  int channels() const {
    return colour == grey || colour == palette ? 1 : colour == grey_alpha ? 2 : colour == rgb ? 3 : 4;
  }
  int pixel_bits() const { return channels() * depth; }
  std::size_t row_bytes(int pixels) const {
    return (std::size_t(pixels) * std::size_t(pixel_bits()) + 7) / 8;
  }
};

// Reads the chunks of an item, which must outlive `chunks`. False when the item is not ours.
// `plain` is scratch space for compressed metadata. Throws std::bad_alloc.
bool read_chunks(std::span<const std::byte> item, libdeflate_decompressor* inflater,
                 std::vector<std::uint8_t>& plain, PngChunks& chunks);

bool has_png_signature(std::span<const std::byte> item);

}  // namespace coordl
