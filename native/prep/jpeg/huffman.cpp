#include "prep/jpeg/huffman.hpp"

namespace coordl {

bool HuffmanTable::build(const HuffmanSpec& spec, bool ac) {
  short_.fill({});
  long_.fill({});  // of the table before: codes that are left out must not be found there
  std::int32_t code = 0;
  int index = 0;
  for (int length = 1; length <= 16; ++length) {
    base_[length] = index - code;
    // Too many codes, or one of all ones, which libjpeg refuses as the standard does.
    if (code + spec.counts[length] >= std::int32_t(1) << length) return false;
    for (int i = 0; i < spec.counts[length]; ++i, ++index, ++code) {
      if (index >= spec.size) return false;
      const int symbol = spec.symbols[index], size = ac ? symbol & 15 : symbol;
      if (size > 15) return false;
      if (size > kMostValueBits) continue;  // no such value in 8-bit images: an error where it is met
      int step = 1;
      if (ac) {
        const int zeros = symbol >> 4;
        step = size != 0 ? zeros + 1 : zeros == 15 ? 16 : kEndOfBlock;
      }
      const HuffmanEntry entry(length, size, step);
      long_[index] = entry;
      if (length > kShort) continue;
      const int spare = kShort - length;
      for (int tail = 0; tail < 1 << spare; ++tail) short_[(code << spare) + tail] = entry;
    }
    end_[length] = code;
    code <<= 1;
  }
  if (!ac) return true;
  for (std::size_t i = 0; i < pairs_.size(); ++i) pairs_[i] = make_pair(std::uint64_t(i) << (64 - kPairBits));
  return true;
}

HuffmanPair HuffmanTable::make_pair(std::uint64_t bits) const {
  const HuffmanEntry first = short_[bits >> (64 - kShort)];
  if (!first.valid() || first.bits() > kPairBits) return {};
  HuffmanPair pair;
  pair.first = pair.last = static_cast<std::int16_t>(huffman_value(bits, first));
  pair.first_bits = pair.bits = static_cast<std::uint8_t>(first.bits());
  pair.first_step = pair.step = static_cast<std::uint8_t>(first.step());
  if (first.step() == kEndOfBlock) return pair;
  const std::uint64_t rest = bits << first.bits();
  const HuffmanEntry second = short_[rest >> (64 - kShort)];
  if (!second.valid() || first.bits() + second.bits() > kPairBits) return pair;
  pair.last = static_cast<std::int16_t>(huffman_value(rest, second));
  pair.bits = static_cast<std::uint8_t>(first.bits() + second.bits());
  pair.step = static_cast<std::uint8_t>(first.step() + second.step());
  return pair;
}

HuffmanEntry HuffmanTable::find_long(std::uint64_t bits) const {
  // A short code that was left out: a longer length would take its bits for another's.
  if (static_cast<std::int32_t>(bits >> (64 - kShort)) < end_[kShort]) return {};
  for (int length = kShort + 1; length <= 16; ++length) {
    const auto code = static_cast<std::int32_t>(bits >> (64 - length));
    if (code < end_[length]) {
      const std::int32_t index = base_[length] + code;
      return index >= 0 && index < 256 ? long_[index] : HuffmanEntry{};
    }
  }
  return {};
}

}  // namespace coordl
