#include "prep/finish.hpp"

#include <array>
#include <bit>
#include <cmath>
#include <cstring>

namespace coordl {
namespace {

template <class Value>
using Tables = std::array<std::array<Value, 256>, 3>;

template <class Value>
Value convert(float value, Pixel pixel) {
  if constexpr (sizeof(Value) == 2) {
    return pixel == Pixel::float16 ? to_float16(value) : to_bfloat16(value);
  } else {
    return static_cast<Value>(value);
  }
}

// There are 256 levels: the arithmetic is done once for each, not once for each pixel.
template <class Value>
Tables<Value> tables_of(const Pass& pass) {
  Tables<Value> tables;
  for (int channel = 0; channel < 3; ++channel) {
    for (int level = 0; level < 256; ++level) {
      const float value =
          pass.pixel == Pixel::uint8
              ? static_cast<float>(level)
              : static_cast<float>(level) * pass.scale[channel] + pass.bias[channel];
      tables[channel][level] = convert<Value>(value, pass.pixel);
    }
  }
  return tables;
}

// Where the value of a channel at (row, column) lies.
struct Steps {
  std::size_t channel, row, column;
};

Steps steps_of(const Pass& pass) {
  const std::size_t height = pass.geometry.out_height, width = pass.geometry.out_width;
  return pass.layout == Layout::chw ? Steps{height * width, width, 1} : Steps{1, 3 * width, 3};
}

template <class Value>
void write_row(const std::uint8_t* row, std::size_t width, bool flip,
               const std::array<Value, 256>& table, std::size_t step, Value* out) {
  if (flip) {
    for (std::size_t x = 0; x < width; ++x) out[x * step] = table[row[width - 1 - x]];
  } else if (step == 1) {  // known to the compiler: no multiplication, wide stores
    for (std::size_t x = 0; x < width; ++x) out[x] = table[row[x]];
  } else {
    for (std::size_t x = 0; x < width; ++x) out[x * step] = table[row[x]];
  }
}

template <class Value>
void erase(const Pass& pass, const Box& box, const Steps& steps, Value* out) {
  for (int channel = 0; channel < 3; ++channel) {
    const Value value = convert<Value>(pass.erase.value[channel], pass.pixel);
    for (int row = box.y; row < box.y + box.height; ++row) {
      for (int column = box.x; column < box.x + box.width; ++column) {
        out[channel * steps.channel + row * steps.row + column * steps.column] = value;
      }
    }
  }
}

template <class Value>
void write(const std::uint8_t* levels, const Pass& pass, const Draw& draw, Value* out) {
  const Tables<Value> tables = tables_of<Value>(pass);
  const Steps steps = steps_of(pass);
  const std::size_t height = pass.geometry.out_height, width = pass.geometry.out_width;
  for (std::size_t row = 0; row < height; ++row) {
    const std::size_t source = draw.vertical_flip ? height - 1 - row : row;
    for (std::size_t channel = 0; channel < 3; ++channel) {
      write_row(levels + (channel * height + source) * width, width, draw.flip, tables[channel],
                steps.column, out + channel * steps.channel + row * steps.row);
    }
  }
  erase(pass, draw.erase, steps, out);
}

}  // namespace

std::uint16_t to_bfloat16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if (std::isnan(value)) return static_cast<std::uint16_t>(bits >> 16 | 0x40);  // stays a NaN
  return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

std::uint16_t to_float16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000);
  const float size = std::abs(value);
  if (std::isnan(value)) return sign | 0x7e00;
  if (size >= 65520.0f) return sign | 0x7c00;  // halfway beyond the largest: infinity
  if (size < 0x1p-14f) {
    // Below the smallest normal number the steps are 2^-24: adding 0.5, whose last bit is that, rounds.
    return sign | static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(size + 0.5f) -
                                             std::bit_cast<std::uint32_t>(0.5f));
  }
  const std::uint32_t rebased = (bits & 0x7fffffff) - (std::uint32_t(127 - 15) << 23);
  return sign | static_cast<std::uint16_t>((rebased + 0xfff + (rebased >> 13 & 1)) >> 13);
}

void finish(const std::uint8_t* levels, const Pass& pass, const Draw& draw,
            std::span<std::byte> out) {
  switch (pass.pixel) {
    case Pixel::uint8:
      return write(levels, pass, draw, reinterpret_cast<std::uint8_t*>(out.data()));
    case Pixel::float32:
      return write(levels, pass, draw, reinterpret_cast<float*>(out.data()));
    case Pixel::float16:
    case Pixel::bfloat16:
      return write(levels, pass, draw, reinterpret_cast<std::uint16_t*>(out.data()));
  }
}

}  // namespace coordl
