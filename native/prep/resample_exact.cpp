#include "prep/resample_exact.hpp"

#include <algorithm>
#include <cmath>

namespace coordl {
namespace {

constexpr int kBits = 22;
constexpr std::int32_t kHalf = 1 << (kBits - 1);

// Keys' cubic convolution with a = -0.5: the kernel of Pillow's (and MATLAB's) bicubic.
double cubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
  if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
  return 0.0;
}

std::uint8_t level(std::int32_t sum) {
  return static_cast<std::uint8_t>(std::clamp(sum >> kBits, 0, 255));
}

// One row of RGB pixels -> three rows of x.outputs() levels, one after the other.
void resize_row(const std::uint8_t* pixels, const ExactAxis& x, std::uint8_t* out) {
  const int width = x.outputs();
  for (int o = 0; o < width; ++o) {
    std::int32_t red = kHalf, green = kHalf, blue = kHalf;
    const std::uint8_t* pixel = pixels + std::size_t(3) * x.first(o);
    for (const std::int32_t weight : x.weights(o)) {
      red += pixel[0] * weight;
      green += pixel[1] * weight;
      blue += pixel[2] * weight;
      pixel += 3;
    }
    out[o] = level(red);
    out[width + o] = level(green);
    out[2 * width + o] = level(blue);
  }
}

// The weighted sum of rows of `count` levels, `stride` bytes apart.
void resize_column(const std::uint8_t* row, std::ptrdiff_t stride,
                   std::span<const std::int32_t> weights, std::size_t count, std::int32_t* sums,
                   std::uint8_t* out) {
  std::fill(sums, sums + count, kHalf);
  for (const std::int32_t weight : weights) {
    for (std::size_t i = 0; i < count; ++i) sums[i] += row[i] * weight;
    row += stride;
  }
  for (std::size_t i = 0; i < count; ++i) out[i] = level(sums[i]);
}

// Row `row` of all three planes from three rows that lie one after the other.
void spread(const std::uint8_t* rows, std::size_t width, std::size_t plane, std::uint8_t* out) {
  for (std::size_t channel = 0; channel < 3; ++channel) {
    std::copy_n(rows + channel * width, width, out + channel * plane);
  }
}

void columns_first(const PixelView& pixels, const ExactAxis& x, const ExactAxis& y,
                   std::uint8_t* levels, ExactBuffers& buffers) {
  const std::size_t width = x.outputs(), values = std::size_t(3) * (x.end() - x.begin());
  buffers.rows.resize(values);
  buffers.line.resize(3 * width);
  buffers.sums.resize(values);
  for (int o = 0; o < y.outputs(); ++o) {
    resize_column(pixels.first + y.first(o) * pixels.stride, pixels.stride, y.weights(o), values,
                  buffers.sums.data(), buffers.rows.data());
    resize_row(buffers.rows.data(), x, buffers.line.data());
    spread(buffers.line.data(), width, width * y.outputs(), levels + o * width);
  }
}

void rows_first(const PixelView& pixels, const ExactAxis& x, const ExactAxis& y,
                std::uint8_t* levels, ExactBuffers& buffers) {
  const std::size_t width = x.outputs(), line = 3 * width;
  buffers.rows.resize(line * (y.end() - y.begin()));
  buffers.line.resize(line);
  buffers.sums.resize(line);
  int done = 0;  // rows resized so far; those no output wants are passed over
  for (int o = 0; o < y.outputs(); ++o) {
    const int first = y.first(o), last = first + static_cast<int>(y.weights(o).size());
    for (done = std::max(done, first); done < last; ++done) {
      resize_row(pixels.first + done * pixels.stride, x, buffers.rows.data() + done * line);
    }
    resize_column(buffers.rows.data() + first * line, std::ptrdiff_t(line), y.weights(o), line,
                  buffers.sums.data(), buffers.line.data());
    spread(buffers.line.data(), width, width * y.outputs(), levels + o * width);
  }
}

}  // namespace

void ExactAxis::build(Filter filter, int source, int resized, int offset, int outputs) {
  const double scale = static_cast<double>(source) / resized;
  removed_ = source - resized;
  const int most = 2 * static_cast<int>(std::ceil(2 * std::max(scale, 1.0))) + 1;
  stride_ = filter == Filter::nearest ? 1 : most;
  first_.resize(outputs);
  taps_.resize(outputs);
  weights_.resize(std::size_t(outputs) * stride_);
  if (filter == Filter::nearest) {
    nearest(scale, source, offset);
  } else {
    bicubic(scale, source, offset);
  }
  begin_ = first_.front();  // centres only grow
  end_ = first_.back() + taps_.back();
  for (int o = 0; o < outputs; ++o) {
    begin_ = std::min(begin_, first_[o]);
    end_ = std::max(end_, first_[o] + taps_[o]);
  }
}

// The pixel under each output's centre. Pillow adds the step up from output to output, and so the
// rounding errors: done likewise.
void ExactAxis::nearest(double scale, int source, int offset) {
  double center = scale * 0.5;
  for (int o = 0; o < offset; ++o) center += scale;
  for (int& first : first_) {
    first = std::min(static_cast<int>(center), source - 1);
    center += scale;
  }
  std::fill(taps_.begin(), taps_.end(), 1);
  std::fill(weights_.begin(), weights_.end(), 1 << kBits);
}

// A kernel as wide as the reduction, cut at the borders of the source, normalised.
void ExactAxis::bicubic(double scale, int source, int offset) {
  const double widen = std::max(scale, 1.0), support = 2 * widen, narrow = 1 / widen;
  exact_.resize(stride_);
  for (int o = 0; o < outputs(); ++o) {
    const double center = (offset + o + 0.5) * scale;
    const int first = std::max(0, static_cast<int>(center - support + 0.5));
    const int count = std::min(source, static_cast<int>(center + support + 0.5)) - first;
    double sum = 0;
    for (int i = 0; i < count; ++i) {
      exact_[i] = cubic((i + first - center + 0.5) * narrow);
      sum += exact_[i];
    }
    std::int32_t* weights = weights_.data() + std::size_t(o) * stride_;
    for (int i = 0; i < count; ++i) {  // halves away from zero
      const double weight = sum != 0 ? exact_[i] / sum : exact_[i];
      weights[i] = static_cast<std::int32_t>(weight * (1 << kBits) + (weight < 0 ? -0.5 : 0.5));
    }
    first_[o] = first;
    taps_[o] = count;
  }
}

void resample_exact(const PixelView& pixels, const ExactAxis& x, const ExactAxis& y,
                    std::uint8_t* levels, ExactBuffers& buffers) {
  const bool columns = y.removed() > 0 && y.removed() > 2 * x.removed();
  (columns ? columns_first : rows_first)(pixels, x, y, levels, buffers);
}

}  // namespace coordl
