// The inner loops of the resize, one table for each instruction set; all give the same bits.
//
// Thread safety: pure functions on the caller's memory.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "prep/resample.hpp"

namespace coordl {

inline constexpr int kRows = 16;         // output rows worked on together: the lanes of a vector
inline constexpr std::size_t kWide = 32;  // vertical() writes whole vectors of so many values
inline constexpr int kLineBits = 7;       // bits a line keeps below the pixel's unit

struct Kernels {
  const char* name;

  // out[i] = weighted sum of rows[t][i] over t, 7 fraction bits, for i < count rounded up to kWide.
  // An even number of rows; that many bytes readable in each and writable in `out`.
  void (*vertical)(const std::uint8_t* const* rows, std::span<const std::int16_t> weights,
                   std::size_t count, std::int16_t* out);

  // kRows lines of `stride` values -> columns[i][row], i < count rounded up to 8.
  void (*transpose)(const std::int16_t* lines, std::size_t stride, std::size_t count,
                    std::int16_t* columns);

  // columns[3 * pixel + channel][row] -> finished[channel][output][row], levels 0..255;
  // output o is stored at position outputs - 1 - o when flipped.
  void (*horizontal)(const std::int16_t* columns, const Axis& axis, bool flip,
                     std::int16_t* finished);

  // finished[output][row] of one channel -> `rows` rows of `outputs` pixels at `out`.
  void (*store_float)(const std::int16_t* finished, int outputs, int rows, float scale, float bias,
                      float* out);
  void (*store_bytes)(const std::int16_t* finished, int outputs, int rows, std::uint8_t* out);
};

extern const Kernels kScalarKernels;
#if defined(__x86_64__) && defined(__GNUC__)
#define COORDL_HAS_AVX2 1
extern const Kernels kAvx2Kernels;
#endif

// The best table this CPU runs; the plain one with COORDL_SIMD=scalar in the environment. Decided at
// the first call.
const Kernels& kernels();

}  // namespace coordl
