// coordl._native: the native pass from encoded bytes to pixels.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/string.h>

#include <array>
#include <string>

#include "bindings/held.hpp"
#include "prep/draws.hpp"
#include "prep/item.hpp"
#include "prep/kernels.hpp"
#include "prep/pass.hpp"

namespace nb = nanobind;
using namespace nb::literals;
using coordl::Pass;
using coordl::Pixel;

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
  const coordl::ItemBytes pinned(item);
  const std::span<std::byte> to{static_cast<std::byte*>(out.data()), pass.sample_bytes()};
  nb::gil_scoped_release released;
  thread_local coordl::Scratch scratch;
  return pinned.may_be_decoded() &&
         coordl::prepare(pinned.span(), pass, seed, epoch, index, to, scratch) ==
         coordl::Prepared::done;
}

}  // namespace

void bind_prep(nb::module_& m) {
  m.def("prepare", &prepare, "item"_a, "pass_"_a, "seed"_a, "epoch"_a, "index"_a,
        "out"_a.noconvert(),  // never a copy of what the caller passed
        "Encoded bytes -> pixels in `out`, (3, height, width) of the pass's pixel type, or (height,\n"
        "width, 3) where its layout is hwc.\n"
        "False when the item is not one for the native pass; `out` is then unspecified.\n"
        "Releases the GIL.");
  m.def("philox", &coordl::philox, "counter"_a, "key"_a,
        "Philox4x64-10: four 64-bit words that depend on counter and key only.");
  m.def("simd", [] { return coordl::kernels().name; },
        "Name of the kernels in use: scalar, avx2, avx512 or neon; COORDL_SIMD chooses one.");
}
