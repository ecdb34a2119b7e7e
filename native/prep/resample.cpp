#include "prep/resample.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

namespace coordl {
namespace {

constexpr float kOne = 65536;
constexpr std::size_t kSlackValues = kSlack / sizeof(std::uint16_t);

// Rounds the running sum, not each weight: they sum to one exactly, and their errors cancel between
// neighbours, so that reductions by hundreds stay right.
// Returns half a unit for each product, which is what cutting them off loses on average.
std::uint16_t quantise(std::span<const float> exact, float sum, std::uint16_t* weights) {
  const float unit = kOne / sum;
  float running = 0;
  int before = 0, products = 0;
  for (std::size_t t = 0; t < exact.size(); ++t) {
    running += exact[t];
    const int now = static_cast<int>(running * unit + 0.5f);
    weights[t] = static_cast<std::uint16_t>(std::min(now - before, 65535));
    products += now > before;
    before = now;
  }
  return static_cast<std::uint16_t>(products / 2);
}

std::size_t rounded_up(std::size_t value, std::size_t step) {
  return (value + step - 1) / step * step;
}

void grow(std::vector<std::uint16_t>& buffer, std::size_t size) {
  if (buffer.size() < size) buffer.resize(size);
}

// The rows a vertical pass needs at a time, by turns in a ring of a power of two.
class Ring {
 public:
  Ring(PixelRows& rows, std::vector<std::uint16_t>& memory, std::size_t line, int held)
      : rows_(rows), memory_(memory), line_(line), mask_(std::bit_ceil(unsigned(held)) - 1) {
    grow(memory_, (std::size_t(mask_) + 1) * 3 * line_);
  }
  // Reads up to and including that row.
  bool reach(int row) {
    for (; read_ <= row; ++read_) {
      std::uint16_t* const rgb[3] = {at(read_, 0), at(read_, 1), at(read_, 2)};
      if (!rows_.read(read_, rgb)) return false;
    }
    return true;
  }
  std::uint16_t* at(int row, int channel) {
    return memory_.data() + ((unsigned(row) & mask_) * 3 + channel) * line_ + kRowMargin;
  }

 private:
  PixelRows& rows_;
  std::vector<std::uint16_t>& memory_;
  const std::size_t line_;
  const unsigned mask_;
  int read_ = 0;
};

}  // namespace

// The support and the weights are Pillow's: a triangle as wide as the reduction, cut at the borders
// of the source, normalised.
void Axis::build(int source, int resized, int offset, int outputs) {
  const double scale = static_cast<double>(source) / resized;
  const double support = std::max(scale, 1.0);
  const auto slope = static_cast<float>(1 / support);
  const int most = 2 * static_cast<int>(std::ceil(support)) + 1;
  first_.resize(outputs);
  losses_.resize(outputs);
  weights_.assign(std::size_t(outputs) * most, 0);
  exact_.resize(most);
  begin_ = source;
  end_ = count_ = 0;
  for (int o = 0; o < outputs; ++o) {
    const double center = (offset + o + 0.5) * scale;
    int first = std::max(0, static_cast<int>(center - support + 0.5));
    int last = std::min(source, static_cast<int>(center + support + 0.5));
    const auto before = static_cast<float>(first - center + 0.5);
    float sum = 0;
    for (int i = 0; i < last - first; ++i) {
      exact_[i] = std::max(0.0f, 1 - std::abs((before + static_cast<float>(i)) * slope));
      sum += exact_[i];
    }
    std::uint16_t* weights = weights_.data() + std::size_t(o) * most;
    losses_[o] = quantise({exact_.data(), std::size_t(last - first)}, sum, weights);
    while (weights[last - first - 1] == 0) --last;
    int leading = 0;
    while (weights[leading] == 0) ++leading;
    if (leading > 0) {
      std::copy(weights + leading, weights + (last - first), weights);
      std::fill(weights + (last - first) - leading, weights + (last - first), std::uint16_t{0});
      first += leading;
    }
    first_[o] = first;
    begin_ = std::min(begin_, first);
    end_ = std::max(end_, last);
    count_ = std::max(count_, last - first);
  }
  for (int o = 0; o < outputs; ++o) {
    first_[o] -= begin_;
    std::copy_n(weights_.data() + std::size_t(o) * most, count_,
                weights_.data() + std::size_t(o) * count_);
  }
}

bool resample(PixelRows& rows, const Axis& x, const Axis& y, bool flip, const Pass& pass,
              std::span<std::byte> out, Strip& strip) {
  const Kernels& kernel = kernels();
  const Taps across = x.taps(), down = y.taps();
  if (across.count + down.count > kMostTaps) return false;
  const int source_width = x.end() - x.begin(), last_row = y.end() - y.begin() - 1;
  // Odd numbers of cache lines, so that rows do not fall on the same few sets of a cache.
  const std::size_t line = rounded_up(std::size_t(source_width) + kRowMargin + kSlackValues, 64) + 32;
  const std::size_t plane = (rounded_up(source_width, 8) + across.count) * kernel.rows + 32;
  const int height = down.outputs, width = across.outputs;
  Ring ring(rows, strip.ring, line, down.count + 1);
  grow(strip.lines, 3 * kernel.rows * line);
  grow(strip.columns, 3 * plane + kSlackValues);
  grow(strip.finished, std::size_t(3) * width * kernel.rows + kSlackValues);
  const auto lines = [&](int channel) { return strip.lines.data() + channel * kernel.rows * line; };
  std::vector<const std::uint16_t*> sources(down.count);
  for (int top = 0; top < height; top += kernel.rows) {
    const int count = std::min(kernel.rows, height - top);
    for (int row = 0; row < count; ++row) {
      const int first = down.first[top + row];
      if (!ring.reach(std::min(first + down.count - 1, last_row))) return false;
      for (int channel = 0; channel < 3; ++channel) {
        for (int t = 0; t < down.count; ++t) {
          sources[t] = ring.at(std::min(first + t, last_row), channel);
        }
        kernel.vertical(sources.data(), down, top + row, source_width, lines(channel) + row * line);
      }
    }
    for (int channel = 0; channel < 3; ++channel) {
      kernel.transpose(lines(channel), line, source_width, strip.columns.data() + channel * plane);
    }
    kernel.horizontal(strip.columns.data(), plane, across, flip, strip.finished.data());
    for (int channel = 0; channel < 3; ++channel) {
      const std::uint16_t* finished =
          strip.finished.data() + std::size_t(channel) * width * kernel.rows;
      const std::size_t at = (std::size_t(channel) * height + top) * width;
      if (pass.pixel == Pixel::float32) {
        kernel.store_float(finished, width, count, pass.scale[channel], pass.bias[channel],
                           reinterpret_cast<float*>(out.data()) + at);
      } else {
        kernel.store_bytes(finished, width, count, reinterpret_cast<std::uint8_t*>(out.data()) + at);
      }
    }
  }
  kernel.drain();
  return true;
}

}  // namespace coordl
