// Levels -> what the consumer asked for: mirrored, normalised, of its type and layout, erased.
//
// Thread safety: pure functions on the caller's memory.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "prep/pass.hpp"

namespace coordl {

// `levels`: (3, out_height, out_width) of pass.geometry, C order, before any mirror. `draw`: its
// flips and its erased box count. REQUIRES: out.size() == pass.sample_bytes(), aligned for pass.pixel.
void finish(const std::uint8_t* levels, const Pass& pass, const Draw& draw,
            std::span<std::byte> out);

// The nearest value of IEEE 754 half precision, or of bfloat16, as bits; ties to even.
std::uint16_t to_float16(float value);
std::uint16_t to_bfloat16(float value);

}  // namespace coordl
