// Bicubic and nearest resize with the results of Pillow's Image.resize, bit for bit.
//
// Pillow resizes one axis, rounds to 8 bits, then the other; weights are doubles rounded to 22
// fraction bits. Both filters are weighted sums here: nearest is one weight of 1. Which axis comes
// first is Pillow 13's choice, found by experiment; earlier versions always take rows first, which
// is up to two levels away in some pixels.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "prep/pass.hpp"
#include "prep/pixels.hpp"

namespace coordl {

// Which source pixels make each output pixel of one axis, and with what weights.
class ExactAxis {
 public:
  // Resizes `source` pixels to `resized`, of which the outputs [offset, offset + outputs) are wanted.
  // REQUIRES: filter is bicubic or nearest.
  void build(Filter filter, int source, int resized, int offset, int outputs);

  int outputs() const { return static_cast<int>(first_.size()); }
  int begin() const { return begin_; }  // source pixels [begin, end) are read
  int end() const { return end_; }
  int removed() const { return removed_; }  // pixels the resize takes away; below 0: it adds
  int first(int output) const { return first_[output] - begin_; }  // counted from begin()
  // Weights of pixels first(), first() + 1, ...; 22 fraction bits.
  std::span<const std::int32_t> weights(int output) const {
    return {weights_.data() + std::size_t(output) * stride_, std::size_t(taps_[output])};
  }

 private:
  void bicubic(double scale, int source, int offset);
  void nearest(double scale, int source, int offset);

  int begin_ = 0, end_ = 0, stride_ = 0, removed_ = 0;
  std::vector<int> first_, taps_;
  std::vector<std::int32_t> weights_;
  std::vector<double> exact_;
};

struct ExactBuffers {  // of one resample_exact(), reused
  std::vector<std::uint8_t> rows, line;
  std::vector<std::int32_t> sums;
};

// Resizes pixels whose first one is (x.begin(), y.begin()) and writes levels, (3, y.outputs(),
// x.outputs()), C order.
void resample_exact(const PixelView& pixels, const ExactAxis& x, const ExactAxis& y,
                    std::uint8_t* levels, ExactBuffers& buffers);

}  // namespace coordl
