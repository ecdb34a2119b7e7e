// coordl._native: the native pass from encoded bytes to pixels, JPEG sizes.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>

#include <array>
#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings/bytes.hpp"
#include "prep/draws.hpp"
#include "prep/jpeg.hpp"
#include "prep/kernels.hpp"
#include "prep/pass.hpp"

namespace nb = nanobind;
using namespace nb::literals;
using coordl::Pass;
using coordl::Pixel;
using coordl::Bytes;

namespace {

void require(bool holds, const std::string& message) {
  if (!holds) throw nb::value_error(message.c_str());
}

using Out = nb::ndarray<nb::c_contig, nb::device::cpu>;

// dtypes that hold the pass's values; bfloat16 has none of its own in numpy, only its bits.
bool holds(const nb::dlpack::dtype& dtype, Pixel pixel) {
  constexpr nb::dlpack::dtype kHalf{std::uint8_t(nb::dlpack::dtype_code::Float), 16, 1};
  constexpr nb::dlpack::dtype kBrain{std::uint8_t(nb::dlpack::dtype_code::Bfloat), 16, 1};
  switch (pixel) {
    case Pixel::uint8: return dtype == nb::dtype<std::uint8_t>();
    case Pixel::float32: return dtype == nb::dtype<float>();
    case Pixel::float16: return dtype == kHalf;
    case Pixel::bfloat16: break;
  }
  return dtype == kBrain || dtype == nb::dtype<std::uint16_t>();
}

const char* dtype_name(Pixel pixel) {
  switch (pixel) {
    case Pixel::uint8: return "uint8";
    case Pixel::float32: return "float32";
    case Pixel::float16: return "float16";
    case Pixel::bfloat16: break;
  }
  return "bfloat16 (in numpy: its bits, uint16)";
}

void check_out(const Out& out, const Pass& pass) {
  const std::size_t height = pass.geometry.out_height, width = pass.geometry.out_width;
  const bool planes = pass.layout == coordl::Layout::chw;
  const std::array<std::size_t, 3> shape = planes ? std::array<std::size_t, 3>{3, height, width}
                                                  : std::array<std::size_t, 3>{height, width, 3};
  bool fits = out.ndim() == 3 && holds(out.dtype(), pass.pixel);
  for (std::size_t i = 0; fits && i < 3; ++i) fits = out.shape(i) == shape[i];
  require(fits, "out must be C-contiguous (" + std::to_string(shape[0]) + ", " +
                    std::to_string(shape[1]) + ", " + std::to_string(shape[2]) + ") of " +
                    dtype_name(pass.pixel));
}

bool prepare(nb::handle item, const Pass& pass, std::uint64_t seed, std::uint64_t epoch,
             std::uint64_t index, Out out) {
  check_out(out, pass);
  const Bytes pinned(item);
  const std::span<std::byte> to{static_cast<std::byte*>(out.data()), pass.sample_bytes()};
  nb::gil_scoped_release released;
  thread_local coordl::Scratch scratch;
  return coordl::prepare(pinned.span(), pass, seed, epoch, index, to, scratch) ==
         coordl::Prepared::done;
}

std::optional<std::pair<int, int>> jpeg_size(nb::handle item) {
  const Bytes pinned(item);
  coordl::JpegDecoder decoder;
  const auto size = decoder.open(pinned.span());
  if (!size) return std::nullopt;
  return std::pair{size->width, size->height};
}

bool decode_region(nb::handle item, int x, int y,
                   nb::ndarray<std::uint8_t, nb::shape<-1, -1, 3>, nb::c_contig, nb::device::cpu> out) {
  const Bytes pinned(item);
  coordl::JpegDecoder decoder;
  const auto size = decoder.open(pinned.span());
  if (!size) return false;
  const std::int64_t width = std::int64_t(out.shape(1)), height = std::int64_t(out.shape(0));
  require(x >= 0 && y >= 0 && width > 0 && height > 0 && x + width <= size->width &&
              y + height <= size->height,
          "the region lies outside the image of " + std::to_string(size->width) + " x " +
              std::to_string(size->height));
  std::vector<std::uint8_t> buffer;
  const auto pixels = decoder.decode({x, y, int(width), int(height)}, buffer);
  if (!pixels) return false;
  for (std::int64_t row = 0; row < height; ++row) {
    std::memcpy(out.data() + row * width * 3, pixels->first + row * pixels->stride,
                std::size_t(width) * 3);
  }
  return true;
}

}  // namespace

void bind_prep(nb::module_& m) {
  m.def("prepare", &prepare, "item"_a, "pass_"_a, "seed"_a, "epoch"_a, "index"_a,
        "out"_a.noconvert(),  // never a copy of what the caller passed
        "Encoded bytes -> pixels in `out`, (3, height, width) of the pass's pixel type, or (height,\n"
        "width, 3) where its layout is hwc.\n"
        "False when the item is not one for the native pass; `out` is then unspecified.\n"
        "Releases the GIL.");
  m.def("jpeg_size", &jpeg_size, "item"_a,
        "(width, height) of a JPEG the native pass takes, from its header; else None.");
  m.def("decode_region", &decode_region, "item"_a, "x"_a, "y"_a, "out"_a.noconvert(),
        "Decodes the region at (x, y) of out's size into out, (height, width, 3) uint8; the pixels\n"
        "of a full decode. False when the item is not one for the native pass.");
  m.def("philox", &coordl::philox, "counter"_a, "key"_a,
        "Philox4x64-10: four 64-bit words that depend on counter and key only.");
  m.def("simd", [] { return coordl::kernels().name; },
        "Name of the kernels in use: 'avx2' or 'scalar' (also with COORDL_SIMD=scalar).");
}
