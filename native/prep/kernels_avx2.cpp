// The kernels with AVX2. Twins of those in kernels_scalar.cpp, same bits.
#include "prep/kernels.hpp"

#ifdef COORDL_HAS_AVX2
#include <immintrin.h>

#define COORDL_AVX2 __attribute__((target("avx2")))
#define COORDL_AVX2_INLINE __attribute__((target("avx2"), always_inline)) inline

namespace coordl {
namespace {

constexpr int kWeightBits = 14;
constexpr int kHorizontalShift = kWeightBits + kLineBits;

COORDL_AVX2_INLINE __m256i load(const void* from) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(from));
}

COORDL_AVX2_INLINE void save(void* to, __m256i value) {
  _mm256_storeu_si256(static_cast<__m256i*>(to), value);
}

COORDL_AVX2_INLINE __m256i pair_of_weights(const std::int16_t* weights) {
  return _mm256_set1_epi32(static_cast<std::uint16_t>(weights[0]) |
                           static_cast<std::int32_t>(weights[1]) << 16);
}

COORDL_AVX2 void vertical(const std::uint8_t* const* rows, std::span<const std::int16_t> weights,
                          std::size_t count, std::int16_t* out) {
  constexpr int shift = kWeightBits - kLineBits;
  const __m256i zero = _mm256_setzero_si256();
  const __m256i half = _mm256_set1_epi32(1 << (shift - 1));
  for (std::size_t at = 0; at < count; at += kWide) {
    __m256i sum0 = half, sum1 = half, sum2 = half, sum3 = half;
    for (std::size_t t = 0; t < weights.size(); t += 2) {
      const __m256i weight = pair_of_weights(&weights[t]);
      const __m256i a = load(rows[t] + at), b = load(rows[t + 1] + at);
      const __m256i low = _mm256_unpacklo_epi8(a, b), high = _mm256_unpackhi_epi8(a, b);
      sum0 = _mm256_add_epi32(sum0, _mm256_madd_epi16(_mm256_unpacklo_epi8(low, zero), weight));
      sum1 = _mm256_add_epi32(sum1, _mm256_madd_epi16(_mm256_unpackhi_epi8(low, zero), weight));
      sum2 = _mm256_add_epi32(sum2, _mm256_madd_epi16(_mm256_unpacklo_epi8(high, zero), weight));
      sum3 = _mm256_add_epi32(sum3, _mm256_madd_epi16(_mm256_unpackhi_epi8(high, zero), weight));
    }
    // The unpacks work within halves of the vector: lines 0-7 and 16-23 are in the first pack.
    const __m256i first =
        _mm256_packs_epi32(_mm256_srai_epi32(sum0, shift), _mm256_srai_epi32(sum1, shift));
    const __m256i second =
        _mm256_packs_epi32(_mm256_srai_epi32(sum2, shift), _mm256_srai_epi32(sum3, shift));
    save(out + at, _mm256_permute2x128_si256(first, second, 0x20));
    save(out + at + 16, _mm256_permute2x128_si256(first, second, 0x31));
  }
}

// Transposes the 8x8 blocks of 16-bit values in the low and in the high halves of eight vectors.
COORDL_AVX2_INLINE void transpose_8x8(__m256i v[8]) {
  __m256i a[8], b[8];
  for (int i = 0; i < 4; ++i) {
    a[2 * i] = _mm256_unpacklo_epi16(v[2 * i], v[2 * i + 1]);
    a[2 * i + 1] = _mm256_unpackhi_epi16(v[2 * i], v[2 * i + 1]);
  }
  for (int i = 0; i < 2; ++i) {
    for (int k = 0; k < 2; ++k) {
      b[4 * i + 2 * k] = _mm256_unpacklo_epi32(a[4 * i + k], a[4 * i + k + 2]);
      b[4 * i + 2 * k + 1] = _mm256_unpackhi_epi32(a[4 * i + k], a[4 * i + k + 2]);
    }
  }
  for (int k = 0; k < 4; ++k) {
    v[2 * k] = _mm256_unpacklo_epi64(b[k], b[k + 4]);
    v[2 * k + 1] = _mm256_unpackhi_epi64(b[k], b[k + 4]);
  }
}

COORDL_AVX2 void transpose(const std::int16_t* lines, std::size_t stride, std::size_t count,
                           std::int16_t* columns) {
  for (std::size_t at = 0; at < count; at += 8) {
    __m256i v[8];
    for (int row = 0; row < 8; ++row) {
      const std::int16_t* from = lines + row * stride + at;
      const auto top = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
      const auto bottom = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 8 * stride));
      v[row] = _mm256_inserti128_si256(_mm256_castsi128_si256(top), bottom, 1);
    }
    transpose_8x8(v);
    for (int i = 0; i < 8; ++i) save(columns + (at + i) * kRows, v[i]);
  }
}

COORDL_AVX2 void horizontal(const std::int16_t* columns, const Axis& axis, bool flip,
                            std::int16_t* finished) {
  const int outputs = axis.outputs();
  const __m256i half = _mm256_set1_epi32(1 << (kHorizontalShift - 1));
  for (int o = 0; o < outputs; ++o) {
    const auto weights = axis.weights(o);
    const std::int16_t* column = columns + std::size_t(axis.first(o)) * 3 * kRows;
    __m256i low[3] = {half, half, half}, high[3] = {half, half, half};
    for (std::size_t t = 0; t < weights.size(); t += 2, column += 6 * kRows) {
      const __m256i weight = pair_of_weights(&weights[t]);
      for (int channel = 0; channel < 3; ++channel) {
        const __m256i a = load(column + channel * kRows), b = load(column + (channel + 3) * kRows);
        low[channel] = _mm256_add_epi32(
            low[channel], _mm256_madd_epi16(_mm256_unpacklo_epi16(a, b), weight));
        high[channel] = _mm256_add_epi32(
            high[channel], _mm256_madd_epi16(_mm256_unpackhi_epi16(a, b), weight));
      }
    }
    const int place = flip ? outputs - 1 - o : o;
    for (int channel = 0; channel < 3; ++channel) {
      save(finished + (std::size_t(channel) * outputs + place) * kRows,
           _mm256_packs_epi32(_mm256_srai_epi32(low[channel], kHorizontalShift),
                              _mm256_srai_epi32(high[channel], kHorizontalShift)));
    }
  }
}

// Eight outputs of all rows: v[i] holds rows i (low half) and i + 8 (high half).
COORDL_AVX2_INLINE void load_outputs(const std::int16_t* finished, __m256i v[8]) {
  for (int i = 0; i < 8; ++i) v[i] = load(finished + i * kRows);
  transpose_8x8(v);
}

COORDL_AVX2 void store_float(const std::int16_t* finished, int outputs, int rows, float scale,
                             float bias, float* out) {
  if (outputs < 8) return kScalarKernels.store_float(finished, outputs, rows, scale, bias, out);
  const __m256 scales = _mm256_set1_ps(scale), biases = _mm256_set1_ps(bias);
  for (int next = 0; next < outputs; next += 8) {
    const int at = next + 8 <= outputs ? next : outputs - 8;  // the last step may overlap
    __m256i v[8];
    load_outputs(finished + std::size_t(at) * kRows, v);
    for (int row = 0; row < rows; ++row) {
      const __m128i levels = row < 8 ? _mm256_castsi256_si128(v[row & 7])
                                     : _mm256_extracti128_si256(v[row & 7], 1);
      const __m256 values = _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(levels));
      _mm256_storeu_ps(out + std::size_t(row) * outputs + at,
                       _mm256_add_ps(_mm256_mul_ps(values, scales), biases));
    }
  }
}

COORDL_AVX2 void store_bytes(const std::int16_t* finished, int outputs, int rows,
                             std::uint8_t* out) {
  if (outputs < 8) return kScalarKernels.store_bytes(finished, outputs, rows, out);
  for (int next = 0; next < outputs; next += 8) {
    const int at = next + 8 <= outputs ? next : outputs - 8;
    __m256i v[8];
    load_outputs(finished + std::size_t(at) * kRows, v);
    for (int row = 0; row < rows; ++row) {
      const __m128i levels = row < 8 ? _mm256_castsi256_si128(v[row & 7])
                                     : _mm256_extracti128_si256(v[row & 7], 1);
      _mm_storel_epi64(reinterpret_cast<__m128i*>(out + std::size_t(row) * outputs + at),
                       _mm_packus_epi16(levels, levels));
    }
  }
}

}  // namespace

const Kernels kAvx2Kernels{"avx2", vertical, transpose, horizontal, store_float, store_bytes};

}  // namespace coordl
#endif
