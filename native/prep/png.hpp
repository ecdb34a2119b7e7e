// PNG decoding through libdeflate.
//
// Why not libpng: on a 512x512 photograph it takes 9.0 ms of thread time with Debian's zlib, Pillow 11.0
// and this 4.0. libspng inflates with the same zlib; Debian has no wuffs, but libdeflate.
// What remains of a PNG after inflating is a walk over checksummed chunks and five row filters, and
// owning the walk is what makes the promise below possible.
//
// Ours are PNGs whose every byte up to the end chunk is accounted for: chunks and checksums, one zlib
// stream of exactly the image's size, known filters in every row, indices within the palette. That
// never depends on the crop, but for the palette's indices, which are checked where they are read.
// Left to the user's loader: transparency (tRNS), animations, 16-bit grey; see png_chunks.hpp.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "prep/pixels.hpp"

namespace coordl {

// One decoder per item. Not thread-safe; different objects are independent.
class PngDecoder {
 public:
  PngDecoder();
  ~PngDecoder();
  PngDecoder(const PngDecoder&) = delete;
  PngDecoder& operator=(const PngDecoder&) = delete;

  // Reads the chunks of an item that must outlive the decoder. Nothing when the item is not ours, or
  // larger than kMaxPixels.
  std::optional<ImageSize> open(std::span<const std::byte> item) noexcept;

  // Decodes a region, once per open(). The pixels are those of Pillow's convert("RGB"): alpha is
  // dropped, of 16 bits the upper 8 count, gamma and colour profiles change nothing. Nothing when the
  // data are damaged. Throws std::bad_alloc when `buffer` cannot grow.
  std::optional<PixelView> decode(const Region& region, std::vector<std::uint8_t>& buffer);

  // Forgets the item; keeps working memory of moderate size.
  void close() noexcept;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace coordl
