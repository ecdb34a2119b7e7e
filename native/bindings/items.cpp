// coordl._native: encoded items, their forms, and pixels of regions.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>

#include <array>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings/bytes.hpp"
#include "bindings/held.hpp"
#include "prep/forms.hpp"
#include "prep/image.hpp"
#include "prep/item.hpp"
#include "prep/keep.hpp"
#include "prep/kernels.hpp"
#include "prep/pass.hpp"

namespace nb = nanobind;
using namespace nb::literals;
using coordl::Bytes;
using coordl::Form;
using coordl::ItemBytes;
using coordl::Region;

namespace {

// One for each thread: its buffers grow once.
coordl::ItemDecoder& decoder() {
  thread_local coordl::ItemDecoder mine;
  return mine;
}

std::optional<coordl::ImageSize> open(const ItemBytes& item) {
  if (!item.may_be_decoded()) return std::nullopt;
  return decoder().open(item.span());
}

void require_inside(const Region& region, const coordl::ImageSize& size) {
  if (region.x >= 0 && region.y >= 0 && region.width > 0 && region.height > 0 &&
      std::int64_t(region.x) + region.width <= size.width &&
      std::int64_t(region.y) + region.height <= size.height) {
    return;
  }
  throw nb::value_error(("the region lies outside the image of " + std::to_string(size.width) + " x " +
                         std::to_string(size.height)).c_str());
}

using Picture = nb::ndarray<std::uint8_t, nb::shape<-1, -1, 3>, nb::c_contig, nb::device::cpu>;

bool decode_region(nb::handle item, int x, int y, Picture out) {
  const ItemBytes pinned(item);
  const auto size = open(pinned);
  if (!size) return false;
  const Region region{x, y, int(out.shape(1)), int(out.shape(0))};
  require_inside(region, *size);
  const nb::gil_scoped_release released;
  std::vector<std::uint16_t> buffer;
  const auto read = [&](coordl::PixelRows* rows) {
    return rows != nullptr &&
           coordl::read_interleaved(*rows, region.width, region.height, out.data(), buffer);
  };
  const bool done = read(decoder().begin(region)) || read(decoder().retry(region));
  decoder().trim();
  return done;
}

std::optional<std::pair<int, int>> image_size(nb::handle item) {
  const ItemBytes pinned(item);
  const auto size = open(pinned);
  if (!size) return std::nullopt;
  return std::pair{size->width, size->height};
}

Form form_named(const std::string& name) {
  if (name == "packed") return Form::packed;
  if (name == "indexed") return Form::indexed;
  throw nb::value_error(("form '" + name + "' is unknown: use packed or indexed").c_str());
}

const char* form_name(nb::handle item) {
  const Bytes pinned(item);
  switch (coordl::form_of(pinned.span())) {
    case Form::packed: return "packed";
    case Form::indexed: return "indexed";
    case Form::original: break;
  }
  return "original";
}

nb::object recode(nb::handle item, const std::string& name, bool keep_header) {
  const Form form = form_named(name);
  const Bytes pinned(item);
  thread_local std::vector<std::byte> out;
  bool done;
  {
    const nb::gil_scoped_release released;
    done = decoder().recode(pinned.span(), form, keep_header, out);
  }
  const nb::object made = done ? nb::object(nb::bytes(out.data(), out.size())) : nb::none();
  coordl::trim(out);
  return made;
}

bool prepare_box(nb::handle item, const coordl::Pass& pass, int x, int y, int width, int height,
                 bool flip, nb::ndarray<nb::c_contig, nb::device::cpu> out) {
  if (out.nbytes() != pass.sample_bytes()) {
    throw nb::value_error(("out has " + std::to_string(out.nbytes()) + " bytes, the pass makes " +
                           std::to_string(pass.sample_bytes())).c_str());
  }
  const ItemBytes pinned(item);
  const auto size = open(pinned);
  if (!size) return false;
  require_inside({x, y, width, height}, *size);
  const nb::gil_scoped_release released;
  thread_local coordl::Scratch scratch;
  coordl::Draw draw;
  draw.x = x;
  draw.y = y;
  draw.width = width;
  draw.height = height;
  draw.flip = flip;
  return coordl::prepare(pinned.span(), pass, draw,
                         {static_cast<std::byte*>(out.data()), out.nbytes()}, scratch) ==
         coordl::Prepared::done;
}

std::pair<const char*, double> choose_mix(double bytes, double budget,
                                          std::array<double, 3> prep_s, std::array<double, 3> growth,
                                          double storage_rate) {
  const auto mix = coordl::choose_mix({0, bytes, budget}, {prep_s, growth, storage_rate});
  return {mix.base == Form::indexed ? "indexed" : "original", mix.packed};
}

}  // namespace

void bind_items(nb::module_& m) {
  m.def("image_size", &image_size, "item"_a,
        "(width, height) of an item the native pass takes, from its header; else None.");
  m.def("formats", [] {
    nb::list names;
    for (const auto name : coordl::formats()) names.append(nb::str(name.data(), name.size()));
    return names;
  }, nb::sig("def formats() -> list[str]"),
        "Formats this build decodes: 'jpeg', and 'png' and 'webp' where their libraries were found.");
  m.def("decode_region", &decode_region, "item"_a, "x"_a, "y"_a, "out"_a.noconvert(),
        "Decodes the region at (x, y) of out's size into out, (height, width, 3) uint8; the pixels\n"
        "of a full decode. False when the item is not one for the native pass.");
  m.def("form", &form_name, "item"_a, "'original', 'indexed' or 'packed', by the first bytes.");
  m.def("recode", &recode, "item"_a, "form"_a, "keep_header"_a = false,
        nb::sig("def recode(item: bytes | bytearray | memoryview, form: str, "
                "keep_header: bool = False) -> bytes | None"),
        "A JPEG as an 'indexed' or 'packed' item of the same pixels; None where it has no such form.\n"
        "keep_header: with the JPEG's own header, for unpacking. Releases the GIL.");
  m.def("choose_mix", &choose_mix, nb::kw_only(), "bytes"_a, "budget"_a, "prep_s"_a, "growth"_a,
        "storage_rate"_a,
        "(form of the rest, share of packed items) that makes epochs shortest; prep_s in seconds a\n"
        "byte of the files; native/prep/forms.hpp.");
  m.def("prepare_box", &prepare_box, "item"_a, "pass_"_a, "x"_a, "y"_a, "width"_a, "height"_a,
        "flip"_a, "out"_a.noconvert(),
        "Like prepare() with a crop of the caller's, in pixels of the image.");
}
