// x86 vectors in plain C++, from SIMDe: stands in for the compiler's header of this name.
#pragma once
#define SIMDE_ENABLE_NATIVE_ALIASES
#define SIMDE_NO_NATIVE
#include <simde/x86/avx2.h>
#include <simde/x86/avx512.h>

#include <cstdint>
#include <cstring>

// What SIMDe 0.7.4 lacks or has under a wrong alias, value by value as Intel's guide defines it.
namespace coordl_emulate {

template <class To, class From>
To as(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

template <class T, int n>
struct Values {
  T of[n];
};
using U8x32 = Values<std::uint8_t, 32>;
using U16x16 = Values<std::uint16_t, 16>;
using U16x32 = Values<std::uint16_t, 32>;
using I16x32 = Values<std::int16_t, 32>;
using I32x16 = Values<std::int32_t, 16>;
using F32x16 = Values<float, 16>;

inline __m512i mulhi_epu16(__m512i a, __m512i b) {
  auto x = as<U16x32>(a);
  const auto y = as<U16x32>(b);
  for (int i = 0; i < 32; ++i) x.of[i] = static_cast<std::uint16_t>(std::uint32_t(x.of[i]) * y.of[i] >> 16);
  return as<__m512i>(x);
}

inline __m512i madd_epi16(__m512i a, __m512i b) {
  const auto x = as<I16x32>(a), y = as<I16x32>(b);
  I32x16 sum;
  for (int i = 0; i < 16; ++i) {
    const std::int64_t low = x.of[2 * i] * y.of[2 * i], high = x.of[2 * i + 1] * y.of[2 * i + 1];
    sum.of[i] = static_cast<std::int32_t>(low + high);
  }
  return as<__m512i>(sum);
}

inline __m512i srai_epi32(__m512i a, unsigned n) {
  auto x = as<I32x16>(a);
  for (auto& value : x.of) value >>= n > 31 ? 31 : n;
  return as<__m512i>(x);
}

inline __m512i cvtepu8_epi16(__m256i a) {
  const auto x = as<U8x32>(a);
  U16x32 wide;
  for (int i = 0; i < 32; ++i) wide.of[i] = x.of[i];
  return as<__m512i>(wide);
}

inline __m512i cvtepu16_epi32(__m256i a) {
  const auto x = as<U16x16>(a);
  I32x16 wide;
  for (int i = 0; i < 16; ++i) wide.of[i] = x.of[i];
  return as<__m512i>(wide);
}

inline __m512 cvtepi32_ps(__m512i a) {
  const auto x = as<I32x16>(a);
  F32x16 floats;
  for (int i = 0; i < 16; ++i) floats.of[i] = static_cast<float>(x.of[i]);
  return as<__m512>(floats);
}

inline void stream_ps(void* to, __m512 x) { std::memcpy(to, &x, sizeof x); }

}  // namespace coordl_emulate

#undef _mm512_mulhi_epu16
#undef _mm512_madd_epi16
#undef _mm512_srai_epi32
#undef _mm512_cvtepu8_epi16
#undef _mm512_cvtepu16_epi32
#undef _mm512_cvtepi32_ps
#undef _mm512_stream_ps
#define _mm512_mulhi_epu16(a, b) coordl_emulate::mulhi_epu16(a, b)
#define _mm512_madd_epi16(a, b) coordl_emulate::madd_epi16(a, b)
#define _mm512_srai_epi32(a, n) coordl_emulate::srai_epi32(a, n)
#define _mm512_cvtepu8_epi16(a) coordl_emulate::cvtepu8_epi16(a)
#define _mm512_cvtepu16_epi32(a) coordl_emulate::cvtepu16_epi32(a)
#define _mm512_cvtepi32_ps(a) coordl_emulate::cvtepi32_ps(a)
#define _mm512_stream_ps(to, x) coordl_emulate::stream_ps(to, x)
