// The inner loops of prep, one table for each instruction set; all give the same bits.
//
// Pixels between the steps are 16-bit values, the level (0..255) times 256. Buffers are the caller's;
// kernels work on whole vectors and may read and write up to kSlack bytes beyond what counts.
//
// Thread safety: pure functions on the caller's memory.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace coordl {

inline constexpr std::size_t kSlack = 256;  // bytes; two of the widest vectors, and a step over

// Which source pixels make each output pixel of one axis, and with what weights (see resample.hpp).
struct Taps {
  const std::int32_t* first = nullptr;     // (outputs,) first source pixel
  const std::uint16_t* weights = nullptr;  // (outputs, count), of sum 2^16 or one less
  const std::uint16_t* losses = nullptr;   // (outputs,) what its products lose on average when cut off
  int outputs = 0;
  int count = 0;  // weights of each output; zero where there is nothing to weigh
};

struct Kernels {
  const char* name;
  int rows;  // output rows a resize works on together: the lanes of a vector

  // Packed blocks (prep/jpeg/packed.hpp) -> coefficients in natural order; where the next block is.
  const std::uint8_t* (*unpack)(const std::uint8_t* packed, int blocks, std::int16_t* coefficients);

  // The reverse, one block; writes up to 16 bytes beyond it. Where the next one begins, or null where a
  // value is too large for the form (no 8-bit image has such).
  std::uint8_t* (*pack)(const std::int16_t* block, std::uint8_t* to);

  // Whether coefficients x quantiser are all in [-8192, 8191], eight times what an image can hold. Beyond
  // it the plain and the vector code of libjpeg differ, and nobody promises anything.
  bool (*in_range)(const std::int16_t* coefficients, int blocks, const std::uint16_t* quantiser);

  // Coefficients x quantiser -> 8 rows of 8 * blocks samples: libjpeg's accurate inverse DCT.
  void (*idct)(const std::int16_t* coefficients, int blocks, const std::uint16_t* quantiser,
               std::uint8_t* out, std::ptrdiff_t stride);

  // out[i] = 3 * near[i] + far[i]: libjpeg's smooth upsampling downwards, unscaled.
  void (*chroma)(const std::uint8_t* near, const std::uint8_t* far, int count, std::int16_t* out);

  // One row of pixels from luma and what chroma() made, chroma being half as wide: smooth upsampling
  // to the right, with libjpeg's rounding for even and odd pixels, then YCbCr -> RGB. Reads one chroma
  // value before the first and one after the last. `count` pixels, an even number.
  void (*half)(const std::uint8_t* luma, const std::int16_t* cb, const std::int16_t* cr, int even,
               int odd, int count, std::uint16_t* const* rgb);
  // The same where chroma has full size, and where there is none.
  void (*full)(const std::uint8_t* luma, const std::uint8_t* cb, const std::uint8_t* cr, int count,
               std::uint16_t* const* rgb);
  void (*grey)(const std::uint8_t* luma, int count, std::uint16_t* out);

  // out[i] = weighted sum of rows[t][i] over t, for one output of the axis.
  void (*vertical)(const std::uint16_t* const* rows, const Taps& taps, int output, int count,
                   std::uint16_t* out);
  // `rows` lines of `stride` values -> columns[i][row].
  void (*transpose)(const std::uint16_t* lines, std::size_t stride, int count,
                    std::uint16_t* columns);
  // Three planes of columns[x][row], `plane` values apart -> finished[channel][output][row], levels
  // 0..255. Output o is stored at outputs - 1 - o when flipped.
  void (*horizontal)(const std::uint16_t* columns, std::size_t plane, const Taps& taps, bool flip,
                     std::uint16_t* finished);
  // finished[output][row] of one channel -> `rows` rows of `outputs` pixels at `out`.
  void (*store_float)(const std::uint16_t* finished, int outputs, int rows, float scale, float bias,
                      float* out);
  void (*store_bytes)(const std::uint16_t* finished, int outputs, int rows, std::uint8_t* out);
  // After the last of these: other threads may see what was stored once they know that it was.
  void (*drain)();
};

extern const Kernels kScalarKernels;
// Null where the compiler cannot make them.
extern const Kernels* const kAvx2Kernels;
extern const Kernels* const kAvx512Kernels;
extern const Kernels* const kNeonKernels;

// All tables this CPU runs, the best first; the plain one is the last.
std::vector<const Kernels*> usable_kernels();

// The best table this CPU runs, or the one COORDL_SIMD (scalar, avx2, avx512, neon) names. Decided at
// the first call. Throws std::runtime_error when the one named is not to be had here.
const Kernels& kernels();

#ifdef COORDL_FUZZ
// Where not null, what kernels() gives: fuzzers run every table in one process and one thread.
extern const Kernels* forced_kernels;
#endif

}  // namespace coordl
