// Huffman decoding of baseline coefficients: tables, bits, one block.
//
// The inner loop has one dependency chain, bits -> table -> shift -> bits, and everything else hides
// behind it: an entry says at once how long code and value together are and how far the coefficient
// is from the last; values are made without a branch.
#pragma once
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>

#include "prep/jpeg/parse.hpp"

namespace coordl {

// One decoded symbol: bits of code and value together (5 bits), of the value alone (4 bits), and the
// step to its coefficient (7 bits). 0: no such code.
class HuffmanEntry {
 public:
  constexpr HuffmanEntry() = default;
  constexpr HuffmanEntry(int code_bits, int value_bits, int step)
      : packed_(static_cast<std::uint16_t>((code_bits + value_bits) | value_bits << 5 | step << 9)) {}
  bool valid() const { return packed_ != 0; }
  int bits() const { return packed_ & 31; }
  int value_bits() const { return packed_ >> 5 & 15; }
  int step() const { return packed_ >> 9; }

 private:
  std::uint16_t packed_ = 0;
};

// Up to two AC symbols that lie, values and all, within kPairBits. bits 0: not even the first does.
struct HuffmanPair {
  std::int16_t first = 0, last = 0;        // values; the same where there is one symbol
  std::uint8_t first_bits = 0, bits = 0;   // of the first, of all
  std::uint8_t first_step = 0, step = 0;
};
static_assert(sizeof(HuffmanPair) == 8);

inline constexpr int kMostValueBits = 11;
// A step beyond every coefficient, and beyond what other steps of 16 at most can reach from inside.
inline constexpr int kEndOfBlock = 96;

class HuffmanTable {
 public:
  // False where libjpeg would refuse the table. AC symbols are (zeros << 4 | bits of the value), DC
  // symbols the latter alone.
  bool build(const HuffmanSpec& spec, bool ac);

  // The symbol in the uppermost bits.
  HuffmanEntry find(std::uint64_t bits) const {
    const HuffmanEntry entry = short_[bits >> (64 - kShort)];
    return entry.valid() ? entry : find_long(bits);
  }
  // AC tables only.
  const HuffmanPair& find_pair(std::uint64_t bits) const { return pairs_[bits >> (64 - kPairBits)]; }

 private:
  static constexpr int kShort = 11, kPairBits = 11;  // larger tables would leave the L1 cache
  HuffmanEntry find_long(std::uint64_t bits) const;
  HuffmanPair make_pair(std::uint64_t bits) const;

  std::array<HuffmanPair, 1 << kPairBits> pairs_;
  std::array<HuffmanEntry, 1 << kShort> short_;
  std::array<HuffmanEntry, 256> long_;
  std::array<std::int32_t, 17> end_{}, base_{};  // by length: first code beyond, index of code 0
};

// Bits of data whose stuffed bytes are gone, most significant first. REQUIRES: kBitSlack readable
// bytes after the data; the caller checks position() often enough.
class BitReader {
 public:
  BitReader() = default;
  BitReader(const std::uint8_t* data, std::uint64_t position) : begin_(data), at_(data + position / 8) {
    refill();
    take(static_cast<int>(position % 8));
  }
  // At least 56 bits are there after it: two symbols of 16 + 11 bits.
  void refill() {
    std::uint64_t next;
    std::memcpy(&next, at_, sizeof next);
    if constexpr (std::endian::native == std::endian::little) next = __builtin_bswap64(next);
    bits_ |= next >> count_;
    at_ += (63 - count_) >> 3;
    count_ |= 56;
  }
  std::uint64_t bits() const { return bits_; }
  void take(int bits) {
    bits_ <<= bits;
    count_ -= bits;
  }
  // Bits taken since the begin of the data.
  std::uint64_t position() const { return std::uint64_t(at_ - begin_) * 8 - std::uint64_t(count_); }

 private:
  const std::uint8_t* begin_ = nullptr;
  const std::uint8_t* at_ = nullptr;
  std::uint64_t bits_ = 0;
  int count_ = 0;
};

// Longest MCU: 6 blocks of 64 symbols of 27 bits; what a reader may run over before it is checked.
inline constexpr std::size_t kBitSlack = 6 * 64 * 27 / 8 + 32;

// Signed value of an entry whose code begins the bits. Source: ITU-T T.81, F.2.2.1, EXTEND.
inline int huffman_value(std::uint64_t bits, HuffmanEntry entry) {
  const int size = entry.value_bits();
  const std::int64_t one = 1;
  const auto raw = static_cast<std::int64_t>(bits >> (64 - entry.bits())) & ((one << size) - 1);
  const std::int64_t if_negative = (raw << 1 >> size) - 1;  // all ones where the first bit is 0
  return static_cast<int>(raw + (if_negative & (1 - (one << size))));
}

// Natural position by zigzag index; an end of block and whatever runs over lands behind the block.
inline constexpr auto kZigzagAndBeyond = [] {
  std::array<std::uint8_t, kEndOfBlock + kCoefficients> order{};
  order.fill(kCoefficients);
  for (int k = 0; k < kCoefficients; ++k) order[k] = kZigzag[k];
  return order;
}();

// The AC symbol or two that come next. False at a code that does not exist.
template <bool kStore>
[[gnu::always_inline]] inline bool decode_ac(BitReader& bits, const HuffmanTable& ac, int& k,
                                             std::int16_t* out) {
  const HuffmanPair pair = ac.find_pair(bits.bits());  // a copy: what is stored may alias it
  if (pair.bits != 0) [[likely]] {
    const int first = k + pair.first_step;
    if constexpr (kStore) out[kZigzagAndBeyond[first]] = pair.first;
    if (first >= kCoefficients - 1) [[unlikely]] {  // the other is the next block's
      bits.take(pair.first_bits);
      k = first;
      return true;
    }
    k += pair.step;
    if constexpr (kStore) out[kZigzagAndBeyond[k]] = pair.last;
    bits.take(pair.bits);
    return true;
  }
  const HuffmanEntry entry = ac.find(bits.bits());
  if (!entry.valid()) [[unlikely]] return false;
  k += entry.step();
  if constexpr (kStore) {
    out[kZigzagAndBeyond[k]] = static_cast<std::int16_t>(huffman_value(bits.bits(), entry));
  }
  bits.take(entry.bits());
  return true;
}

// Decodes one block. With kStore, coefficients in natural order go to `out` (zeroed by the caller,
// one value more than a block). False: a code that does not exist, or coefficients beyond the block.
// Not inlined: with the loops around it, compilers run out of registers for its inner one.
template <bool kStore>
[[gnu::noinline]] bool decode_block(BitReader& reader, const HuffmanTable& dc, const HuffmanTable& ac,
                                    int& prediction, std::int16_t* out) {
  BitReader bits = reader;
  bits.refill();
  const HuffmanEntry first = dc.find(bits.bits());
  if (!first.valid()) return false;
  prediction += huffman_value(bits.bits(), first);
  bits.take(first.bits());
  if constexpr (kStore) out[0] = static_cast<std::int16_t>(prediction);
  int k = 0;
  for (;;) {  // two steps of at most 27 bits for each refill; the DC code took one
    if (!decode_ac<kStore>(bits, ac, k, out)) return false;
    if (k >= kCoefficients - 1) break;
    bits.refill();
    if (!decode_ac<kStore>(bits, ac, k, out)) return false;
    if (k >= kCoefficients - 1) break;
  }
  reader = bits;
  return k == kCoefficients - 1 || k >= kEndOfBlock;
}

}  // namespace coordl
