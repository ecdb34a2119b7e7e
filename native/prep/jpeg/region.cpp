#include "prep/jpeg/region.hpp"

#include <algorithm>
#include <cstring>

#include "prep/kernels.hpp"

namespace coordl {
namespace {

constexpr int kNeighbour = 8;  // values before the first sum: smoothing reads one of them

int blocks(int samples) { return (samples + kBlock - 1) / kBlock; }

}  // namespace

void RegionRows::begin(const Frame& frame, CoefficientSource& source, const Region& region) {
  frame_ = &frame;
  source_ = &source;
  region_ = region;
  const int right = region.x + region.width, bottom = region.y + region.height;
  BlockWindow window;
  int first_sample_row = region.y;  // of luma
  for (int c = 0; c < frame.components(); ++c) {
    const Component& part = frame.component[c];
    const int sx = c == 0 ? 0 : frame.shift_x(), sy = c == 0 ? 0 : frame.shift_y();
    // Smoothing reads one neighbour on each side; without it 2 in 5 crops would differ.
    const int left_sample = std::max(0, (region.x >> sx) - sx);
    const int top_sample = std::max(0, (region.y >> sy) - sy);
    window.left[c] = left_sample / kBlock;
    window.top[c] = top_sample / kBlock;
    window.right[c] = blocks(std::min(part.width, ((right - 1) >> sx) + 1 + sx));
    window.bottom[c] = blocks(std::min(part.height, ((bottom - 1) >> sy) + 1 + sy));
    first_sample_row = std::min(first_sample_row, top_sample << sy);
  }
  // Luma rows are asked for in pairs of columns.
  window.left[0] = (region.x & ~frame.shift_x()) / kBlock;
  coefficients_.prepare(frame, window);
  first_ = loaded_ = first_sample_row / frame.mcu_height();
  open_planes();
}

void RegionRows::open_planes() {
  const BlockWindow& window = coefficients_.window();
  for (int c = 0; c < frame_->components(); ++c) {
    stride_[c] = std::ptrdiff_t(window.right[c] - window.left[c]) * kBlock + std::ptrdiff_t(kSlack) / 2;
    const std::size_t rows = 2 * std::size_t(frame_->blocks_down(c)) * kBlock;
    const std::size_t bytes = rows * std::size_t(stride_[c]) + kSlack;
    if (planes_[c].size() < bytes) planes_[c].resize(bytes);
    if (c == 0) continue;
    const std::size_t sums = std::size_t(stride_[c]) + kNeighbour + kSlack;
    if (sums_[c - 1].size() < sums) sums_[c - 1].resize(sums);
  }
}

bool RegionRows::load(int mcu_row) {
  if (!source_->read(mcu_row, coefficients_)) return false;
  const Kernels& kernel = kernels();
  const BlockWindow& window = coefficients_.window();
  for (int c = 0; c < frame_->components(); ++c) {
    const int down = frame_->blocks_down(c), count = window.right[c] - window.left[c];
    for (int y = 0; y < down; ++y) {
      const int block_row = mcu_row * down + y;
      if (block_row < window.top[c] || block_row >= window.bottom[c]) continue;
      const int slot = (mcu_row & 1) * down + y;
      kernel.idct(coefficients_.row(c, y), count, frame_->component[c].quantiser.data(),
                  planes_[c].data() + slot * kBlock * stride_[c], stride_[c]);
    }
  }
  return true;
}

const std::uint8_t* RegionRows::sample(int c, int x, int y) const {
  const int held = 2 * frame_->blocks_down(c) * kBlock;
  return planes_[c].data() + (y % held) * stride_[c] +
         (x - coefficients_.window().left[c] * kBlock);
}

// 3 * near + far of both chroma components, from the chroma column of the region's first pixel on;
// index kNeighbour is that column. Borders of the image repeat themselves.
void RegionRows::chroma_sums(int y) {
  const Component& part = frame_->component[1];
  int near = y, far = y;
  if (frame_->shift_y() != 0) {
    near = y >> 1;
    far = std::clamp((y & 1) != 0 ? near + 1 : near - 1, 0, part.height - 1);
  }
  const int first = region_.x >> 1, last = (region_.x + region_.width - 1) >> 1;
  const int from = std::max(0, first - 1), to = std::min(part.width - 1, last + 1);
  for (int c = 1; c <= 2; ++c) {
    std::int16_t* sums = sums_[c - 1].data() + kNeighbour;
    kernels().chroma(sample(c, from, near), sample(c, from, far), to - from + 1, sums + (from - first));
    if (first == 0) sums[-1] = sums[0];
    if (last == part.width - 1) sums[last - first + 1] = sums[last - first];
  }
}

bool RegionRows::read(int row, std::uint16_t* const* rgb) {
  const Kernels& kernel = kernels();
  const int y = region_.y + row;
  int last = y / frame_->mcu_height();
  if (frame_->shift_y() != 0 && (y & 1) != 0) {
    last = std::min(frame_->component[1].height - 1, (y >> 1) + 1) / kBlock;
  }
  for (; loaded_ <= last; ++loaded_) {
    if (!load(loaded_)) return false;
  }
  const int x = region_.x & ~frame_->shift_x(), before = region_.x - x;
  const int width = region_.width + before;
  switch (frame_->sampling) {
    case Sampling::grey:
      kernel.grey(sample(0, x, y), width, rgb[0]);
      for (int c = 1; c < 3; ++c) std::memcpy(rgb[c], rgb[0], std::size_t(width) * sizeof *rgb[0]);
      return true;
    case Sampling::full:
      kernel.full(sample(0, x, y), sample(1, x, y), sample(2, x, y), width, rgb);
      return true;
    default: break;
  }
  chroma_sums(y);
  // Rounding of even and odd pixels. Source: libjpeg's h2v2 and h2v1 fancy upsampling; the latter's
  // 1/4 and 2/4 are 4/16 and 8/16 here.
  const bool quarter = frame_->sampling == Sampling::quarter;
  std::uint16_t* const shifted[3] = {rgb[0] - before, rgb[1] - before, rgb[2] - before};
  kernel.half(sample(0, x, y), sums_[0].data() + kNeighbour, sums_[1].data() + kNeighbour,
              quarter ? 8 : 4, quarter ? 7 : 8, width, shifted);
  return true;
}

}  // namespace coordl
