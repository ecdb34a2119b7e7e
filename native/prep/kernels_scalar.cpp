// The plain kernels: what the vector ones must equal, and what runs on other CPUs.
#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>

#include "prep/jpeg/packed_block.hpp"
#include "prep/kernels.hpp"

namespace coordl {
namespace {

constexpr int kRows = 32;  // GCC unrolls loops of 16 and less before it can make vectors of them

// Transposes 8x8 values by three perfect shuffles: each turns the index, 3 bits of row and 3 of column,
// by one bit. Compilers have instructions for it.
template <class Value>
void transpose_block(Value* block) {
  for (int round = 0; round < 3; ++round) {
    Value shuffled[64];
    for (int i = 0; i < 32; ++i) {
      shuffled[2 * i] = block[i];
      shuffled[2 * i + 1] = block[32 + i];
    }
    std::memcpy(block, shuffled, sizeof shuffled);
  }
}

const std::uint8_t* unpack(const std::uint8_t* packed, int blocks, std::int16_t* out) {
  for (; blocks > 0; --blocks, out += 64) {
    const BlockHeader header = BlockHeader::read(packed);
    packed += header.bytes;
    for (int i = 0; i < kTiles; ++i) {
      std::int16_t* to = out + tile_corner(kTileOrder[i]);
      const int width = static_cast<int>(header.widths >> (4 * i) & 15);
      if (width == 0) {
        std::memset(to, 0, 8);
        std::memset(to + 8, 0, 8);
        continue;
      }
      for (int k = 0; k < 8; ++k) {
        const int bit = k * width;
        const unsigned pair = packed[bit >> 3] | unsigned(packed[(bit >> 3) + 1]) << 8;
        const auto top = static_cast<std::int16_t>(pair << (16 - width - (bit & 7)));
        to[(k >> 2) * 8 + (k & 3)] = static_cast<std::int16_t>(top >> (16 - width));
      }
      packed += width;
    }
    out[0] = static_cast<std::int16_t>(header.dc);
  }
  return packed;
}

// Bits the widest of eight values takes in two's complement; 0 when all are 0.
int width_of(const std::int16_t* values) {
  unsigned bits = 0, any = 0;
  for (int i = 0; i < 8; ++i) {
    bits |= static_cast<std::uint16_t>(values[i] ^ (values[i] >> 15));
    any |= static_cast<std::uint16_t>(values[i]);
  }
  const int width = any == 0 ? 0 : std::bit_width(bits) + 1;
  return width == 11 ? 12 : width;
}

// Eight values of `width` bits, at most 12, so that four of them fill at most 48.
void put_tile(const std::int16_t* values, int width, std::uint8_t* to) {
  const std::uint64_t mask = (std::uint64_t(1) << width) - 1;
  std::uint64_t half[2] = {};
  for (int i = 0; i < 8; ++i) {
    half[i >> 2] |= (static_cast<std::uint64_t>(values[i]) & mask) << ((i & 3) * width);
  }
  const int bits = 4 * width;
  const std::uint64_t low = half[0] | half[1] << bits, high = width == 0 ? 0 : half[1] >> (64 - bits);
  std::memcpy(to, &low, sizeof low);
  std::memcpy(to + 8, &high, sizeof high);
}

// Writes one block and up to 16 bytes beyond. Null when a coefficient is too large.
std::uint8_t* pack(const std::int16_t* block, std::uint8_t* to) {
  if (std::abs(block[0]) > kMostPackedDc) return nullptr;
  std::int16_t values[kTiles][8];
  int width[kTiles], tiles = 0;
  std::uint32_t widths = 0;
  for (int i = 0; i < kTiles; ++i) {
    const std::int16_t* corner = block + tile_corner(kTileOrder[i]);
    std::memcpy(values[i], corner, 8);
    std::memcpy(values[i] + 4, corner + 8, 8);
    if (i == 0) values[0][0] = 0;
    width[i] = width_of(values[i]);
    if (width[i] > kMostWidth) return nullptr;
    if (width[i] > 0) tiles = i + 1;
    widths |= static_cast<std::uint32_t>(width[i]) << (4 * i);
  }
  const auto word = static_cast<std::uint16_t>(tiles | block[0] << 4);
  std::memcpy(to, &word, sizeof word);
  std::memcpy(to + sizeof word, &widths, sizeof widths);
  to += sizeof word + (tiles + 1) / 2;
  for (int i = 0; i < tiles; ++i) {
    put_tile(values[i], width[i], to);
    to += width[i];
  }
  return to;
}

bool in_range(const std::int16_t* coefficients, int blocks, const std::uint16_t* quantiser) {
  for (int i = 0; i < 64 * blocks; ++i) {
    const int value = coefficients[i] * quantiser[i % 64];
    if (value < -8192 || value > 8191) return false;
  }
  return true;
}

// -- inverse DCT. Source: the integer algorithm of libjpeg's jidctint, after Loeffler, Ligtenberg,
// Moschytz (ICASSP 1989), with the 16-bit wrap and saturation of its vector versions.

std::int16_t wrap(int value) { return static_cast<std::int16_t>(value); }
std::int16_t clamp(std::int16_t value) {
  const std::int16_t above = value < 0 ? std::int16_t{0} : value;
  return above > 255 ? std::int16_t{255} : above;
}
std::int16_t saturate(int value) { return static_cast<std::int16_t>(std::clamp(value, -32768, 32767)); }

// Sums beyond 32 bits, which only coefficients of no real image make, wrap as the vectors' do.
int plus(int a, int b) { return static_cast<int>(unsigned(a) + unsigned(b)); }
int minus(int a, int b) { return static_cast<int>(unsigned(a) - unsigned(b)); }

// The eight columns of a block, in place. Products are of 16 bits each, so that compilers make plain
// vector instructions of it.
template <int kShift>
void idct_columns(std::int16_t* x) {
  constexpr int half = 1 << (kShift - 1);
  for (int i = 0; i < 8; ++i) {
    const std::int16_t x0 = x[i], x1 = x[8 + i], x2 = x[16 + i], x3 = x[24 + i], x4 = x[32 + i],
                       x5 = x[40 + i], x6 = x[48 + i], x7 = x[56 + i];
    const std::int16_t sum04 = wrap(x0 + x4), difference04 = wrap(x0 - x4);
    const std::int16_t sum73 = wrap(x7 + x3), sum51 = wrap(x5 + x1);
    const int even0 = sum04 * 8192 + half, even1 = difference04 * 8192 + half;
    const int even2 = x2 * 4433 + x6 * (4433 - 15137), even3 = x2 * (4433 + 6270) + x6 * 4433;
    const int z3 = sum73 * (9633 - 16069) + sum51 * 9633, z4 = sum73 * 9633 + sum51 * (9633 - 3196);
    const int odd0 = x7 * (2446 - 7373) - x1 * 7373 + z3;
    const int odd1 = x5 * (16819 - 20995) - x3 * 20995 + z4;
    const int odd2 = x3 * (25172 - 20995) - x5 * 20995 + z3;
    const int odd3 = x1 * (12299 - 7373) - x7 * 7373 + z4;
    const int a = even0 + even3, b = even1 + even2, c = even1 - even2, d = even0 - even3;
    x[i] = saturate(plus(a, odd3) >> kShift);
    x[56 + i] = saturate(minus(a, odd3) >> kShift);
    x[8 + i] = saturate(plus(b, odd2) >> kShift);
    x[48 + i] = saturate(minus(b, odd2) >> kShift);
    x[16 + i] = saturate(plus(c, odd1) >> kShift);
    x[40 + i] = saturate(minus(c, odd1) >> kShift);
    x[24 + i] = saturate(plus(d, odd0) >> kShift);
    x[32 + i] = saturate(minus(d, odd0) >> kShift);
  }
}

void idct(const std::int16_t* coefficients, int blocks, const std::uint16_t* quantiser,
          std::uint8_t* out, std::ptrdiff_t stride) {
  for (; blocks > 0; --blocks, coefficients += 64, out += 8) {
    std::int16_t block[64];
    for (int i = 0; i < 64; ++i) block[i] = wrap(coefficients[i] * quantiser[i]);
    idct_columns<11>(block);
    transpose_block(block);
    idct_columns<18>(block);
    std::uint8_t levels[64];
    for (int i = 0; i < 64; ++i) levels[i] = static_cast<std::uint8_t>(clamp(wrap(block[i] + 128)));
    transpose_block(levels);
    for (int row = 0; row < 8; ++row) std::memcpy(out + row * stride, levels + 8 * row, 8);
  }
}

// -- colour. Source: libjpeg's jdcolor and jdsample, whose constants in 1/65536 are 91881, -22554,
// -46802 and 116130; those beyond 16 bits are split into whole parts and the rest.

constexpr int kAtOnce = 64;  // values; loops of a known length become vector instructions

std::uint16_t level(std::int16_t value) { return static_cast<std::uint16_t>(clamp(value) << 8); }

std::int16_t high(std::int16_t a, std::int16_t b) { return static_cast<std::int16_t>(a * b >> 16); }

// kAtOnce pixels; chroma around 0. The halves that high() cuts off are the roundings.
void colour(const std::uint8_t* luma, const std::int16_t* cb, const std::int16_t* cr,
            std::uint16_t* __restrict red, std::uint16_t* __restrict green,
            std::uint16_t* __restrict blue) {
  for (int i = 0; i < kAtOnce; ++i) {
    const std::int16_t y = luma[i], u = cb[i], v = cr[i], u2 = wrap(2 * u), v2 = wrap(2 * v);
    const std::int16_t more_red = wrap(high(v2, 26345) + 1), less_blue = wrap(high(u2, -14942) + 1);
    const std::int16_t more_green = wrap((v * 18734 - u * 22554 + 32768) >> 16);
    red[i] = level(wrap(y + v + (more_red >> 1)));
    green[i] = level(wrap(y - v + more_green));
    blue[i] = level(wrap(y + u2 + (less_blue >> 1)));
  }
}

void chroma(const std::uint8_t* near, const std::uint8_t* far, int count, std::int16_t* out) {
  for (int i = 0; i < count; ++i) out[i] = static_cast<std::int16_t>(3 * near[i] + far[i]);
}

void half(const std::uint8_t* luma, const std::int16_t* cb, const std::int16_t* cr, int even, int odd,
          int count, std::uint16_t* const* rgb) {
  even -= 128 * 16;
  odd -= 128 * 16;
  for (int start = 0; start < count; start += kAtOnce) {
    std::int16_t whole[2][kAtOnce];
    for (int c = 0; c < 2; ++c) {
      const std::int16_t* sums = (c == 0 ? cb : cr) + start / 2;
      for (int i = 0; i < kAtOnce / 2; ++i) {
        const std::int16_t thrice = wrap(3 * sums[i]);
        whole[c][2 * i] = wrap(wrap(thrice + sums[i - 1] + even) >> 4);
        whole[c][2 * i + 1] = wrap(wrap(thrice + sums[i + 1] + odd) >> 4);
      }
    }
    colour(luma + start, whole[0], whole[1], rgb[0] + start, rgb[1] + start, rgb[2] + start);
  }
}

void full(const std::uint8_t* luma, const std::uint8_t* cb, const std::uint8_t* cr, int count,
          std::uint16_t* const* rgb) {
  for (int start = 0; start < count; start += kAtOnce) {
    std::int16_t whole[2][kAtOnce];
    for (int i = 0; i < kAtOnce; ++i) {
      whole[0][i] = static_cast<std::int16_t>(cb[start + i] - 128);
      whole[1][i] = static_cast<std::int16_t>(cr[start + i] - 128);
    }
    colour(luma + start, whole[0], whole[1], rgb[0] + start, rgb[1] + start, rgb[2] + start);
  }
}

void grey(const std::uint8_t* luma, int count, std::uint16_t* out) {
  for (int i = 0; i < count; ++i) out[i] = static_cast<std::uint16_t>(luma[i] << 8);
}

// -- resize. A product keeps its upper 16 bits; what that cuts off on average is put in before. Sums
// stay below 2^16 (see kMostTaps in resample.hpp).

std::uint16_t add_weighted(std::uint16_t sum, std::uint16_t value, std::uint16_t weight) {
  return static_cast<std::uint16_t>(sum + (std::uint32_t(value) * weight >> 16));
}

void vertical(const std::uint16_t* const* rows, const Taps& taps, int output, int count,
              std::uint16_t* out) {
  const std::uint16_t* weights = taps.weights + std::size_t(output) * taps.count;
  for (int start = 0; start < count; start += kAtOnce) {
    std::uint16_t sums[kAtOnce];
    std::fill(sums, sums + kAtOnce, taps.losses[output]);
    for (int t = 0; t < taps.count; ++t) {
      const std::uint16_t* row = rows[t] + start;
      const std::uint16_t weight = weights[t];
      for (int i = 0; i < kAtOnce; ++i) sums[i] = add_weighted(sums[i], row[i], weight);
    }
    std::memcpy(out + start, sums, sizeof sums);
  }
}

void transpose(const std::uint16_t* lines, std::size_t stride, int count, std::uint16_t* columns) {
  for (int i = 0; i < count; i += 8, columns += 8 * kRows) {
    for (int row = 0; row < kRows; row += 8) {
      std::uint16_t block[64];
      for (int k = 0; k < 8; ++k) std::memcpy(block + 8 * k, lines + (row + k) * stride + i, 16);
      transpose_block(block);
      for (int k = 0; k < 8; ++k) std::memcpy(columns + k * kRows + row, block + 8 * k, 16);
    }
  }
}

void horizontal(const std::uint16_t* columns, std::size_t plane, const Taps& taps, bool flip,
                std::uint16_t* finished) {
  for (int o = 0; o < taps.outputs; ++o) {
    const std::uint16_t* weights = taps.weights + std::size_t(o) * taps.count;
    const int place = flip ? taps.outputs - 1 - o : o;
    for (int channel = 0; channel < 3; ++channel) {
      const std::uint16_t* column = columns + channel * plane + std::size_t(taps.first[o]) * kRows;
      std::uint16_t sums[kRows];
      std::fill(sums, sums + kRows, static_cast<std::uint16_t>(128 + taps.losses[o]));
      for (int t = 0; t < taps.count; ++t, column += kRows) {
        const std::uint16_t weight = weights[t];
        for (int row = 0; row < kRows; ++row) sums[row] = add_weighted(sums[row], column[row], weight);
      }
      std::uint16_t* to = finished + (std::size_t(channel) * taps.outputs + place) * kRows;
      for (int row = 0; row < kRows; ++row) to[row] = sums[row] >> 8;
    }
  }
}

template <class Value, class Convert>
void store(const std::uint16_t* finished, int outputs, int rows, Value* out, Convert convert) {
  for (int at = 0; at < outputs; at += 8) {
    const int columns = std::min(8, outputs - at);
    for (int top = 0; top < rows; top += 8) {
      std::uint16_t block[64];
      for (int k = 0; k < 8; ++k) {
        const int column = at + std::min(k, columns - 1);
        std::memcpy(block + 8 * k, finished + std::size_t(column) * kRows + top, 16);
      }
      transpose_block(block);
      Value values[64];
      for (int i = 0; i < 64; ++i) values[i] = convert(block[i]);
      for (int row = 0; row < std::min(8, rows - top); ++row) {
        std::memcpy(out + std::size_t(top + row) * outputs + at, values + 8 * row, columns * sizeof *out);
      }
    }
  }
}

void store_float(const std::uint16_t* finished, int outputs, int rows, float scale, float bias,
                 float* out) {
  store(finished, outputs, rows, out,
        [=](std::uint16_t value) { return static_cast<float>(value) * scale + bias; });
}

void store_bytes(const std::uint16_t* finished, int outputs, int rows, std::uint8_t* out) {
  store(finished, outputs, rows, out,
        [](std::uint16_t value) { return static_cast<std::uint8_t>(value); });
}

}  // namespace

const Kernels kScalarKernels{"scalar",  kRows,      unpack,      pack,        in_range, idct,
                             chroma,    half,       full,        grey,        vertical, transpose,
                             horizontal, store_float, store_bytes, [] {}};

}  // namespace coordl
