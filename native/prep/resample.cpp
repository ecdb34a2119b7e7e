#include "prep/resample.hpp"

#include <algorithm>
#include <cmath>

#include "prep/kernels.hpp"

namespace coordl {
namespace {

constexpr int kOne = 1 << 14;

// Rounds the running sum, not each weight: they sum to one exactly, and their errors cancel between
// neighbours, so that reductions by hundreds stay right.
void quantise(std::span<const double> exact, double sum, std::int16_t* weights) {
  const double unit = kOne / sum;
  double running = 0;
  int before = 0;
  for (std::size_t t = 0; t < exact.size(); ++t) {
    running += exact[t];
    const int now = static_cast<int>(running * unit + 0.5);
    weights[t] = static_cast<std::int16_t>(now - before);
    before = now;
  }
}

std::size_t rounded_up(std::size_t value, std::size_t step) {
  return (value + step - 1) / step * step;
}

template <class Value>
void grow(std::vector<Value>& buffer, std::size_t size) {
  if (buffer.size() < size) buffer.resize(size);
}

}  // namespace

// The support and the weights are Pillow's: a triangle as wide as the reduction, cut at the borders
// of the source, normalised.
void Axis::build(int source, int resized, int offset, int outputs) {
  const double scale = static_cast<double>(source) / resized;
  const double support = std::max(scale, 1.0);
  const int most = 2 * static_cast<int>(std::ceil(support)) + 2;
  stride_ = most + most % 2;
  first_.resize(outputs);
  taps_.resize(outputs);
  weights_.assign(std::size_t(outputs) * stride_, 0);
  exact_.resize(stride_);
  const double slope = 1 / support;
  begin_ = source;
  end_ = 0;
  for (int o = 0; o < outputs; ++o) {
    const double center = (offset + o + 0.5) * scale;
    int first = std::max(0, static_cast<int>(center - support + 0.5));
    const int last = std::min(source, static_cast<int>(center + support + 0.5));
    double sum = 0;
    for (int i = first; i < last; ++i) {
      exact_[i - first] = std::max(0.0, 1 - std::abs((i - center + 0.5) * slope));
      sum += exact_[i - first];
    }
    std::int16_t* weights = weights_.data() + std::size_t(o) * stride_;
    quantise({exact_.data(), std::size_t(last - first)}, sum, weights);
    int count = last - first;
    while (weights[count - 1] == 0) --count;
    const auto leading =
        std::find_if(weights, weights + count, [](auto w) { return w != 0; }) - weights;
    std::copy(weights + leading, weights + count, weights);
    std::fill(weights + count - leading, weights + count, std::int16_t{0});
    first += static_cast<int>(leading);
    count -= static_cast<int>(leading);
    first_[o] = first;
    taps_[o] = count + count % 2;
    begin_ = std::min(begin_, first);
    end_ = std::max(end_, first + count);
  }
}

void resample(const PixelView& pixels, const Axis& x, const Axis& y, bool flip, const Pass& pass,
              std::span<std::byte> out, Strip& strip) {
  const Kernels& kernel = kernels();
  const std::size_t values = std::size_t(x.end() - x.begin()) * 3;
  const std::size_t line = rounded_up(values, kWide) + kWide;  // not a power of two: cache ways
  const int height = y.outputs(), width = x.outputs(), last = y.end() - y.begin() - 1;
  const std::size_t plane = std::size_t(height) * width;
  grow(strip.lines, kRows * line);
  grow(strip.columns, (line + 3) * kRows);  // a padding weight reads one pixel further
  grow(strip.finished, std::size_t(3) * width * kRows);
  for (int top = 0; top < height; top += kRows) {
    const int rows = std::min(kRows, height - top);
    for (int row = 0; row < rows; ++row) {
      const auto weights = y.weights(top + row);
      grow(strip.rows, weights.size());
      for (std::size_t t = 0; t < weights.size(); ++t) {
        const int source = std::min(y.first(top + row) + static_cast<int>(t), last);
        strip.rows[t] = pixels.first + source * pixels.stride;
      }
      kernel.vertical(strip.rows.data(), weights, values, strip.lines.data() + row * line);
    }
    kernel.transpose(strip.lines.data(), line, values, strip.columns.data());
    kernel.horizontal(strip.columns.data(), x, flip, strip.finished.data());
    for (int channel = 0; channel < 3; ++channel) {
      const std::int16_t* finished = strip.finished.data() + std::size_t(channel) * width * kRows;
      const std::size_t at = channel * plane + std::size_t(top) * width;
      if (pass.pixel == Pixel::float32) {
        kernel.store_float(finished, width, rows, pass.scale[channel], pass.bias[channel],
                           reinterpret_cast<float*>(out.data()) + at);
      } else {
        kernel.store_bytes(finished, width, rows, reinterpret_cast<std::uint8_t*>(out.data()) + at);
      }
    }
  }
}

}  // namespace coordl
