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

// One per thread, reused from sample to sample: region(), then write().
class Levels {
 public:
  // What must be decoded of an image for this draw, whose box is resized to `resized_width` x
  // `resized_height` before any centre crop.
  Region region(const Pass& pass, const Draw& draw, ImageSize image, int resized_width,
                int resized_height);
  // The sample from the rows of that region. False when they end early.
  // REQUIRES: out.size() == pass.sample_bytes(), aligned for pass.pixel.
  [[nodiscard]] bool write(PixelRows& rows, const Region& region, const Pass& pass, const Draw& draw,
                           std::span<std::byte> out);

 private:
  Axis x_, y_;
  Strip strip_;
  ExactAxis exact_x_, exact_y_;
  ExactBuffers exact_;
  PaddedAxis padded_x_, padded_y_;
  std::vector<std::uint8_t> levels_, pixels_;
};

}  // namespace coordl
