// What only an adversary writes into a JPEG: ours must refuse it or read it as libjpeg does.
#include <algorithm>
#include <initializer_list>
#include <iterator>
#include <utility>

#include "prep/jpeg/huffman.hpp"
#include "prep/kernels.hpp"
#include "test.hpp"

using namespace coordl;

namespace {

// A table of (code length, symbol), lengths ascending.
HuffmanSpec table_of(std::initializer_list<std::pair<int, int>> codes) {
  HuffmanSpec spec;
  for (const auto& [length, symbol] : codes) {
    ++spec.counts[length];
    spec.symbols[spec.size++] = static_cast<std::uint8_t>(symbol);
  }
  return spec;
}

std::uint64_t first_bits(std::uint64_t code, int length) { return code << (64 - length); }

}  // namespace

TEST(a_table_with_a_code_of_all_ones_is_refused_as_by_libjpeg) {
  HuffmanTable table;
  CHECK(table.build(table_of({{1, 0}, {2, 1}}), true));
  CHECK(!table.build(table_of({{1, 0}, {1, 1}}), true));
  CHECK(!table.build(table_of({{1, 0}, {2, 1}, {2, 2}}), false));
  HuffmanSpec last;  // 0, 10, 110, ..., and all ones at 16 bits
  for (int length = 1; length <= 16; ++length) last.counts[length] = 1, last.symbols[last.size++] = 1;
  CHECK(table.build(last, true));
  ++last.counts[16];
  ++last.size;
  CHECK(!table.build(last, true));
}

TEST(a_table_of_more_codes_than_bits_allow_is_refused) {
  HuffmanTable table;
  HuffmanSpec spec;
  spec.counts[1] = 255;
  spec.size = 255;
  CHECK(!table.build(spec, true));
  CHECK(!table.build(spec, false));
}

TEST(a_short_code_for_a_value_no_image_has_is_not_taken_for_a_longer_code) {
  HuffmanTable table;
  // 00: 4 bits; 010 ... skipped; then a code of 12 bits, which begins 0110....
  CHECK(table.build(table_of({{2, 0x04}, {3, 0x0C}, {12, 0x05}, {12, 0x06}}), true));
  CHECK(table.find(first_bits(0b00, 2)).value_bits() == 4);
  CHECK(!table.find(first_bits(0b010, 3)).valid());
  CHECK(!table.find(first_bits(0b010111111111, 12)).valid());  // two before the first of 12 bits
  CHECK(!table.find(first_bits(0b010111111110, 12)).valid());
  CHECK(table.find(first_bits(0b011000000000, 12)).value_bits() == 5);
  CHECK(table.find(first_bits(0b011000000001, 12)).value_bits() == 6);
  CHECK(!table.find(first_bits(0b011000000010, 12)).valid());
}

TEST(a_table_remembers_nothing_of_the_one_it_was_before) {
  HuffmanTable table;
  CHECK(table.build(table_of({{12, 0x01}, {12, 0x02}}), true));
  CHECK(table.build(table_of({{12, 0x0C}, {12, 0x02}}), true));
  CHECK(!table.find(first_bits(0, 12)).valid());
  CHECK(table.find(first_bits(1, 12)).value_bits() == 2);
}

TEST(sums_of_the_inverse_dct_wrap_at_16_bits_as_in_libjpegs_vector_code) {
  // Found by flipping a bit of a Huffman table: two coefficients of one column, their sum beyond 16 bits
  // after the first pass. libjpeg-turbo's AVX2 code gives the same.
  for (const Kernels* table : usable_kernels()) {
    std::int16_t coefficients[64 * 9] = {};
    std::uint16_t quantiser[64];
    std::fill(std::begin(quantiser), std::end(quantiser), std::uint16_t{20});
    coefficients[0] = 400;
    coefficients[4] = 632;
    coefficients[8 * 4] = 632;
    std::uint8_t out[8 * (8 + kSlack)];
    table->idct(coefficients, 1, quantiser, out, 8 + kSlack);
    // The first pass leaves 32767, saturated, in columns 0 and 4 of row 0: their sum wraps to -2.
    std::uint8_t plain[8 * (8 + kSlack)];
    kScalarKernels.idct(coefficients, 1, quantiser, plain, 8 + kSlack);
    for (int y = 0; y < 8; ++y) {
      for (int x = 0; x < 8; ++x) CHECK(out[y * (8 + kSlack) + x] == plain[y * (8 + kSlack) + x]);
    }
    CHECK(plain[0] == 128);  // without wrapping: 255
  }
}
