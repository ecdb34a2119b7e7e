// WebP decoding through libwebp.
//
// Ours are still images that fill their canvas. They are decoded to the last row whatever the region,
// so that which items are ours never depends on the crop; a region saves the colours of what lies
// outside it. Left to the user's loader: animations, also of one frame that leaves canvas uncovered.
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
class WebpDecoder {
 public:
  WebpDecoder();
  ~WebpDecoder();
  WebpDecoder(const WebpDecoder&) = delete;
  WebpDecoder& operator=(const WebpDecoder&) = delete;

  // Reads the header of an item that must outlive the decoder. Nothing when the item is not ours, or
  // larger than kMaxPixels.
  std::optional<ImageSize> open(std::span<const std::byte> item) noexcept;

  // Decodes a region, once per open(). The pixels are those of a full decode with libwebp's default
  // settings, Pillow's too; alpha is decoded and dropped, as by convert("RGB"). Nothing when the data
  // are damaged. Throws std::bad_alloc when `buffer` cannot grow.
  std::optional<PixelView> decode(const Region& region, std::vector<std::uint8_t>& buffer);

  // Forgets the item; open() and the destructor do it too.
  void close() noexcept;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

bool has_webp_signature(std::span<const std::byte> item);

}  // namespace coordl
