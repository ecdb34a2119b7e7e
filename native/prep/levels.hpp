// What the resize cannot write straight into the output: other filters, padding, colours, halves,
// channels_last. The sample is made as 8-bit levels, worked on, and converted at the end.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "prep/padding.hpp"
#include "prep/pass.hpp"
#include "prep/pixels.hpp"
#include "prep/resample.hpp"
#include "prep/resample_exact.hpp"

namespace coordl {

// Where the output lies: the source box is resized, and the output begins at (left, top) of that.
// Beyond its edges there is padding.
struct Placement {
  Box source;
  Extent resized;
  int left = 0, top = 0;
};
Placement placement_of(const Geometry& geometry, const Draw& draw, const ImageSize& image);

// One per thread, reused from sample to sample: region(), then write().
class Levels {
 public:
  // What must be decoded of an image.
  Region region(const Pass& pass, const Placement& at);
  // The sample from the rows of that region. False when they end early.
  // REQUIRES: out.size() == pass.sample_bytes(), aligned for pass.pixel.
  [[nodiscard]] bool write(PixelRows& rows, const Region& region, const Pass& pass, const Draw& draw,
                           std::span<std::byte> out);

 private:
  bool resize(PixelRows& rows, const Region& region, Filter filter, std::vector<std::uint8_t>& out);

  Extent resized_;  // what the resize makes: the output, or the part of it that is no padding
  Axis x_, y_;
  Strip strip_;
  ExactAxis exact_x_, exact_y_;
  ExactBuffers exact_;
  PaddedAxis padded_x_, padded_y_;
  std::vector<std::uint8_t> levels_, pixels_, unpadded_;
};

}  // namespace coordl
