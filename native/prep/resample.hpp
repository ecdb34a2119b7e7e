// Antialiased bilinear resize (triangle filter), within one level of Pillow's
// Image.crop(box).resize(size, BILINEAR), fused with flip, normalisation and the (3, H, W) layout.
//
// Integer arithmetic: every kernel gives the same bits on every machine. Weights have 16 bits; a
// product keeps 8 bits below the pixel's unit. Pillow rounds to whole levels between its passes, which
// is worth up to half a level; what our products cut off adds at most taps / 512 of a level in each
// pass. Where that could exceed the other half, at reductions of some 64 times on both axes, we refuse.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "prep/keep.hpp"
#include "prep/kernels.hpp"
#include "prep/pass.hpp"
#include "prep/pixels.hpp"

namespace coordl {

// Taps of both axes together: half a unit of 1/256 level each, half a level in all. So no sum reaches
// 2^16: the highest level is 65280, rounding adds 128, and the taps 127.
inline constexpr int kMostTaps = 254;

// Which source pixels make each output pixel of one axis, and with what weights.
class Axis {
 public:
  // Resizes `source` pixels to `resized`, of which the outputs [offset, offset + outputs) are wanted.
  void build(int source, int resized, int offset, int outputs);

  int outputs() const { return static_cast<int>(first_.size()); }
  int begin() const { return begin_; }  // source pixels [begin, end) have weight
  int end() const { return end_; }
  // First pixels counted from begin(). Weights of no pixel are 0, so that all outputs have as many;
  // they may stand for pixels beyond the end.
  Taps taps() const { return {first_.data(), weights_.data(), losses_.data(), outputs(), count_}; }

 private:
  int begin_ = 0, end_ = 0, count_ = 0;
  std::vector<std::int32_t> first_;
  std::vector<std::uint16_t> weights_, losses_;
  std::vector<float> exact_;
};

// Buffers of one resample(), reused.
struct Strip {
  std::vector<std::uint16_t> ring, lines, columns, finished;

  void trim() noexcept { coordl::trim(ring, lines, columns, finished); }
};

// Resizes rows whose first one is y.begin() and whose first pixel is x.begin(), and writes
// (3, y.outputs(), x.outputs()). False when the rows end before they should, or the axes have
// more than kMostTaps together: `out` is then undefined.
// REQUIRES: out.size() == pass.sample_bytes(), aligned for pass.pixel.
[[nodiscard]] bool resample(PixelRows& rows, const Axis& x, const Axis& y, bool flip, const Pass& pass,
                            std::span<std::byte> out, Strip& strip);

}  // namespace coordl
