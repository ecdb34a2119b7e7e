// The plain kernels: what the vector ones must equal, and what runs on other CPUs.
#include "prep/kernels.hpp"

namespace coordl {
namespace {

constexpr int kWeightBits = 14;
constexpr int kHorizontalShift = kWeightBits + kLineBits;

void vertical(const std::uint8_t* const* rows, std::span<const std::int16_t> weights,
              std::size_t count, std::int16_t* out) {
  constexpr int shift = kWeightBits - kLineBits;
  for (std::size_t start = 0; start < count; start += kWide) {
    std::int32_t sums[kWide];
    for (auto& sum : sums) sum = 1 << (shift - 1);
    for (std::size_t t = 0; t < weights.size(); ++t) {
      const std::int32_t weight = weights[t];
      for (std::size_t i = 0; i < kWide; ++i) sums[i] += weight * rows[t][start + i];
    }
    for (std::size_t i = 0; i < kWide; ++i) {
      out[start + i] = static_cast<std::int16_t>(sums[i] >> shift);
    }
  }
}

void transpose(const std::int16_t* lines, std::size_t stride, std::size_t count,
               std::int16_t* columns) {
  for (int row = 0; row < kRows; ++row) {
    for (std::size_t i = 0; i < count; ++i) columns[i * kRows + row] = lines[row * stride + i];
  }
}

void horizontal(const std::int16_t* columns, const Axis& axis, bool flip, std::int16_t* finished) {
  const int outputs = axis.outputs();
  for (int o = 0; o < outputs; ++o) {
    const auto weights = axis.weights(o);
    const int place = flip ? outputs - 1 - o : o;
    for (int channel = 0; channel < 3; ++channel) {
      const std::int16_t* column = columns + (std::size_t(axis.first(o)) * 3 + channel) * kRows;
      std::int32_t sums[kRows];
      for (auto& sum : sums) sum = 1 << (kHorizontalShift - 1);
      for (std::size_t t = 0; t < weights.size(); ++t) {
        const std::int32_t weight = weights[t];
        for (int row = 0; row < kRows; ++row) sums[row] += weight * column[t * 3 * kRows + row];
      }
      std::int16_t* to = finished + (std::size_t(channel) * outputs + place) * kRows;
      for (int row = 0; row < kRows; ++row) {
        to[row] = static_cast<std::int16_t>(sums[row] >> kHorizontalShift);
      }
    }
  }
}

void store_float(const std::int16_t* finished, int outputs, int rows, float scale, float bias,
                 float* out) {
  for (int row = 0; row < rows; ++row) {
    for (int o = 0; o < outputs; ++o) {
      *out++ = static_cast<float>(finished[std::size_t(o) * kRows + row]) * scale + bias;
    }
  }
}

void store_bytes(const std::int16_t* finished, int outputs, int rows, std::uint8_t* out) {
  for (int row = 0; row < rows; ++row) {
    for (int o = 0; o < outputs; ++o) {
      *out++ = static_cast<std::uint8_t>(finished[std::size_t(o) * kRows + row]);
    }
  }
}

}  // namespace

const Kernels kScalarKernels{"scalar", vertical, transpose, horizontal, store_float, store_bytes};

}  // namespace coordl
