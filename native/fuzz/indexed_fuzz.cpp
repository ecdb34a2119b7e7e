// Any bytes as an indexed item: wherever its points lead, decoding stays inside its bounds.
//
// Why it must: a reader starts at most at the last bit of the data and is checked after each MCU, and
// kBitSlack bytes behind the data are longer than the longest MCU (put_in_longest_codes makes it).
#include <algorithm>

#include "fuzz/forms.hpp"
#include "prep/jpeg/huffman.hpp"
#include "prep/jpeg/indexed.hpp"

namespace coordl::fuzz {
namespace {

constexpr std::size_t kHeader = 24, kStep = 5, kHeaderBytes = 8, kPoints = 12, kDataBytes = 16;
constexpr std::size_t kPointBytes = 10;

struct Parts {
  std::size_t points = 0, jpeg = 0, data = 0, end = 0;  // where they begin; all inside the item
};

Parts parts_of(const Bytes& item) {
  Parts parts;
  parts.points = std::min(kHeader, item.size());
  const auto behind = [&](std::size_t from, std::uint64_t bytes) {
    return static_cast<std::size_t>(std::min<std::uint64_t>(item.size(), from + bytes));
  };
  parts.jpeg = behind(parts.points, std::uint64_t(number_at<std::uint32_t>(item, kPoints)) * kPointBytes);
  parts.data = behind(parts.jpeg, number_at<std::uint32_t>(item, kHeaderBytes));
  parts.end = behind(parts.data, number_at<std::uint32_t>(item, kDataBytes));
  return parts;
}

// Changes the JPEG's own header inside the item, and what says how long it is.
template <class Change>
void change_jpeg_header(Bytes& item, Change change) {
  const Parts parts = parts_of(item);
  Bytes header(item.begin() + std::ptrdiff_t(parts.jpeg), item.begin() + std::ptrdiff_t(parts.data));
  change(header);
  item.erase(item.begin() + std::ptrdiff_t(parts.jpeg), item.begin() + std::ptrdiff_t(parts.data));
  item.insert(item.begin() + std::ptrdiff_t(parts.jpeg), header.begin(), header.end());
  put_number(item, kHeaderBytes, static_cast<std::uint32_t>(header.size()));
}

void change_point(Bytes& item, Chance& chance) {
  const Parts parts = parts_of(item);
  if (parts.jpeg < parts.points + kPointBytes) return;
  const std::size_t number = (parts.jpeg - parts.points) / kPointBytes;
  const std::size_t at = parts.points + kPointBytes * std::size_t(chance.below(number));
  const auto bits = static_cast<std::uint32_t>(8 * (parts.end - parts.data));
  switch (chance.below(4)) {
    case 0: put_number(item, at, bits - std::uint32_t(chance.below(40))); break;
    case 1: put_number(item, at, static_cast<std::uint32_t>(chance.next())); break;
    case 2: put_number(item, at, bits == 0 ? 0 : static_cast<std::uint32_t>(chance.next() % bits)); break;
    default:
      put_number(item, at + 4 + 2 * std::size_t(chance.below(3)),
                 static_cast<std::uint16_t>(chance.next() >> 20));
  }
}

// Each point at the end of the data, and behind it only zeros: the longest codes.
void lead_beyond(Bytes& item) {
  change_jpeg_header(item, put_in_longest_codes);
  const Parts parts = parts_of(item);
  const auto bits = static_cast<std::uint32_t>(8 * (parts.end - parts.data));
  for (std::size_t at = parts.points; at + kPointBytes <= parts.jpeg; at += kPointBytes) {
    put_number(item, at, bits);
    for (int c = 0; c < 3; ++c) put_number(item, at + 4 + 2 * std::size_t(c), std::uint16_t{8191});
  }
}

void mend(Bytes& item) {
  const Parts parts = parts_of(item);
  item.resize(std::max(item.size(), parts.data + kBitSlack));
  put_number(item, kDataBytes, static_cast<std::uint32_t>(item.size() - parts.data - kBitSlack));
}

}  // namespace

std::vector<Bytes> seeds() {
  std::vector<Bytes> items = items_of(Form::indexed);
  for (std::size_t i = 0, count = items.size(); i < count; i += 3) {
    items.push_back(items[i]);
    lead_beyond(items.back());
    HOLDS(IndexedImage::open(as_item(items.back())));
  }
  return items;
}

void mutate(Bytes& input, Chance& chance) {
  if (input.size() < kHeader) return mutate_anywhere(input, chance);
  switch (chance.below(8)) {
    case 0: input[4 + std::size_t(chance.below(20))] = chance.byte(); break;
    case 1:
    case 2: change_point(input, chance); break;
    case 3:
    case 4: change_jpeg_header(input, [&](Bytes& header) { mutate_jpeg(header, chance); }); break;
    case 5:
    case 6: {
      const Parts parts = parts_of(input);
      const std::size_t bytes = parts.end - parts.data;
      if (bytes > 0) input[parts.data + std::size_t(chance.below(bytes))] = chance.byte();
      break;
    }
    default:
      if (chance.one_in(3)) lead_beyond(input);
      else mutate_anywhere(input, chance);
  }
  if (!chance.one_in(5)) mend(input);
}

void check(std::span<const std::uint8_t> input) {
  const auto item = as_item(input);
  if (!IndexedImage::open(item)) return;
  HOLDS(check_item(item));
  Chance chance(hash_of(input));
  check_regions(item, chance);
}

}  // namespace coordl::fuzz
