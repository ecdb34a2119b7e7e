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

namespace coordl {

struct ImageSize {
  int width = 0, height = 0;
};

struct Region {  // [x, x + width) x [y, y + height) of the image, not empty, inside it
  int x = 0, y = 0, width = 0, height = 0;
};

struct PixelView {  // RGB, 3 bytes a pixel; owned by the buffer handed to decode()
  const std::uint8_t* first = nullptr;  // pixel (region.x, region.y)
  std::ptrdiff_t stride = 0;            // bytes from row to row
};

// Bytes after the last pixel that may be read (never used), so that kernels need no tails.
inline constexpr std::size_t kPixelSlack = 64;

// One decoder per item. Not thread-safe; different objects are independent.
class JpegDecoder {
 public:
  JpegDecoder();
  ~JpegDecoder();
  JpegDecoder(const JpegDecoder&) = delete;
  JpegDecoder& operator=(const JpegDecoder&) = delete;

  // Reads the header of an item that must outlive the decoder. Nothing when the item is not ours:
  // not a complete 8-bit Huffman JPEG in grey, YCbCr or RGB, or larger than kMaxPixels.
  std::optional<ImageSize> open(std::span<const std::byte> item) noexcept;

  // Decodes a region, once per open(). The pixels equal those of a full decode with the accurate
  // DCT and smooth upsampling, Pillow's settings. Nothing when the decoder warned or failed.
  // Throws std::bad_alloc when `buffer` cannot grow.
  std::optional<PixelView> decode(const Region& region, std::vector<std::uint8_t>& buffer);

  // Gives libjpeg's own working memory back; open() and the destructor do it too.
  void close() noexcept;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Above this Pillow warns of a decompression bomb: the user's own loader shall decide.
inline constexpr std::int64_t kMaxPixels = 89'478'485;

}  // namespace coordl
