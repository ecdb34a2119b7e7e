// Any bytes as a JPEG: where our own decoder gives pixels, they are libjpeg-turbo's; where libjpeg
// warns or fails, the item is not ours; every form of it has the same pixels.
#include <cstdlib>

#include "fuzz/jpegs.hpp"
#include "prep/item.hpp"
#include "prep/jpeg/libjpeg.hpp"
#include "prep/jpeg/packed.hpp"
#include "prep/jpeg/parse.hpp"
#include "prep/jpeg/region.hpp"
#include "prep/jpeg/scan.hpp"

namespace coordl::fuzz {
namespace {

std::optional<Bytes> by_libjpeg(std::span<const std::byte> item, const Region& region) {
  LibjpegDecoder decoder;
  std::vector<std::uint8_t> buffer;
  if (!decoder.open(item)) return std::nullopt;
  const auto view = decoder.decode(region, buffer);
  if (!view) return std::nullopt;
  InterleavedRows rows(*view, region.width);
  return pixels_of(&rows, region);
}

std::optional<Bytes> by_own_decoder(const ParsedJpeg& parsed, const Region& region) {
  static ScanDecoder scan;  // reused, as in the product
  static RegionRows rows;
  if (!scan.open(parsed)) return std::nullopt;
  rows.begin(parsed.frame, scan, region);
  return pixels_of(&rows, region);
}

std::optional<Bytes> by_item(ItemDecoder& decoder, std::span<const std::byte> item, const Region& region) {
  if (!decoder.open(item)) return std::nullopt;
  if (auto pixels = pixels_of(decoder.begin(region), region)) return pixels;
  return pixels_of(decoder.retry(region), region);
}

void check_forms(ItemDecoder& decoder, std::span<const std::byte> item, const ImageSize& size,
                 const std::optional<Bytes>& whole, Chance& chance) {
  std::vector<std::byte> form;
  for (const Form kind : {Form::indexed, Form::packed}) {
    if (!decoder.recode(item, kind, chance.one_in(2), form)) continue;
    const std::vector<std::byte> exact(form);  // no byte behind it
    HOLDS(form_of(exact) == kind);
    HOLDS(check_item(exact));
    // Whoever recodes has seen the whole: an item that is not ours has no other form.
    HOLDS(by_libjpeg(item, {0, 0, size.width, size.height}));
    const Region part = random_region(chance, size);
    for_each_table([&] {
      const auto opened = decoder.open(exact);
      HOLDS(opened && opened->width == size.width && opened->height == size.height);
      const Region all{0, 0, size.width, size.height};
      HOLDS(pixels_of(decoder.begin(all), all) == whole);
      HOLDS(pixels_of(decoder.begin(part), part) == part_of(*whole, size.width, part));
      HOLDS(decoder.retry(part) == nullptr);
    });
  }
}

}  // namespace

std::vector<Bytes> seeds() { return jpegs_of_every_kind(); }

void mutate(Bytes& input, Chance& chance) { mutate_jpeg(input, chance); }

void check(std::span<const std::uint8_t> input) {
  static ItemDecoder decoder;
  const auto item = as_item(input);
  Chance chance(hash_of(input));
  const auto parsed = parse_jpeg(item);
  jpeg_header_of(item);
  HOLDS(form_of(item) != Form::original || check_item(item));
  if (form_of(item) != Form::original) return;
  const auto size = decoder.open(item);
  HOLDS(!parsed || (size && size->width == parsed->frame.width && size->height == parsed->frame.height));
  if (!size || std::int64_t(size->width) * size->height > kMostPixels) return;
  const Region all{0, 0, size->width, size->height};
  const auto whole = by_libjpeg(item, all);
  const Region part = random_region(chance, *size);
  const Region top{0, 0, size->width, part.height};
  for_each_table([&] {
    if (parsed) {
      const auto own = by_own_decoder(*parsed, all);
      HOLDS(!own || own == whole);
      // Damage below a region is not seen; down to the first of it, rows are libjpeg's.
      const auto own_top = by_own_decoder(*parsed, top);
      HOLDS(own.has_value() <= own_top.has_value());
    }
    HOLDS(by_item(decoder, item, all) == whole);
    const auto some = by_item(decoder, item, part);
    if (whole) HOLDS(some == part_of(*whole, size->width, part));
  });
  check_forms(decoder, item, *size, whole, chance);
}

}  // namespace coordl::fuzz
