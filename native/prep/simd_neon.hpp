// Vectors of 8 values of 16 bits, NEON of AArch64; see kernels_vector.hpp for what each operation must
// do.
#pragma once
#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

namespace coordl {
namespace {

struct Neon {
  using I = int16x8_t;
  using Tile = int16x8_t;
  static constexpr int kLanes = 8;

  static int8x16_t b(I x) { return vreinterpretq_s8_s16(x); }
  static uint8x16_t ub(I x) { return vreinterpretq_u8_s16(x); }
  static uint16x8_t u(I x) { return vreinterpretq_u16_s16(x); }
  static int32x4_t w(I x) { return vreinterpretq_s32_s16(x); }
  static int64x2_t d(I x) { return vreinterpretq_s64_s16(x); }
  static I from(int8x16_t x) { return vreinterpretq_s16_s8(x); }
  static I from(uint8x16_t x) { return vreinterpretq_s16_u8(x); }
  static I from(uint16x8_t x) { return vreinterpretq_s16_u16(x); }
  static I from(int32x4_t x) { return vreinterpretq_s16_s32(x); }
  static I from(int64x2_t x) { return vreinterpretq_s16_s64(x); }

  static I load(const void* at) { return from(vld1q_u8(static_cast<const std::uint8_t*>(at))); }
  static void store(void* at, I x) { vst1q_u8(static_cast<std::uint8_t*>(at), ub(x)); }
  static I zero() { return vdupq_n_s16(0); }
  static I set16(int x) { return vdupq_n_s16(static_cast<std::int16_t>(x)); }
  static I set32(int x) { return from(vdupq_n_s32(x)); }
  static I add16(I a, I c) { return vaddq_s16(a, c); }
  static I sub16(I a, I c) { return vsubq_s16(a, c); }
  static I mullo16(I a, I c) { return vmulq_s16(a, c); }
  static I mulhi16(I a, I c) {
    return vuzp2q_s16(from(vmull_s16(vget_low_s16(a), vget_low_s16(c))), from(vmull_high_s16(a, c)));
  }
  static I mulhi_u16(I a, I c) {
    const uint32x4_t low = vmull_u16(vget_low_u16(u(a)), vget_low_u16(u(c)));
    const uint32x4_t high = vmull_high_u16(u(a), u(c));
    return from(vuzp2q_u16(vreinterpretq_u16_u32(low), vreinterpretq_u16_u32(high)));
  }
  template <int n> static I sra16(I a) { return vshrq_n_s16(a, n); }
  template <int n> static I srl16(I a) { return from(vshrq_n_u16(u(a), n)); }
  static I madd16(I a, I c) {
    return from(vpaddq_s32(vmull_s16(vget_low_s16(a), vget_low_s16(c)), vmull_high_s16(a, c)));
  }
  static I add32(I a, I c) { return from(vaddq_s32(w(a), w(c))); }
  static I sub32(I a, I c) { return from(vsubq_s32(w(a), w(c))); }
  template <int n> static I sra32(I a) { return from(vshrq_n_s32(w(a), n)); }
  static I packs32(I a, I c) { return vqmovn_high_s32(vqmovn_s32(w(a)), w(c)); }
  static I packs16(I a, I c) { return from(vqmovn_high_s16(vqmovn_s16(a), c)); }
  static I packus16(I a, I c) { return from(vqmovun_high_s16(vqmovun_s16(a), c)); }
  static I xor_(I a, I c) { return veorq_s16(a, c); }
  static I or_(I a, I c) { return vorrq_s16(a, c); }
  static I and_(I a, I c) { return vandq_s16(a, c); }
  static bool any(I a) { return vmaxvq_u16(u(a)) != 0; }
  static I lo8(I a, I c) { return from(vzip1q_s8(b(a), b(c))); }
  static I hi8(I a, I c) { return from(vzip2q_s8(b(a), b(c))); }
  static I lo16(I a, I c) { return vzip1q_s16(a, c); }
  static I hi16(I a, I c) { return vzip2q_s16(a, c); }
  static I lo32(I a, I c) { return from(vzip1q_s32(w(a), w(c))); }
  static I hi32(I a, I c) { return from(vzip2q_s32(w(a), w(c))); }
  static I lo64(I a, I c) { return from(vzip1q_s64(d(a), d(c))); }
  static I hi64(I a, I c) { return from(vzip2q_s64(d(a), d(c))); }

  static I widen(const std::uint8_t* at) { return from(vmovl_u8(vld1_u8(at))); }
  static I repeat_part(const std::uint16_t* at) { return from(vld1q_u16(at)); }
  template <class T>
  static I gather_parts(const T* at, std::size_t) { return load(at); }
  template <int kStep, class T>
  static I gather_parts(const T* at) { return load(at); }
  static Tile part(I x, int) { return x; }
  static void store_row_pair(I x, std::uint8_t* first, std::uint8_t* second) {
    vst1_u8(first, vget_low_u8(ub(x)));
    vst1_u8(second, vget_high_u8(ub(x)));
  }
  static void store_halves(I low, I high, std::uint16_t* to) {
    store(to, low);
    store(to + 8, high);
  }

  static Tile unpack_tile(const std::uint8_t* packed, const std::uint8_t* bytes,
                          const std::uint16_t* lift, const std::uint64_t* drop) {
    const I pairs = from(vqtbl1q_u8(vld1q_u8(packed), vld1q_u8(bytes)));
    const I down = vdupq_n_s16(static_cast<std::int16_t>(-static_cast<int>(drop[0])));
    return vshlq_s16(vmulq_s16(pairs, from(vld1q_u16(lift))), down);
  }
  static void store_tile(void* to, Tile x) { store(to, x); }
  static Tile tile_lo64(Tile a, Tile c) { return lo64(a, c); }
  static Tile tile_hi64(Tile a, Tile c) { return hi64(a, c); }
  static Tile load_corner(const std::int16_t* top, const std::int16_t* below) {
    return vcombine_s16(vld1_s16(top), vld1_s16(below));
  }
  static Tile drop_first(Tile x) { return vsetq_lane_s16(0, x, 0); }
  static Tile tile_or(Tile a, Tile c) { return or_(a, c); }
  static Tile tile_lo16(Tile a, Tile c) { return lo16(a, c); }
  static Tile tile_hi16(Tile a, Tile c) { return hi16(a, c); }
  static Tile tile_lo32(Tile a, Tile c) { return lo32(a, c); }
  static Tile tile_hi32(Tile a, Tile c) { return hi32(a, c); }
  // Twice the value, or twice and one less below 0: has as many bits as the value in two's complement.
  static Tile fold(Tile x) { return veorq_s16(vaddq_s16(x, x), vshrq_n_s16(x, 15)); }
  // How many bits each of the eight has, one byte for each.
  static std::uint64_t bit_lengths(Tile x) {
    const uint16x8_t lengths = vsubq_u16(vdupq_n_u16(16), vclzq_u16(u(x)));
    return vget_lane_u64(vreinterpret_u64_u8(vmovn_u16(lengths)), 0);
  }
  // The lowest bits, as many as the tables are for, of the first four values, one after the other, and
  // of the last four.
  static void join(Tile x, const std::uint16_t* mask, const std::uint16_t* beside,
                   const std::uint64_t* shift, std::uint64_t* half) {
    const uint16x8_t low = vandq_u16(u(x), vld1q_u16(mask)), factors = vld1q_u16(beside);
    const uint32x4_t pairs = vpaddq_u32(vmull_u16(vget_low_u16(low), vget_low_u16(factors)),
                                        vmull_high_u16(low, factors));
    const uint64x2_t both = vreinterpretq_u64_u32(pairs);
    const int64x2_t down = vdupq_n_s64(-static_cast<std::int64_t>(shift[0]));
    const uint64x2_t upper = vshlq_u64(vandq_u64(both, vdupq_n_u64(~0xFFFFFFFFull)), down);
    vst1q_u64(half, vorrq_u64(vandq_u64(both, vdupq_n_u64(0xFFFFFFFF)), upper));
  }
  static void store_bytes(Tile levels, std::uint8_t* to) { vst1_u8(to, vqmovun_s16(levels)); }
  static void store_bytes(Tile left, Tile right, std::uint8_t* to) {
    vst1q_u8(to, vcombine_u8(vqmovun_s16(left), vqmovun_s16(right)));
  }
  static void store_floats(Tile levels, float scale, float bias, float* to) {
    const float32x4_t low = vcvtq_f32_u32(vmovl_u16(vget_low_u16(u(levels))));
    const float32x4_t high = vcvtq_f32_u32(vmovl_high_u16(u(levels)));
    vst1q_f32(to, vaddq_f32(vmulq_f32(low, vdupq_n_f32(scale)), vdupq_n_f32(bias)));
    vst1q_f32(to + 4, vaddq_f32(vmulq_f32(high, vdupq_n_f32(scale)), vdupq_n_f32(bias)));
  }
  static void stream_floats(Tile left, Tile right, float scale, float bias, float* to) {
    store_floats(left, scale, bias, to);
    store_floats(right, scale, bias, to + 8);
  }
  static void drain() {}
};

}  // namespace
}  // namespace coordl
