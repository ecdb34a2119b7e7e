// What decoders give and the resize takes: sizes, regions, rows of pixels.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace coordl {

// Above this Pillow warns of a decompression bomb: the user's own loader shall decide.
inline constexpr std::int64_t kMaxPixels = 89'478'485;

struct ImageSize {
  int width = 0, height = 0;
};

struct Region {  // [x, x + width) x [y, y + height) of the image, not empty, inside it
  int x = 0, y = 0, width = 0, height = 0;
};

// Rows of a region of an image, from top to bottom.
class PixelRows {
 public:
  virtual ~PixelRows() = default;
  // Writes row `row` of the region, counted from its top: its pixels as level x 256, one pointer for
  // each of red, green, blue. Rows are asked for in order, each once. Up to kRowMargin values before
  // the first and kSlack bytes behind the last may be overwritten. False: the item is damaged.
  virtual bool read(int row, std::uint16_t* const* rgb) = 0;
};

inline constexpr int kRowMargin = 16;  // values

// Bytes after the last pixel that may be read (never used), so that loops need no tails.
inline constexpr std::size_t kPixelSlack = 64;

struct PixelView {  // RGB, 3 bytes a pixel; owned by whoever decoded it
  const std::uint8_t* first = nullptr;  // pixel (region.x, region.y)
  std::ptrdiff_t stride = 0;            // bytes from row to row
};

// Rows of a region that was decoded at once.
class InterleavedRows final : public PixelRows {
 public:
  InterleavedRows(const PixelView& view, int width) : view_(view), width_(width) {}
  bool read(int row, std::uint16_t* const* rgb) override {
    const std::uint8_t* from = view_.first + row * view_.stride;
    for (int i = 0; i < width_; ++i, from += 3) {
      for (int c = 0; c < 3; ++c) rgb[c][i] = static_cast<std::uint16_t>(from[c] << 8);
    }
    return true;
  }

 private:
  PixelView view_;
  int width_;
};

// All rows as interleaved RGB, (height, width, 3) bytes at `out`; `buffer` is reused. False when they
// end early.
bool read_interleaved(PixelRows& rows, int width, int height, std::uint8_t* out,
                      std::vector<std::uint16_t>& buffer);

}  // namespace coordl
