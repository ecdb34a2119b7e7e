// Decoders that give a region of interleaved RGB at once, from libraries: which one an item's first
// bytes ask for, never its name.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "prep/pixels.hpp"

namespace coordl {

// What this build decodes: "jpeg", and "png" and "webp" where their libraries were found.
std::span<const std::string_view> formats();

// One decoder per item. Not thread-safe; different objects are independent. See LibjpegDecoder.
class ImageDecoder {
 public:
  ImageDecoder();
  ~ImageDecoder();
  ImageDecoder(const ImageDecoder&) = delete;
  ImageDecoder& operator=(const ImageDecoder&) = delete;

  std::optional<ImageSize> open(std::span<const std::byte> item) noexcept;
  std::optional<PixelView> decode(const Region& region, std::vector<std::uint8_t>& buffer);
  void close() noexcept;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace coordl
