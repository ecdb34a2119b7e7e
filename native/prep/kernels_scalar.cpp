// The plain kernels: what the vector ones must equal, and what runs on other CPUs.
#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>

#include "prep/jpeg/packed_block.hpp"
#include "prep/kernels.hpp"

namespace coordl {
namespace {

constexpr int kRows = 16;

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
std::int16_t saturate(int value) { return static_cast<std::int16_t>(std::clamp(value, -32768, 32767)); }

// Sums beyond 32 bits, which only coefficients of no real image make, wrap as the vectors' do.
int plus(int a, int b) { return static_cast<int>(unsigned(a) + unsigned(b)); }
int minus(int a, int b) { return static_cast<int>(unsigned(a) - unsigned(b)); }

// Eight values `step` apart, in place.
template <int kShift>
void idct_line(std::int16_t* line, int step) {
  const auto x = [&](int i) -> int { return line[i * step]; };
  constexpr int half = 1 << (kShift - 1);
  const int even0 = wrap(x(0) + x(4)) * 8192 + half, even1 = wrap(x(0) - x(4)) * 8192 + half;
  const int even2 = x(2) * 4433 + x(6) * (4433 - 15137), even3 = x(2) * (4433 + 6270) + x(6) * 4433;
  const int sum73 = wrap(x(7) + x(3)), sum51 = wrap(x(5) + x(1));
  const int z3 = sum73 * (9633 - 16069) + sum51 * 9633, z4 = sum73 * 9633 + sum51 * (9633 - 3196);
  const int odd0 = x(7) * (2446 - 7373) - x(1) * 7373 + z3;
  const int odd1 = x(5) * (16819 - 20995) - x(3) * 20995 + z4;
  const int odd2 = x(3) * (25172 - 20995) - x(5) * 20995 + z3;
  const int odd3 = x(1) * (12299 - 7373) - x(7) * 7373 + z4;
  const int a = even0 + even3, b = even1 + even2, c = even1 - even2, d = even0 - even3;
  const int out[8] = {plus(a, odd3),  plus(b, odd2),  plus(c, odd1),  plus(d, odd0),
                      minus(d, odd0), minus(c, odd1), minus(b, odd2), minus(a, odd3)};
  for (int i = 0; i < 8; ++i) line[i * step] = saturate(out[i] >> kShift);
}

void idct(const std::int16_t* coefficients, int blocks, const std::uint16_t* quantiser,
          std::uint8_t* out, std::ptrdiff_t stride) {
  for (; blocks > 0; --blocks, coefficients += 64, out += 8) {
    std::int16_t block[64];
    for (int i = 0; i < 64; ++i) block[i] = wrap(coefficients[i] * quantiser[i]);
    for (int i = 0; i < 8; ++i) idct_line<11>(block + i, 8);
    for (int i = 0; i < 8; ++i) idct_line<18>(block + 8 * i, 1);
    for (int i = 0; i < 64; ++i) {
      const int level = std::clamp<int>(block[i], -128, 127) + 128;
      out[(i >> 3) * stride + (i & 7)] = static_cast<std::uint8_t>(level);
    }
  }
}

// -- colour. Source: libjpeg's jdcolor and jdsample; constants in 1/65536.

std::uint16_t level(int value) { return static_cast<std::uint16_t>(std::clamp(value, 0, 255) << 8); }

void pixel(int y, int cb, int cr, std::uint16_t* const* rgb, int i) {
  cb -= 128;
  cr -= 128;
  rgb[0][i] = level(y + ((91881 * cr + 32768) >> 16));
  rgb[1][i] = level(y + ((-22554 * cb - 46802 * cr + 32768) >> 16));
  rgb[2][i] = level(y + ((116130 * cb + 32768) >> 16));
}

void chroma(const std::uint8_t* near, const std::uint8_t* far, int count, std::int16_t* out) {
  for (int i = 0; i < count; ++i) out[i] = static_cast<std::int16_t>(3 * near[i] + far[i]);
}

void half(const std::uint8_t* luma, const std::int16_t* cb, const std::int16_t* cr, int even, int odd,
          int count, std::uint16_t* const* rgb) {
  for (int i = 0; i < count; ++i) {
    const int at = i >> 1, neighbour = (i & 1) != 0 ? at + 1 : at - 1, rounding = (i & 1) != 0 ? odd : even;
    pixel(luma[i], (3 * cb[at] + cb[neighbour] + rounding) >> 4,
          (3 * cr[at] + cr[neighbour] + rounding) >> 4, rgb, i);
  }
}

void full(const std::uint8_t* luma, const std::uint8_t* cb, const std::uint8_t* cr, int count,
          std::uint16_t* const* rgb) {
  for (int i = 0; i < count; ++i) pixel(luma[i], cb[i], cr[i], rgb, i);
}

void grey(const std::uint8_t* luma, int count, std::uint16_t* out) {
  for (int i = 0; i < count; ++i) out[i] = static_cast<std::uint16_t>(luma[i] << 8);
}

// -- resize. A product keeps its upper 16 bits; what that cuts off on average is put in before.

std::uint16_t weighted(std::uint16_t value, std::uint16_t weight) {
  return static_cast<std::uint16_t>(std::uint32_t(value) * weight >> 16);
}

std::uint16_t add(std::uint16_t a, std::uint16_t b) {
  return static_cast<std::uint16_t>(std::min(a + b, 65535));
}

void vertical(const std::uint16_t* const* rows, const Taps& taps, int output, int count,
              std::uint16_t* out) {
  const std::uint16_t* weights = taps.weights + std::size_t(output) * taps.count;
  constexpr int kAtOnce = 32;
  for (int start = 0; start < count; start += kAtOnce) {
    std::uint16_t sums[kAtOnce];
    std::fill(sums, sums + kAtOnce, taps.losses[output]);
    for (int t = 0; t < taps.count; ++t) {
      const std::uint16_t* row = rows[t] + start;
      for (int i = 0; i < kAtOnce; ++i) sums[i] = add(sums[i], weighted(row[i], weights[t]));
    }
    std::memcpy(out + start, sums, sizeof sums);
  }
}

void transpose(const std::uint16_t* lines, std::size_t stride, int count, std::uint16_t* columns) {
  for (int i = 0; i < count; ++i) {
    for (int row = 0; row < kRows; ++row) columns[i * kRows + row] = lines[row * stride + i];
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
      std::fill(sums, sums + kRows, add(128, taps.losses[o]));
      for (int t = 0; t < taps.count; ++t, column += kRows) {
        for (int row = 0; row < kRows; ++row) {
          sums[row] = add(sums[row], weighted(column[row], weights[t]));
        }
      }
      std::uint16_t* to = finished + (std::size_t(channel) * taps.outputs + place) * kRows;
      for (int row = 0; row < kRows; ++row) to[row] = sums[row] >> 8;
    }
  }
}

template <class Value, class Convert>
void store(const std::uint16_t* finished, int outputs, int rows, Value* out, Convert convert) {
  for (int row = 0; row < rows; ++row) {
    for (int o = 0; o < outputs; ++o) *out++ = convert(finished[std::size_t(o) * kRows + row]);
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
