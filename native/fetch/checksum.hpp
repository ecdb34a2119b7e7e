// A 64-bit checksum of an item: finds torn, misplaced and flipped bytes. No defence against an
// attacker. Four independent lanes of multiply and rotate, so that it runs at memory speed.
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "fetch/item_key.hpp"

namespace coordl {

// Pure; same value on every little-endian machine.
inline std::uint64_t checksum(ItemKey key, std::span<const std::byte> bytes) noexcept {
  constexpr std::uint64_t a = 0xa0761d6478bd642full, b = 0xe7037ed1a0b428dbull;
  const auto word = [](const std::byte* at) {
    std::uint64_t value;
    std::memcpy(&value, at, sizeof value);
    return value;
  };
  const auto step = [](std::uint64_t lane, std::uint64_t value) {
    return std::rotl((lane ^ value) * a, 31);
  };
  const auto finish = [](std::uint64_t h) {
    h = (h ^ h >> 32) * b;
    h = (h ^ h >> 29) * a;
    return h ^ h >> 32;
  };
  std::uint64_t lanes[4] = {key.hi ^ a, key.lo ^ b, bytes.size() * b + a, ~key.hi * b ^ key.lo};
  const std::byte* at = bytes.data();
  std::size_t left = bytes.size();
  for (; left >= 32; left -= 32, at += 32) {
    for (int i = 0; i < 4; ++i) lanes[i] = step(lanes[i], word(at + 8 * i));
  }
  std::byte rest[32] = {};
  if (left > 0) std::memcpy(rest, at, left);
  for (int i = 0; i < 4; ++i) lanes[i] = step(lanes[i], word(rest + 8 * i));
  std::uint64_t h = bytes.size();
  for (const std::uint64_t lane : lanes) h = finish(h ^ lane) + b;
  return finish(h);
}

}  // namespace coordl
