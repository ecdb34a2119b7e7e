// Brightness, contrast, saturation and grey on 8-bit levels, with the results of Pillow's ImageEnhance
// and convert("L"), bit for bit.
//
// Thread safety: pure functions on the caller's memory.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "prep/pass.hpp"

namespace coordl {

// Does the ops, first to last, to three planes of `plane` > 0 levels each (red, green, blue).
void apply_colours(std::span<const ColourOp> ops, std::uint8_t* levels, std::size_t plane);

}  // namespace coordl
