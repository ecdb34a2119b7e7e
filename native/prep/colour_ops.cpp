#include "prep/colour_ops.hpp"

#include <algorithm>
#include <array>

namespace coordl {
namespace {

using Table = std::array<std::uint8_t, 256>;

// Pillow's L: ITU-R 601-2 luma in 16-bit fixed point, rounded.
std::uint8_t luma(std::uint8_t red, std::uint8_t green, std::uint8_t blue) {
  return static_cast<std::uint8_t>((red * 19595u + green * 38470u + blue * 7471u + 0x8000u) >> 16);
}

// Pillow's blend: in float32, cut off below the point, clipped where the factor leaves [0, 1].
std::uint8_t blend(std::uint8_t from, std::uint8_t to, float factor) {
  const float value =
      static_cast<float>(from) + factor * static_cast<float>(int(to) - int(from));
  return static_cast<std::uint8_t>(static_cast<int>(std::clamp(value, 0.0f, 255.0f)));
}

Table blend_from(std::uint8_t from, float factor) {
  Table table;
  for (int level = 0; level < 256; ++level) {
    table[level] = blend(from, static_cast<std::uint8_t>(level), factor);
  }
  return table;
}

void look_up(const Table& table, std::uint8_t* levels, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) levels[i] = table[levels[i]];
}

std::uint8_t mean_luma(const std::uint8_t* levels, std::size_t plane) {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < plane; ++i) {
    sum += luma(levels[i], levels[plane + i], levels[2 * plane + i]);
  }
  return static_cast<std::uint8_t>(static_cast<double>(sum) / static_cast<double>(plane) + 0.5);
}

// Towards (or away from) the grey picture; a factor of 0 is the grey picture.
void saturate(float factor, std::uint8_t* levels, std::size_t plane) {
  std::uint8_t* const green = levels + plane;
  std::uint8_t* const blue = green + plane;
  for (std::size_t i = 0; i < plane; ++i) {
    const std::uint8_t grey = luma(levels[i], green[i], blue[i]);
    levels[i] = blend(grey, levels[i], factor);
    green[i] = blend(grey, green[i], factor);
    blue[i] = blend(grey, blue[i], factor);
  }
}

}  // namespace

void apply_colours(std::span<const ColourOp> ops, std::uint8_t* levels, std::size_t plane) {
  for (const ColourOp& op : ops) {
    const float factor = static_cast<float>(op.factor);
    switch (op.kind) {
      case ColourOp::Kind::brightness:
        look_up(blend_from(0, factor), levels, 3 * plane);
        break;
      case ColourOp::Kind::contrast:
        look_up(blend_from(mean_luma(levels, plane), factor), levels, 3 * plane);
        break;
      case ColourOp::Kind::saturation:
        saturate(factor, levels, plane);
        break;
      case ColourOp::Kind::grey:
        saturate(0, levels, plane);
        break;
    }
  }
}

}  // namespace coordl
