#include "prep/pixels.hpp"

#include <array>

#include "prep/kernels.hpp"

namespace coordl {

bool read_interleaved(PixelRows& rows, int width, int height, std::uint8_t* out,
                      std::vector<std::uint16_t>& buffer) {
  const std::size_t line = std::size_t(width) + kRowMargin + kSlack;
  if (buffer.size() < 3 * line) buffer.resize(3 * line);
  std::array<std::uint16_t*, 3> rgb{};
  for (int c = 0; c < 3; ++c) rgb[c] = buffer.data() + c * line + kRowMargin;
  for (int row = 0; row < height; ++row) {
    if (!rows.read(row, rgb.data())) return false;
    for (int i = 0; i < width; ++i) {
      for (int c = 0; c < 3; ++c) *out++ = static_cast<std::uint8_t>(rgb[c][i] >> 8);
    }
  }
  return true;
}

}  // namespace coordl
