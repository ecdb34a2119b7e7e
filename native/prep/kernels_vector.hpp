// The vector kernels, written once over a vector type V: simd_avx2.hpp, simd_avx512.hpp, simd_neon.hpp.
// Twins of those in kernels_scalar.cpp, same bits.
//
// V holds kLanes values of 16 bits in kLanes / 8 parts of 128 bits. As on all x86, unpacking and
// packing work within the parts: what is unpacked low and high, worked on and packed again is in order.
//
// Included by one source file for each instruction set, compiled with that set's flags: so nothing
// here may be shared with other files, and V belongs to an unnamed namespace.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "prep/kernels.hpp"
#include "prep/packed_vector.hpp"

namespace coordl {
namespace {

template <class V>
struct VectorKernels {
  using I = typename V::I;
  static constexpr int kParts = V::kLanes / 8;
  static constexpr int kRows = V::kLanes;

  static bool in_range(const std::int16_t* coefficients, int blocks, const std::uint16_t* quantiser) {
    I q[8];
    for (int i = 0; i < 8; ++i) q[i] = V::repeat_part(quantiser + 8 * i);
    const I lowest = V::set16(8192), outside = V::set16(0xC000);
    I wrong = V::zero();
    for (; blocks >= kParts; blocks -= kParts, coefficients += 64 * kParts) {
      for (int i = 0; i < 8; ++i) {
        const I x = V::template gather_parts<64>(coefficients + 8 * i);
        const I low = V::mullo16(x, q[i]);
        const I beyond_16_bits = V::xor_(V::mulhi16(x, q[i]), V::template sra16<15>(low));
        wrong = V::or_(wrong, V::or_(beyond_16_bits, V::and_(V::add16(low, lowest), outside)));
      }
    }
    return !V::any(wrong) && (blocks == 0 || kScalarKernels.in_range(coefficients, blocks, quantiser));
  }

  // -- inverse DCT: see kernels_scalar.cpp. x[i] holds row i of kParts blocks side by side.

  static constexpr std::int32_t both(int low, int high) {
    return static_cast<std::int32_t>(std::uint32_t(std::uint16_t(low)) |
                                     std::uint32_t(std::uint16_t(high)) << 16);
  }

  template <int kShift>
  static COORDL_INLINE void idct_half(I sum_and_difference04, I x26, I z, I x71, I x53, I out[8]) {
    const I round = V::set32(1 << (kShift - 1));
    const I even0 = V::add32(V::madd16(sum_and_difference04, V::set32(both(8192, 0))), round);
    const I even1 = V::add32(V::madd16(sum_and_difference04, V::set32(both(0, 8192))), round);
    const I even2 = V::madd16(x26, V::set32(both(4433, 4433 - 15137)));
    const I even3 = V::madd16(x26, V::set32(both(4433 + 6270, 4433)));
    const I z3 = V::madd16(z, V::set32(both(9633 - 16069, 9633)));
    const I z4 = V::madd16(z, V::set32(both(9633, 9633 - 3196)));
    const I odd0 = V::add32(V::madd16(x71, V::set32(both(2446 - 7373, -7373))), z3);
    const I odd3 = V::add32(V::madd16(x71, V::set32(both(-7373, 12299 - 7373))), z4);
    const I odd1 = V::add32(V::madd16(x53, V::set32(both(16819 - 20995, -20995))), z4);
    const I odd2 = V::add32(V::madd16(x53, V::set32(both(-20995, 25172 - 20995))), z3);
    const I a = V::add32(even0, even3), d = V::sub32(even0, even3);
    const I b = V::add32(even1, even2), c = V::sub32(even1, even2);
    out[0] = V::template sra32<kShift>(V::add32(a, odd3));
    out[7] = V::template sra32<kShift>(V::sub32(a, odd3));
    out[1] = V::template sra32<kShift>(V::add32(b, odd2));
    out[6] = V::template sra32<kShift>(V::sub32(b, odd2));
    out[2] = V::template sra32<kShift>(V::add32(c, odd1));
    out[5] = V::template sra32<kShift>(V::sub32(c, odd1));
    out[3] = V::template sra32<kShift>(V::add32(d, odd0));
    out[4] = V::template sra32<kShift>(V::sub32(d, odd0));
  }

  template <int kShift>
  static COORDL_INLINE void idct_rows(I x[8]) {
    const I sum73 = V::add16(x[7], x[3]), sum51 = V::add16(x[5], x[1]);
    const I sum04 = V::add16(x[0], x[4]), difference04 = V::sub16(x[0], x[4]);
    I low[8], high[8];
    idct_half<kShift>(V::lo16(sum04, difference04), V::lo16(x[2], x[6]), V::lo16(sum73, sum51),
                      V::lo16(x[7], x[1]), V::lo16(x[5], x[3]), low);
    idct_half<kShift>(V::hi16(sum04, difference04), V::hi16(x[2], x[6]), V::hi16(sum73, sum51),
                      V::hi16(x[7], x[1]), V::hi16(x[5], x[3]), high);
    for (int i = 0; i < 8; ++i) x[i] = V::packs32(low[i], high[i]);
  }

  // Transposes the 8x8 values in each part of eight vectors.
  static COORDL_INLINE void transpose_parts(I x[8]) {
    I a[8], b[8];
    for (int i = 0; i < 4; ++i) {
      a[2 * i] = V::lo16(x[2 * i], x[2 * i + 1]);
      a[2 * i + 1] = V::hi16(x[2 * i], x[2 * i + 1]);
    }
    for (int i = 0; i < 2; ++i) {
      for (int k = 0; k < 2; ++k) {
        b[4 * i + 2 * k] = V::lo32(a[4 * i + k], a[4 * i + k + 2]);
        b[4 * i + 2 * k + 1] = V::hi32(a[4 * i + k], a[4 * i + k + 2]);
      }
    }
    for (int k = 0; k < 4; ++k) {
      x[2 * k] = V::lo64(b[k], b[k + 4]);
      x[2 * k + 1] = V::hi64(b[k], b[k + 4]);
    }
  }

  static void idct(const std::int16_t* coefficients, int blocks, const std::uint16_t* quantiser,
                   std::uint8_t* out, std::ptrdiff_t stride) {
    I q[8];
    for (int i = 0; i < 8; ++i) q[i] = V::repeat_part(quantiser + 8 * i);
    for (int done = 0; done < blocks; done += kParts, coefficients += 64 * kParts, out += 8 * kParts) {
      I x[8];
      for (int i = 0; i < 8; ++i) x[i] = V::mullo16(V::template gather_parts<64>(coefficients + 8 * i), q[i]);
      idct_rows<11>(x);
      transpose_parts(x);
      idct_rows<18>(x);  // x[i]: column i
      // Eight columns of 16 bits -> four vectors of two rows of bytes: pack, then transpose bytes.
      const I flip = V::set32(static_cast<std::int32_t>(0x80808080u));
      const I p04 = V::xor_(V::packs16(x[0], x[4]), flip), p15 = V::xor_(V::packs16(x[1], x[5]), flip);
      const I p26 = V::xor_(V::packs16(x[2], x[6]), flip), p37 = V::xor_(V::packs16(x[3], x[7]), flip);
      const I a = V::lo8(p04, p15), b = V::lo8(p26, p37), c = V::hi8(p04, p15), d = V::hi8(p26, p37);
      const I ab0 = V::lo16(a, b), ab1 = V::hi16(a, b), cd0 = V::lo16(c, d), cd1 = V::hi16(c, d);
      V::store_row_pair(V::lo32(ab0, cd0), out, out + stride);
      V::store_row_pair(V::hi32(ab0, cd0), out + 2 * stride, out + 3 * stride);
      V::store_row_pair(V::lo32(ab1, cd1), out + 4 * stride, out + 5 * stride);
      V::store_row_pair(V::hi32(ab1, cd1), out + 6 * stride, out + 7 * stride);
    }
  }

  // -- colour

  static void chroma(const std::uint8_t* near, const std::uint8_t* far, int count, std::int16_t* out) {
    for (int i = 0; i < count; i += V::kLanes) {
      const I a = V::widen(near + i), b = V::widen(far + i);
      V::store(out + i, V::add16(V::add16(a, a), V::add16(a, b)));
    }
  }

  struct Rgb {
    I r, g, b;
  };

  // 16-bit luma, chroma around 0. The constants beyond 16 bits are split: 1.402 = 1 + 0.402, and so
  // on; the halves that mulhi cuts off are the roundings of the plain formula.
  static COORDL_INLINE Rgb to_rgb(I y, I cb, I cr) {
    const I one = V::set16(1), cb2 = V::add16(cb, cb), cr2 = V::add16(cr, cr);
    const I red = V::template sra16<1>(V::add16(V::mulhi16(cr2, V::set16(26345)), one));
    const I blue = V::template sra16<1>(V::add16(V::mulhi16(cb2, V::set16(-14942)), one));
    const I factors = V::set32(both(-22554, 65536 - 46802)), round = V::set32(32768);
    const I low = V::template sra32<16>(V::add32(V::madd16(V::lo16(cb, cr), factors), round));
    const I high = V::template sra32<16>(V::add32(V::madd16(V::hi16(cb, cr), factors), round));
    return {V::add16(y, V::add16(red, cr)), V::add16(y, V::sub16(V::packs32(low, high), cr)),
            V::add16(y, V::add16(blue, cb2))};
  }

  // Two halves as unpacked from one vector of 2 * kLanes pixels.
  static COORDL_INLINE void store_rgb(const Rgb& low, const Rgb& high, std::uint16_t* const* rgb, int i) {
    store_levels(V::packus16(low.r, high.r), rgb[0] + i);
    store_levels(V::packus16(low.g, high.g), rgb[1] + i);
    store_levels(V::packus16(low.b, high.b), rgb[2] + i);
  }

  static COORDL_INLINE void store_levels(I bytes, std::uint16_t* out) {
    V::store_halves(V::lo8(V::zero(), bytes), V::hi8(V::zero(), bytes), out);
  }

  static void half(const std::uint8_t* luma, const std::int16_t* cb, const std::int16_t* cr, int even,
                   int odd, int count, std::uint16_t* const* rgb) {
    const I even_rounding = V::set16(even - 128 * 16), odd_rounding = V::set16(odd - 128 * 16);
    for (int i = 0; i < count; i += 2 * V::kLanes) {
      I evens[2], odds[2];
      const std::int16_t* sums[2] = {cb + i / 2, cr + i / 2};
      for (int c = 0; c < 2; ++c) {
        const I here = V::load(sums[c]), thrice = V::add16(here, V::add16(here, here));
        evens[c] = V::template sra16<4>(
            V::add16(V::add16(thrice, even_rounding), V::load(sums[c] - 1)));
        odds[c] = V::template sra16<4>(V::add16(V::add16(thrice, odd_rounding), V::load(sums[c] + 1)));
      }
      const I y = V::load(luma + i), zero = V::zero();
      store_rgb(to_rgb(V::lo8(y, zero), V::lo16(evens[0], odds[0]), V::lo16(evens[1], odds[1])),
                to_rgb(V::hi8(y, zero), V::hi16(evens[0], odds[0]), V::hi16(evens[1], odds[1])), rgb, i);
    }
  }

  static void full(const std::uint8_t* luma, const std::uint8_t* cb, const std::uint8_t* cr, int count,
                   std::uint16_t* const* rgb) {
    const I zero = V::zero(), middle = V::set16(128);
    for (int i = 0; i < count; i += 2 * V::kLanes) {
      const I y = V::load(luma + i), u = V::load(cb + i), v = V::load(cr + i);
      store_rgb(to_rgb(V::lo8(y, zero), V::sub16(V::lo8(u, zero), middle),
                       V::sub16(V::lo8(v, zero), middle)),
                to_rgb(V::hi8(y, zero), V::sub16(V::hi8(u, zero), middle),
                       V::sub16(V::hi8(v, zero), middle)), rgb, i);
    }
  }

  static void grey(const std::uint8_t* luma, int count, std::uint16_t* out) {
    for (int i = 0; i < count; i += 2 * V::kLanes) store_levels(V::load(luma + i), out + i);
  }

  // -- resize

  template <int kTaps>
  static void vertical_of(const std::uint16_t* const* rows, const Taps& taps, int output, int count,
                          std::uint16_t* out) {
    const std::uint16_t* weights = taps.weights + std::size_t(output) * taps.count;
    const I start = V::set16(taps.losses[output]);
    I w[kTaps > 0 ? kTaps : 1];
    for (int t = 0; t < kTaps; ++t) w[t] = V::set16(weights[t]);
    for (int i = 0; i < count; i += V::kLanes) {
      I sum = start;
      if constexpr (kTaps > 0) {
        for (int t = 0; t < kTaps; ++t) sum = V::add16(sum, V::mulhi_u16(V::load(rows[t] + i), w[t]));
      } else {
        for (int t = 0; t < taps.count; ++t) {
          sum = V::add16(sum, V::mulhi_u16(V::load(rows[t] + i), V::set16(weights[t])));
        }
      }
      V::store(out + i, sum);
    }
  }

  // Taps are few on photographs: loops that know how many are unrolled.
  static void vertical(const std::uint16_t* const* rows, const Taps& taps, int output, int count,
                       std::uint16_t* out) {
    switch (taps.count) {
      case 1: return vertical_of<1>(rows, taps, output, count, out);
      case 2: return vertical_of<2>(rows, taps, output, count, out);
      case 3: return vertical_of<3>(rows, taps, output, count, out);
      case 4: return vertical_of<4>(rows, taps, output, count, out);
      case 5: return vertical_of<5>(rows, taps, output, count, out);
      case 6: return vertical_of<6>(rows, taps, output, count, out);
      default: return vertical_of<0>(rows, taps, output, count, out);
    }
  }

  static void transpose(const std::uint16_t* lines, std::size_t stride, int count,
                        std::uint16_t* columns) {
    for (int i = 0; i < count; i += 8, columns += 8 * kRows) {
      I x[8];
      for (int row = 0; row < 8; ++row) x[row] = V::gather_parts(lines + row * stride + i, 8 * stride);
      transpose_parts(x);
      for (int k = 0; k < 8; ++k) V::store(columns + k * kRows, x[k]);
    }
  }

  template <int kTaps>
  static void horizontal_of(const std::uint16_t* columns, std::size_t plane, const Taps& taps, bool flip,
                            std::uint16_t* finished) {
    const int count = kTaps > 0 ? kTaps : taps.count, outputs = taps.outputs;
    const I half = V::set16(128);
    const std::uint16_t* weights = taps.weights;
    for (int o = 0; o < outputs; ++o, weights += count) {
      const std::uint16_t* column = columns + std::size_t(taps.first[o]) * kRows;
      const I start = V::add16(half, V::set16(taps.losses[o]));
      I r = start, g = start, b = start;
      for (int t = 0; t < count; ++t, column += kRows) {
        const I w = V::set16(weights[t]);
        r = V::add16(r, V::mulhi_u16(V::load(column), w));
        g = V::add16(g, V::mulhi_u16(V::load(column + plane), w));
        b = V::add16(b, V::mulhi_u16(V::load(column + 2 * plane), w));
      }
      std::uint16_t* to = finished + std::size_t(flip ? outputs - 1 - o : o) * kRows;
      const std::size_t channel = std::size_t(outputs) * kRows;
      V::store(to, V::template srl16<8>(r));
      V::store(to + channel, V::template srl16<8>(g));
      V::store(to + 2 * channel, V::template srl16<8>(b));
    }
  }

  static void horizontal(const std::uint16_t* columns, std::size_t plane, const Taps& taps, bool flip,
                         std::uint16_t* finished) {
    switch (taps.count) {
      case 1: return horizontal_of<1>(columns, plane, taps, flip, finished);
      case 2: return horizontal_of<2>(columns, plane, taps, flip, finished);
      case 3: return horizontal_of<3>(columns, plane, taps, flip, finished);
      case 4: return horizontal_of<4>(columns, plane, taps, flip, finished);
      case 5: return horizontal_of<5>(columns, plane, taps, flip, finished);
      case 6: return horizontal_of<6>(columns, plane, taps, flip, finished);
      default: return horizontal_of<0>(columns, plane, taps, flip, finished);
    }
  }

  // Eight outputs at a time; the last step overlaps the one before.
  template <class Store>
  static COORDL_INLINE void store_rows(const std::uint16_t* finished, int outputs, int rows, Store store) {
    for (int next = 0; next < outputs; next += 8) {
      const int at = next + 8 <= outputs ? next : outputs - 8;
      I x[8];
      for (int i = 0; i < 8; ++i) x[i] = V::load(finished + std::size_t(at + i) * kRows);
      transpose_parts(x);
      for (int row = 0; row < rows; ++row) store(V::part(x[row & 7], row >> 3), row, at);
    }
  }

  static void store_float(const std::uint16_t* finished, int outputs, int rows, float scale, float bias,
                          float* out) {
    if (outputs < 8) return plain_store(finished, outputs, rows, out, [=](std::uint16_t value) {
      return static_cast<float>(value) * scale + bias;
    });
    // Whole cache lines can go past the cache: a minibatch is larger than it, and is read once.
    if (outputs % 16 == 0 && reinterpret_cast<std::uintptr_t>(out) % 64 == 0) {
      return stream_float(finished, outputs, rows, scale, bias, out);
    }
    store_rows(finished, outputs, rows, [=](typename V::Tile levels, int row, int at) {
      V::store_floats(levels, scale, bias, out + std::size_t(row) * outputs + at);
    });
  }

  // Sixteen at a time.
  template <class Store>
  static COORDL_INLINE void store_wide_rows(const std::uint16_t* finished, int outputs, int rows,
                                            Store store) {
    for (int next = 0; next < outputs; next += 16) {
      const int at = next + 16 <= outputs ? next : outputs - 16;
      I left[8], right[8];
      for (int i = 0; i < 8; ++i) {
        left[i] = V::load(finished + std::size_t(at + i) * kRows);
        right[i] = V::load(finished + std::size_t(at + 8 + i) * kRows);
      }
      transpose_parts(left);
      transpose_parts(right);
      for (int row = 0; row < rows; ++row) {
        store(V::part(left[row & 7], row >> 3), V::part(right[row & 7], row >> 3), row, at);
      }
    }
  }

  static void stream_float(const std::uint16_t* finished, int outputs, int rows, float scale, float bias,
                           float* out) {
    using Tile = typename V::Tile;
    store_wide_rows(finished, outputs, rows, [=](Tile left, Tile right, int row, int at) {
      V::stream_floats(left, right, scale, bias, out + std::size_t(row) * outputs + at);
    });
  }

  static void store_bytes(const std::uint16_t* finished, int outputs, int rows, std::uint8_t* out) {
    if (outputs < 8) return plain_store(finished, outputs, rows, out, [](std::uint16_t value) {
      return static_cast<std::uint8_t>(value);
    });
    using Tile = typename V::Tile;
    if (outputs >= 16) {
      return store_wide_rows(finished, outputs, rows, [=](Tile left, Tile right, int row, int at) {
        V::store_bytes(left, right, out + std::size_t(row) * outputs + at);
      });
    }
    store_rows(finished, outputs, rows, [=](Tile levels, int row, int at) {
      V::store_bytes(levels, out + std::size_t(row) * outputs + at);
    });
  }

  template <class Value, class Convert>
  static void plain_store(const std::uint16_t* finished, int outputs, int rows, Value* out,
                          Convert convert) {
    for (int row = 0; row < rows; ++row) {
      for (int o = 0; o < outputs; ++o) *out++ = convert(finished[std::size_t(o) * kRows + row]);
    }
  }

  static constexpr Kernels table(const char* name) {
    return {name,      kRows,  PackedKernels<V>::unpack, PackedKernels<V>::pack, in_range, idct,
            chroma,    half,   full, grey, vertical, transpose, horizontal, store_float, store_bytes,
            V::drain};
  }
};

}  // namespace
}  // namespace coordl
