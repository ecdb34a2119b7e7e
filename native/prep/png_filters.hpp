// PNG's row filters undone, in place.
#pragma once
#include <cstddef>
#include <cstdint>

namespace coordl {

enum class PngFilter : std::uint8_t { none = 0, left = 1, up = 2, average = 3, paeth = 4 };

inline constexpr int kPngFilters = 5;  // a row that names another is damaged

// Bytes beyond a row and the row above it that are read, never used or written.
inline constexpr std::size_t kFilterSlack = 8;

// Restores `bytes` bytes of `row`; `above` is the restored row above it, zeros for the first one.
// `pixel_bytes`: 1, 2, 3, 4, 6 or 8, from a sample to the same one of the pixel to the left; 1 where a
// byte holds several pixels.
// REQUIRES: the pixel left of the row counts as zero, so `row` is a row's beginning.
void undo_filter(PngFilter filter, std::uint8_t* row, const std::uint8_t* above, std::size_t bytes,
                 int pixel_bytes);

}  // namespace coordl
