#include "prep/item.hpp"

#include <cstring>

#include "prep/image.hpp"
#include "prep/jpeg/indexed.hpp"
#include "prep/jpeg/libjpeg.hpp"
#include "prep/jpeg/packed.hpp"
#include "prep/jpeg/parse.hpp"
#include "prep/jpeg/region.hpp"
#include "prep/jpeg/scan.hpp"
#include "prep/keep.hpp"

namespace coordl {
namespace {

bool begins_with(std::span<const std::byte> item, const char* magic) {
  return item.size() >= 4 && std::memcmp(item.data(), magic, 4) == 0;
}

}  // namespace

Form form_of(std::span<const std::byte> item) noexcept {
  if (begins_with(item, kPackedMagic)) return Form::packed;
  if (begins_with(item, kIndexedMagic)) return Form::indexed;
  return Form::original;
}

bool check_item(std::span<const std::byte> item) noexcept {
  switch (form_of(item)) {
    case Form::packed: {
      const auto image = PackedImage::open(item);
      return image && image->check();
    }
    case Form::indexed: return IndexedImage::open(item).has_value();
    case Form::original: break;
  }
  return true;
}

struct ItemDecoder::State {
  std::span<const std::byte> item;
  Form form = Form::original;
  std::optional<ParsedJpeg> parsed;  // of an original that is ours
  std::optional<PackedImage> packed;
  std::optional<IndexedImage> indexed;
  PackedSource packed_source;
  IndexedSource indexed_source;
  ScanDecoder scan;
  RegionRows rows;
  CoefficientRow coefficients;
  ImageDecoder images;     // what is not ours to decode: libraries do
  LibjpegDecoder libjpeg;  // coefficients to rewrite
  std::vector<std::uint8_t> pixels;
  std::optional<InterleavedRows> interleaved;

  const Frame* open_form();
};

const Frame* ItemDecoder::State::open_form() {
  form = form_of(item);
  switch (form) {
    case Form::packed:
      packed = PackedImage::open(item);
      return packed ? &packed->frame() : nullptr;
    case Form::indexed:
      indexed = IndexedImage::open(item);
      return indexed ? &indexed->frame() : nullptr;
    case Form::original:
      parsed = parse_jpeg(item);
      return parsed ? &parsed->frame : nullptr;
  }
  return nullptr;
}

ItemDecoder::ItemDecoder() : state_(std::make_unique<State>()) {}
ItemDecoder::~ItemDecoder() = default;

std::optional<ImageSize> ItemDecoder::open(std::span<const std::byte> item) {
  State& state = *state_;
  state.item = item;
  if (const Frame* frame = state.open_form()) return ImageSize{frame->width, frame->height};
  if (state.form != Form::original) return std::nullopt;
  return state.images.open(item);
}

PixelRows* ItemDecoder::begin(const Region& region) {
  State& state = *state_;
  switch (state.form) {
    case Form::packed:
      state.packed_source.open(*state.packed);
      state.rows.begin(state.packed->frame(), state.packed_source, region);
      return &state.rows;
    case Form::indexed:
      if (!state.indexed_source.open(*state.indexed)) return nullptr;
      state.rows.begin(state.indexed->frame(), state.indexed_source, region);
      return &state.rows;
    case Form::original: break;
  }
  if (!state.parsed || !state.scan.open(*state.parsed)) return retry(region);
  state.rows.begin(state.parsed->frame, state.scan, region);
  return &state.rows;
}

PixelRows* ItemDecoder::retry(const Region& region) {
  State& state = *state_;
  if (state.form != Form::original || !state.images.open(state.item)) return nullptr;
  const auto view = state.images.decode(region, state.pixels);
  state.images.close();
  if (!view) return nullptr;
  return &state.interleaved.emplace(*view, region.width);
}

void ItemDecoder::trim() {
  coordl::trim(state_->pixels);
  state_->scan.trim();
}

bool ItemDecoder::recode(std::span<const std::byte> item, Form form, bool keep_header,
                         std::vector<std::byte>& out) {
  State& state = *state_;
  const struct AtEnd {
    ItemDecoder& decoder;
    ~AtEnd() { decoder.trim(); }
  } at_end{*this};
  if (form_of(item) != Form::original || form == Form::original) return false;
  const auto parsed = parse_jpeg(item);
  if (form == Form::indexed) return parsed && make_indexed(*parsed, state.scan, state.coefficients, out);
  if (parsed && state.scan.open(*parsed)) {
    const auto header = keep_header ? parsed->header : std::span<const std::byte>{};
    if (pack(parsed->frame, state.scan, header, state.coefficients, out) && state.scan.ended_well()) {
      return true;
    }
  }
  if (!state.libjpeg.open(item)) return false;
  const auto frame = state.libjpeg.coefficients();
  const auto header = keep_header && frame ? jpeg_header_of(item) : std::span<const std::byte>{};
  const bool packed = frame && pack(*frame, state.libjpeg, header, state.coefficients, out);
  state.libjpeg.close();
  return packed;
}

}  // namespace coordl
