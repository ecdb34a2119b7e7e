#include "fuzz/fuzz.hpp"

#include <algorithm>
#include <array>

namespace coordl::fuzz {

std::uint64_t hash_of(std::span<const std::uint8_t> input) {
  std::uint64_t hash = 0xCBF29CE484222325u ^ input.size();
  for (const std::uint8_t byte : input) hash = (hash ^ byte) * 0x100000001B3u;
  return hash;
}

void mutate_anywhere(Bytes& bytes, Chance& chance) {
  if (bytes.empty()) bytes.push_back(chance.byte());
  const std::size_t at = std::size_t(chance.below(bytes.size()));
  const std::size_t length = std::min(bytes.size() - at, std::size_t(chance.within(1, 16)));
  const auto here = bytes.begin() + std::ptrdiff_t(at);
  switch (chance.below(7)) {
    case 0: bytes[at] ^= static_cast<std::uint8_t>(1u << chance.below(8)); break;
    case 1: bytes[at] = chance.byte(); break;
    case 2:
      for (std::size_t i = 0; i < length; ++i) bytes[at + i] = chance.byte();
      break;
    case 3: bytes.erase(here, here + std::ptrdiff_t(length)); break;
    case 4: bytes.insert(here, length, chance.byte()); break;
    case 5: {
      const Bytes piece(here, here + std::ptrdiff_t(length));
      const auto to = bytes.begin() + chance.below(bytes.size());
      bytes.insert(to, piece.begin(), piece.end());
      break;
    }
    default:
      if (chance.one_in(4)) bytes.resize(at);
      else ++bytes[at];
  }
}

std::optional<Bytes> pixels_of(PixelRows* rows, const Region& region) {
  if (rows == nullptr) return std::nullopt;
  std::array<std::vector<std::uint16_t>, 3> lines;
  for (auto& line : lines) line.resize(std::size_t(kRowMargin) + region.width + kSlack / 2);
  std::uint16_t* const rgb[3] = {lines[0].data() + kRowMargin, lines[1].data() + kRowMargin,
                                 lines[2].data() + kRowMargin};
  Bytes pixels;
  pixels.reserve(std::size_t(3) * region.width * region.height);
  for (int row = 0; row < region.height; ++row) {
    if (!rows->read(row, rgb)) return std::nullopt;
    for (int i = 0; i < region.width; ++i) {
      for (const auto* line : rgb) {
        HOLDS((line[i] & 255) == 0);  // whole levels
        pixels.push_back(static_cast<std::uint8_t>(line[i] >> 8));
      }
    }
  }
  return pixels;
}

Region random_region(Chance& chance, const ImageSize& size) {
  Region region;
  region.width = chance.within(1, size.width);
  region.height = chance.within(1, size.height);
  region.x = chance.within(0, size.width - region.width);
  region.y = chance.within(0, size.height - region.height);
  return region;
}

Bytes part_of(const Bytes& image, int width, const Region& region) {
  Bytes part;
  part.reserve(std::size_t(3) * region.width * region.height);
  for (int row = 0; row < region.height; ++row) {
    const auto from = image.begin() + 3 * (std::ptrdiff_t(region.y + row) * width + region.x);
    part.insert(part.end(), from, from + 3 * region.width);
  }
  return part;
}

void for_each_table(const std::function<void()>& run) {
  const auto tables = usable_kernels();
  for (auto table = tables.rbegin(); table != tables.rend(); ++table) {
    forced_kernels = *table;
    run();
  }
  forced_kernels = nullptr;
}

}  // namespace coordl::fuzz
