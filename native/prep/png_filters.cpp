#include "prep/png_filters.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace coordl {
namespace {

void undo_up(std::uint8_t* __restrict row, const std::uint8_t* __restrict above, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; ++i) row[i] = static_cast<std::uint8_t>(row[i] + above[i]);
}

#ifndef __SSE2__

std::uint8_t nearest(int left, int up, int corner) {
  const int to_left = std::abs(up - corner), to_up = std::abs(left - corner);
  const int to_corner = std::abs(left + up - 2 * corner);
  if (to_left <= to_up && to_left <= to_corner) return static_cast<std::uint8_t>(left);
  return static_cast<std::uint8_t>(to_up <= to_corner ? up : corner);
}

template <std::size_t pixel>
void undo(PngFilter filter, std::uint8_t* row, const std::uint8_t* above, std::size_t bytes) {
  const std::size_t first = std::min(pixel, bytes);
  const auto add = [&](std::size_t i, int value) {
    row[i] = static_cast<std::uint8_t>(row[i] + value);
  };
  switch (filter) {
    case PngFilter::left:
      for (std::size_t i = pixel; i < bytes; ++i) add(i, row[i - pixel]);
      break;
    case PngFilter::average:
      for (std::size_t i = 0; i < first; ++i) add(i, above[i] / 2);
      for (std::size_t i = pixel; i < bytes; ++i) add(i, (row[i - pixel] + above[i]) / 2);
      break;
    case PngFilter::paeth:
      for (std::size_t i = 0; i < first; ++i) add(i, above[i]);
      for (std::size_t i = pixel; i < bytes; ++i) {
        add(i, nearest(row[i - pixel], above[i], above[i - pixel]));
      }
      break;
    default:
      break;
  }
}

#else

// A pixel in the low lanes. Four or eight bytes are read, the pixel's are written. One byte a pixel
// gains too: there is no branch to mispredict.
template <int pixel>
__m128i load(const std::uint8_t* at) {
  if constexpr (pixel > 4) return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(at));
  int word;
  std::memcpy(&word, at, 4);
  return _mm_cvtsi32_si128(word);
}

template <int pixel>
void store(std::uint8_t* at, __m128i value) {
  std::uint8_t bytes[8];
  _mm_storel_epi64(reinterpret_cast<__m128i*>(bytes), value);
  std::memcpy(at, bytes, pixel);
}

template <int pixel>
void undo_left(std::uint8_t* row, std::size_t bytes) {
  __m128i left = _mm_setzero_si128();
  for (std::size_t i = 0; i < bytes; i += pixel) {
    left = _mm_add_epi8(load<pixel>(row + i), left);
    store<pixel>(row + i, left);
  }
}

template <int pixel>
void undo_average(std::uint8_t* row, const std::uint8_t* above, std::size_t bytes) {
  const __m128i one = _mm_set1_epi8(1);
  __m128i left = _mm_setzero_si128();
  for (std::size_t i = 0; i < bytes; i += pixel) {
    const __m128i up = load<pixel>(above + i);
    // avg_epu8 rounds up where PNG rounds down.
    const __m128i odd = _mm_and_si128(_mm_xor_si128(left, up), one);
    left = _mm_add_epi8(load<pixel>(row + i), _mm_sub_epi8(_mm_avg_epu8(left, up), odd));
    store<pixel>(row + i, left);
  }
}

__m128i magnitude(__m128i value) {
  return _mm_max_epi16(value, _mm_sub_epi16(_mm_setzero_si128(), value));
}

__m128i choose(__m128i mask, __m128i yes, __m128i no) {
  return _mm_or_si128(_mm_and_si128(mask, yes), _mm_andnot_si128(mask, no));
}

template <int pixel>
void undo_paeth(std::uint8_t* row, const std::uint8_t* above, std::size_t bytes) {
  const __m128i zero = _mm_setzero_si128(), low = _mm_set1_epi16(0xFF);
  __m128i left = zero, corner = zero;
  for (std::size_t i = 0; i < bytes; i += pixel) {
    const __m128i up = _mm_unpacklo_epi8(load<pixel>(above + i), zero);
    const __m128i value = _mm_unpacklo_epi8(load<pixel>(row + i), zero);
    const __m128i slope = _mm_sub_epi16(up, corner), rise = _mm_sub_epi16(left, corner);
    const __m128i to_left = magnitude(slope), to_up = magnitude(rise);
    const __m128i to_corner = magnitude(_mm_add_epi16(slope, rise));
    const __m128i least = _mm_min_epi16(to_corner, _mm_min_epi16(to_left, to_up));
    const __m128i up_or_corner = choose(_mm_cmpeq_epi16(least, to_up), up, corner);
    const __m128i guess = choose(_mm_cmpeq_epi16(least, to_left), left, up_or_corner);
    left = _mm_and_si128(_mm_add_epi16(value, guess), low);
    corner = up;
    store<pixel>(row + i, _mm_packus_epi16(left, left));
  }
}

template <int pixel>
void undo(PngFilter filter, std::uint8_t* row, const std::uint8_t* above, std::size_t bytes) {
  if (filter == PngFilter::left) undo_left<pixel>(row, bytes);
  if (filter == PngFilter::average) undo_average<pixel>(row, above, bytes);
  if (filter == PngFilter::paeth) undo_paeth<pixel>(row, above, bytes);
}

#endif

}  // namespace

void undo_filter(PngFilter filter, std::uint8_t* row, const std::uint8_t* above, std::size_t bytes,
                 int pixel_bytes) {
  if (filter == PngFilter::none) return;
  if (filter == PngFilter::up) return undo_up(row, above, bytes);
  switch (pixel_bytes) {
    case 1:
      return undo<1>(filter, row, above, bytes);
    case 2:
      return undo<2>(filter, row, above, bytes);
    case 3:
      return undo<3>(filter, row, above, bytes);
    case 4:
      return undo<4>(filter, row, above, bytes);
    case 6:
      return undo<6>(filter, row, above, bytes);
    default:
      return undo<8>(filter, row, above, bytes);
  }
}

}  // namespace coordl
