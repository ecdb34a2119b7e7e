// JPEG header and region decoding through libjpeg-turbo.
//
// Which items are ours is decided so that it never depends on the crop: from the header, from a walk
// over the markers to the end-of-image marker (a truncated file is never ours, wherever the crop
// lies), and from the absence of decoder warnings up to the crop's last row. What remains unseen:
// damage inside the entropy-coded data *below* the crop that leaves the marker structure whole. There
// the pixels of the crop are still those of a full decode, and Pillow would train on such a file too.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "prep/jpeg/coefficients.hpp"
#include "prep/pixels.hpp"

namespace coordl {

// One decoder per item. Not thread-safe; different objects are independent.
class LibjpegDecoder final : public CoefficientSource {
 public:
  LibjpegDecoder();
  ~LibjpegDecoder() override;
  LibjpegDecoder(const LibjpegDecoder&) = delete;
  LibjpegDecoder& operator=(const LibjpegDecoder&) = delete;

  // Reads the header of an item that must outlive the decoder. Nothing when the item is not ours:
  // not a complete 8-bit JPEG in grey, YCbCr or RGB, or larger than kMaxPixels.
  std::optional<ImageSize> open(std::span<const std::byte> item) noexcept;

  // Decodes a region; once per open(), and not both this and coefficients(). The pixels equal those
  // of a full decode with the accurate DCT and smooth upsampling, Pillow's settings. Nothing when the
  // decoder warned or failed. Throws std::bad_alloc when `buffer` cannot grow.
  std::optional<PixelView> decode(const Region& region, std::vector<std::uint8_t>& buffer);

  // Decodes all coefficients, whatever the coding (progressive, arithmetic, many scans): read() then
  // gives them. Nothing when the decoder warned or failed, or the image is no Frame.
  std::optional<Frame> coefficients() noexcept;
  bool read(int mcu_row, CoefficientRow& row) override;

  // Gives libjpeg's own working memory back; open() and the destructor do it too.
  void close() noexcept;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace coordl
