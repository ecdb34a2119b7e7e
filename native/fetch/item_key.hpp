// Identity of an item: 128 bits of hash over (source URI, byte range, size, mtime).
#pragma once
#include <compare>
#include <cstdint>

namespace coordl {

struct ItemKey {
  std::uint64_t hi = 0;
  std::uint64_t lo = 0;
  friend bool operator==(const ItemKey&, const ItemKey&) = default;
};

}  // namespace coordl
