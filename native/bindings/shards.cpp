// Bindings for packed data sets on disk: checksums, checks of what comes from outside, and the way back.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <cstdint>
#include <vector>

#include "bindings/bytes.hpp"
#include "fetch/checksum.hpp"
#include "prep/item.hpp"
#include "prep/jpeg/packed.hpp"
#include "prep/jpeg/write.hpp"

namespace nb = nanobind;
using namespace nb::literals;
using coordl::Bytes;

namespace {

std::uint64_t checksum(nb::handle data, std::uint64_t hi, std::uint64_t lo) {
  const Bytes pinned(data);
  const nb::gil_scoped_release released;
  return coordl::checksum({hi, lo}, pinned.span());
}

bool check_item(nb::handle item) {
  const Bytes pinned(item);
  const nb::gil_scoped_release released;
  return coordl::check_item(pinned.span());
}

nb::object unpack(nb::handle item) {
  const Bytes pinned(item);
  std::vector<std::byte> out;
  bool done;
  {
    const nb::gil_scoped_release released;
    done = coordl::unpack_item(pinned.span(), out);
  }
  return done ? nb::object(nb::bytes(out.data(), out.size())) : nb::none();
}

bool can_unpack(nb::handle item) {
  const Bytes pinned(item);
  const nb::gil_scoped_release released;
  if (!coordl::check_item(pinned.span())) return false;
  const auto packed = coordl::PackedImage::open(pinned.span());
  return packed ? coordl::has_baseline_codes(*packed)
                : coordl::form_of(pinned.span()) == coordl::Form::indexed;
}

nb::bytes jpeg_header(nb::handle item) {
  const Bytes pinned(item);
  if (const auto image = coordl::PackedImage::open(pinned.span())) {
    return nb::bytes(image->jpeg_header().data(), image->jpeg_header().size());
  }
  if (const auto image = coordl::IndexedImage::open(pinned.span())) {
    return nb::bytes(image->parsed().header.data(), image->parsed().header.size());
  }
  return nb::bytes("", 0);
}

}  // namespace

void bind_shards(nb::module_& m) {
  m.def("checksum", &checksum, "data"_a, "hi"_a = 0, "lo"_a = 0,
        nb::sig("def checksum(data: bytes | bytearray | memoryview, hi: int = 0, lo: int = 0) -> int"),
        "64 bits that find torn, misplaced and flipped bytes; (hi, lo) says where they belong.");
  m.def("check_item", &check_item, "item"_a,
        nb::sig("def check_item(item: bytes | bytearray | memoryview) -> bool"),
        "Whether an item of ours from outside may be decoded. True for originals: their decoders check.");
  m.def("unpack", &unpack, "item"_a,
        nb::sig("def unpack(item: bytes | bytearray | memoryview) -> bytes | None"),
        "A packed or indexed item as a JPEG of the same coefficients, tables and segments; None when\n"
        "it is damaged or none of ours. Releases the GIL.");
  m.def("can_unpack", &can_unpack, "item"_a,
        nb::sig("def can_unpack(item: bytes | bytearray | memoryview) -> bool"),
        "Whether unpack() makes a JPEG of it. False for the few whose coefficients no encoder makes.");
  m.def("jpeg_header", &jpeg_header, "item"_a,
        nb::sig("def jpeg_header(item: bytes | bytearray | memoryview) -> bytes"),
        "The JPEG's own header that a packed or indexed item carries; empty without one.");
}
