// NEON in plain C++, from SIMDe: stands in for the compiler's header of this name.
#pragma once
#define SIMDE_ENABLE_NATIVE_ALIASES
#define SIMDE_NO_NATIVE
#include <simde/arm/neon.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

// What SIMDe 0.7.4 lacks: `low`, then eight values saturated to [0, 255].
#ifndef vqmovun_high_s16
inline uint8x16_t coordl_vqmovun_high_s16(uint8x8_t low, int16x8_t wide) {
  std::int16_t values[8];
  std::uint8_t bytes[16];
  std::memcpy(values, &wide, sizeof values);
  std::memcpy(bytes, &low, 8);
  for (int i = 0; i < 8; ++i) {
    bytes[8 + i] = static_cast<std::uint8_t>(std::clamp<int>(values[i], 0, 255));
  }
  uint8x16_t all;
  std::memcpy(&all, bytes, sizeof all);
  return all;
}
#define vqmovun_high_s16(low, wide) coordl_vqmovun_high_s16(low, wide)
#endif
