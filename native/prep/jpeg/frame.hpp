// What the header of a JPEG says of its pixels: sizes, samplings, quantisation.
//
// Only what our own decoder takes can be a Frame: 8 bits a sample, grey or YCbCr, chroma full size
// (4:4:4), half as wide (4:2:2), or half as wide and high (4:2:0).
#pragma once
#include <array>
#include <cstdint>

namespace coordl {

inline constexpr int kBlock = 8;               // edge of a block in samples
inline constexpr int kCoefficients = kBlock * kBlock;

// Position in natural order (row by row) of the coefficient that comes k-th in zigzag order. Source:
// ITU-T T.81, figure A.6.
inline constexpr std::array<std::uint8_t, kCoefficients> kZigzag = {
    0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33, 40, 48,
    41, 34, 27, 20, 13, 6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23,
    30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63};

inline constexpr int kMostEdge = 65500;  // pixels: libjpeg's JPEG_MAX_DIMENSION

enum class Sampling : std::uint8_t { grey = 0, full = 1, half_wide = 2, quarter = 3 };

struct Component {
  int across = 0, down = 0;    // blocks that hold samples of the image
  int width = 0, height = 0;   // samples that count
  std::array<std::uint16_t, kCoefficients> quantiser{};  // natural order
};

struct Frame {
  int width = 0, height = 0;  // pixels
  Sampling sampling = Sampling::grey;
  std::array<Component, 3> component{};  // Y, Cb, Cr; grey has the first only

  int components() const { return sampling == Sampling::grey ? 1 : 3; }
  // log2 of how many pixels of the image one chroma sample covers.
  int shift_x() const { return sampling >= Sampling::half_wide ? 1 : 0; }
  int shift_y() const { return sampling == Sampling::quarter ? 1 : 0; }
  int mcu_width() const { return kBlock << shift_x(); }
  int mcu_height() const { return kBlock << shift_y(); }
  int mcus_across() const { return (width + mcu_width() - 1) / mcu_width(); }
  int mcus_down() const { return (height + mcu_height() - 1) / mcu_height(); }
  // Blocks of component c in one MCU.
  int blocks_across(int c) const { return c == 0 ? 1 << shift_x() : 1; }
  int blocks_down(int c) const { return c == 0 ? 1 << shift_y() : 1; }

  // Fills in what follows from width, height and sampling.
  void derive() {
    for (int c = 0; c < components(); ++c) {
      Component& part = component[c];
      const int x = c == 0 ? 0 : shift_x(), y = c == 0 ? 0 : shift_y();
      part.width = (width + (1 << x) - 1) >> x;
      part.height = (height + (1 << y) - 1) >> y;
      part.across = (part.width + kBlock - 1) / kBlock;
      part.down = (part.height + kBlock - 1) / kBlock;
    }
  }

  // libjpeg upsamples chroma of one or two columns without smoothing; we do not. It refuses images
  // larger than kMostEdge.
  bool is_ours() const {
    return width > 0 && height > 0 && width <= kMostEdge && height <= kMostEdge && (shift_x() == 0 || component[1].width > 2);
  }
};

}  // namespace coordl
