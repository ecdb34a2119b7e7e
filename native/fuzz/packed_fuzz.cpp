// Any bytes as a packed item: what check() lets through decodes inside its bounds, whatever the region
// and the kernels.
#include "fuzz/forms.hpp"
#include "prep/jpeg/packed.hpp"

namespace coordl::fuzz {
namespace {

constexpr std::size_t kHeader = 24, kWidth = 8, kHeight = 10, kJpegBytes = 12, kBlocksBytes = 16;

std::size_t directory_of(const Bytes& item) {
  return kHeader + (number_at<std::uint8_t>(item, 5) == 0 ? 128 : 384);
}

// Makes the sizes agree again, as far as the header's own numbers allow.
void mend(Bytes& item, Chance& chance) {
  const auto image_bytes = std::uint64_t(number_at<std::uint32_t>(item, kBlocksBytes)) +
                           number_at<std::uint32_t>(item, kJpegBytes) + kPackedSlack;
  if (chance.one_in(2) && image_bytes < 1 << 16) {
    item.resize(std::size_t(image_bytes) + directory_of(item) + 4 * 8);
  }
  // One of these numbers of directory entries fits, or the item is no image.
  for (std::size_t blocks = item.size(); blocks > 0; --blocks) {
    put_number(item, kBlocksBytes, static_cast<std::uint32_t>(blocks));
    if (PackedImage::open(as_item(item))) return;
  }
}

}  // namespace

std::vector<Bytes> seeds() { return items_of(Form::packed); }

void mutate(Bytes& input, Chance& chance) {
  if (input.size() < kHeader) return mutate_anywhere(input, chance);
  const std::size_t directory = directory_of(input);
  const auto inside = [&](std::size_t from) {
    return from < input.size() ? from + std::size_t(chance.below(input.size() - from)) : input.size() - 1;
  };
  switch (chance.below(9)) {
    case 0: input[4 + std::size_t(chance.below(20))] = chance.byte(); break;
    case 1: {
      const auto edge = static_cast<std::uint16_t>(chance.one_in(9) ? 65535 : chance.within(1, 70));
      put_number(input, chance.one_in(2) ? kWidth : kHeight, edge);
      break;
    }
    case 2: input[5] = static_cast<std::uint8_t>(chance.below(4)); break;
    case 3: {  // a quantiser
      const auto value = static_cast<std::uint16_t>(chance.byte() << 8 | chance.byte());
      put_number(input, kHeader + 2 * std::size_t(chance.below((directory - kHeader) / 2)), value);
      break;
    }
    case 4: {  // where a run begins
      const std::size_t at = directory + 4 * std::size_t(chance.below(8));
      const auto blocks = number_at<std::uint32_t>(input, kBlocksBytes);
      const auto begin = number_at<std::uint32_t>(input, at);
      put_number(input, at, chance.one_in(2) ? begin + std::uint32_t(chance.within(-8, 8))
                                             : blocks - std::uint32_t(chance.below(16)));
      break;
    }
    case 5:
    case 6: input[inside(directory + 4)] = chance.byte(); break;
    case 7: {  // widths, or a count of tiles: the block behind begins elsewhere
      const std::size_t at = inside(directory + 4);
      input[at] = static_cast<std::uint8_t>(chance.below(13) | chance.below(13) << 4);
      break;
    }
    default: mutate_anywhere(input, chance);
  }
  if (chance.one_in(3) && input.size() >= kHeader && input.size() < 4096) mend(input, chance);
}

void check(std::span<const std::uint8_t> input) {
  const auto item = as_item(input);
  const auto image = PackedImage::open(item);
  HOLDS(form_of(item) != Form::packed || check_item(item) == (image && image->check()));
  if (!image || !image->check()) return;
  Chance chance(hash_of(input));
  check_regions(item, chance);
}

}  // namespace coordl::fuzz
