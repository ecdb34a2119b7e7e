// Packed and indexed items of small JPEGs, and what changes to both have in common.
#pragma once
#include <cstring>

#include "fuzz/jpegs.hpp"
#include "prep/item.hpp"

namespace coordl::fuzz {

inline std::vector<Bytes> items_of(Form form) {
  ItemDecoder decoder;
  std::vector<std::byte> out;
  std::vector<Bytes> items;
  Chance chance(2);
  for (const Bytes& jpeg : jpegs_of_every_kind()) {
    const bool keep_header = chance.one_in(3);
    if (!decoder.recode(as_item(jpeg), form, keep_header, out)) continue;
    const auto* from = reinterpret_cast<const std::uint8_t*>(out.data());
    items.emplace_back(from, from + out.size());
  }
  return items;
}

template <class T>
T number_at(const Bytes& item, std::size_t at) {
  T value{};
  if (at + sizeof value <= item.size()) std::memcpy(&value, item.data() + at, sizeof value);
  return value;
}

template <class T>
void put_number(Bytes& item, std::size_t at, T value) {
  if (at + sizeof value <= item.size()) std::memcpy(item.data() + at, &value, sizeof value);
}

// Every region of an accepted item: inside bounds, and the same with every table of kernels.
inline void check_regions(std::span<const std::byte> item, Chance& chance) {
  static ItemDecoder decoder;
  const auto size = decoder.open(item);
  HOLDS(size && size->width > 0 && size->height > 0);
  for (int round = 0; round < 3; ++round) {
    Region region{0, 0, size->width, size->height};
    if (round > 0 || std::int64_t(size->width) * size->height > kMostPixels / 4) {
      region = random_region(chance, *size);
      while (std::int64_t(region.width) * region.height > kMostPixels / 4) {
        region.width = (region.width + 1) / 2;
        region.height = (region.height + 1) / 2;
      }
    }
    std::optional<Bytes> plain;
    bool first = true;
    for_each_table([&] {
      auto pixels = pixels_of(decoder.begin(region), region);
      if (first) plain = std::move(pixels);
      else HOLDS(pixels == plain);
      first = false;
    });
    HOLDS(decoder.retry(region) == nullptr);
  }
}

}  // namespace coordl::fuzz
