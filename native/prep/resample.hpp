// Antialiased bilinear resize (triangle filter), within one level of Pillow's
// Image.crop(box).resize(size, BILINEAR), fused with flip, normalisation and the (3, H, W) layout.
//
// Integer arithmetic: every kernel gives the same bits on every machine. Weights have 14 bits; the
// vertical pass comes first, over contiguous bytes, and keeps 7 bits below the pixel's unit. Pillow
// rounds to 8 bits between its passes, which alone is worth up to half a level; the rounding of our
// weights adds less than the other half for up to 30 taps an axis (15-fold reduction) on any image,
// and on photographs far beyond.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "prep/jpeg.hpp"
#include "prep/pass.hpp"

namespace coordl {

// Which source pixels make each output pixel of one axis, and with what weights.
class Axis {
 public:
  // Resizes `source` pixels to `resized`, of which the outputs [offset, offset + outputs) are wanted.
  void build(int source, int resized, int offset, int outputs);

  int outputs() const { return static_cast<int>(first_.size()); }
  int begin() const { return begin_; }  // source pixels [begin, end) are read
  int end() const { return end_; }
  int first(int output) const { return first_[output] - begin_; }  // counted from begin()
  // Weights of pixels first(), first() + 1, ...; an even number, sum 2^14, zero where padded. A
  // padding weight may stand for the pixel one after the last.
  std::span<const std::int16_t> weights(int output) const {
    return {weights_.data() + std::size_t(output) * stride_, std::size_t(taps_[output])};
  }

 private:
  int begin_ = 0, end_ = 0, stride_ = 0;
  std::vector<int> first_, taps_;
  std::vector<std::int16_t> weights_;
  std::vector<double> exact_;
};

struct Strip {  // buffers of one resample(), reused
  std::vector<const std::uint8_t*> rows;
  std::vector<std::int16_t> lines, columns, finished;
};

// Resizes pixels whose first one is (x.begin(), y.begin()) and writes (3, y.outputs(), x.outputs()).
// REQUIRES: kPixelSlack readable bytes after the last pixel; out.size() == pass.sample_bytes(), aligned
// for pass.pixel.
void resample(const PixelView& pixels, const Axis& x, const Axis& y, bool flip, const Pass& pass,
              std::span<std::byte> out, Strip& strip);

}  // namespace coordl
