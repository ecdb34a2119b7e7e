// Quantised DCT coefficients on their way from an item to the inverse DCT, one MCU row at a time.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "prep/jpeg/frame.hpp"

namespace coordl {

// Blocks somebody wants: columns [left, right) and rows [top, bottom) of each component.
struct BlockWindow {
  std::array<int, 3> left{}, right{}, top{}, bottom{};

  static BlockWindow whole(const Frame& frame) {
    BlockWindow window;
    for (int c = 0; c < frame.components(); ++c) {
      window.right[c] = frame.component[c].across;
      window.bottom[c] = frame.component[c].down;
    }
    return window;
  }
};

inline constexpr int kSpareBlocks = 8;  // readable behind the last: kernels work on so many at once

// The wanted blocks of one MCU row, 64 coefficients each in natural order: block x of row y (0 or 1)
// of component c begins at row(c, y) + (x - window.left[c]) * kCoefficients.
class CoefficientRow {
 public:
  void prepare(const Frame& frame, const BlockWindow& window);
  std::int16_t* row(int c, int y) { return values_.data() + start_[c] + std::size_t(y) * pitch_[c]; }
  const BlockWindow& window() const { return window_; }

 private:
  std::vector<std::int16_t> values_;
  std::array<std::size_t, 3> start_{}, pitch_{};
  BlockWindow window_;
};

// Where coefficients come from.
class CoefficientSource {
 public:
  virtual ~CoefficientSource() = default;
  // Fills in the window's blocks of an MCU row; rows are asked for from top to bottom, each once.
  // False: the item is damaged.
  virtual bool read(int mcu_row, CoefficientRow& row) = 0;
};

// |DC x quantiser| beyond this is eight times what an image can hold, and libjpeg's vector code wraps
// around where its plain code does not: not ours.
inline constexpr int kMostDc = 8191;

}  // namespace coordl
