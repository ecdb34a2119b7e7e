// coordl._native: the native pass, its draws, image sizes.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>

#include <cmath>
#include <string>
#include <tuple>

#include "bindings/bytes.hpp"
#include "prep/draws.hpp"
#include "prep/kernels.hpp"
#include "prep/pass.hpp"

namespace nb = nanobind;
using namespace nb::literals;
using coordl::Geometry;
using coordl::Pass;
using coordl::Pixel;
using coordl::Bytes;

namespace {

constexpr int kMaxEdge = 16384;

void require(bool holds, const std::string& message) {
  if (!holds) throw nb::value_error(message.c_str());
}

Geometry::Kind kind_of(const std::string& name) {
  if (name == "random_resized_crop") return Geometry::Kind::random_resized_crop;
  if (name == "resize_center_crop") return Geometry::Kind::resize_center_crop;
  if (name == "resize") return Geometry::Kind::resize;
  if (name == "center_crop") return Geometry::Kind::center_crop;
  throw nb::value_error(("geometry '" + name + "' is unknown: use random_resized_crop, "
                         "resize_center_crop, resize or center_crop").c_str());
}

void check_range(const std::array<double, 2>& range, const char* name) {
  const bool fine = range[0] > 0 && range[0] <= range[1] && std::isfinite(range[1]) &&
                    range[0] > 1e-9 && range[1] < 1e9;
  require(fine, std::string(name) + " must be (low, high) with 0 < low <= high; got (" +
                    std::to_string(range[0]) + ", " + std::to_string(range[1]) + ")");
}

Pass make_pass(const std::string& geometry, int out_height, int out_width, int resize_shorter,
               std::array<double, 2> scale, std::array<double, 2> ratio, double flip_probability,
               const std::string& pixel, std::array<float, 3> pixel_scale,
               std::array<float, 3> pixel_bias) {
  Pass pass;
  pass.geometry = {kind_of(geometry), out_height, out_width, resize_shorter, scale, ratio};
  for (int edge : {out_height, out_width, resize_shorter}) {
    require(edge >= 1 && edge <= kMaxEdge, "an edge of " + std::to_string(edge) +
                                               " px is outside 1.." + std::to_string(kMaxEdge));
  }
  check_range(scale, "scale");
  check_range(ratio, "ratio");
  require(flip_probability >= 0 && flip_probability <= 1,
          "flip_probability must be in [0, 1]; got " + std::to_string(flip_probability));
  require(pixel == "float32" || pixel == "uint8",
          "pixel '" + pixel + "' is unknown: use float32 or uint8");
  pass.flip_probability = flip_probability;
  pass.pixel = pixel == "uint8" ? Pixel::uint8 : Pixel::float32;
  pass.scale = pixel_scale;
  pass.bias = pixel_bias;
  return pass;
}

using Out = nb::ndarray<nb::c_contig, nb::device::cpu>;

bool prepare(nb::handle item, const Pass& pass, std::uint64_t seed, std::uint64_t epoch,
             std::uint64_t index, Out out) {
  const bool bytes = pass.pixel == Pixel::uint8;
  const auto wanted = bytes ? nb::dtype<std::uint8_t>() : nb::dtype<float>();
  const bool fits = out.ndim() == 3 && out.shape(0) == 3 &&
                    out.shape(1) == std::size_t(pass.geometry.out_height) &&
                    out.shape(2) == std::size_t(pass.geometry.out_width);
  require(fits && out.dtype() == wanted,
          "out must be C-contiguous (3, " + std::to_string(pass.geometry.out_height) + ", " +
              std::to_string(pass.geometry.out_width) + ") of " + (bytes ? "uint8" : "float32"));
  const Bytes pinned(item);
  const std::span<std::byte> to{static_cast<std::byte*>(out.data()), pass.sample_bytes()};
  nb::gil_scoped_release released;
  thread_local coordl::Scratch scratch;
  return coordl::prepare(pinned.span(), pass, seed, epoch, index, to, scratch) ==
         coordl::Prepared::done;
}

std::tuple<int, int, int, int, bool> choose_draw(const Pass& pass, int width, int height,
                                                 std::uint64_t seed, std::uint64_t epoch,
                                                 std::uint64_t index) {
  require(width >= 1 && height >= 1, "an image has at least one pixel; got " +
                                         std::to_string(width) + " x " + std::to_string(height));
  const auto draw = coordl::choose_draw(pass, width, height, seed, epoch, index);
  return {draw.x, draw.y, draw.width, draw.height, draw.flip};
}

}  // namespace

void bind_prep(nb::module_& m) {
  nb::class_<Pass>(m, "Pass", "What happens to the pixels of every sample of one data set.")
      .def("__init__",
           [](Pass* self, const std::string& geometry, int out_height, int out_width,
              int resize_shorter, std::array<double, 2> scale, std::array<double, 2> ratio,
              double flip_probability, const std::string& pixel, std::array<float, 3> pixel_scale,
              std::array<float, 3> pixel_bias) {
             new (self) Pass(make_pass(geometry, out_height, out_width, resize_shorter, scale,
                                       ratio, flip_probability, pixel, pixel_scale, pixel_bias));
           },
           nb::kw_only(), "geometry"_a, "out_height"_a, "out_width"_a, "resize_shorter"_a = 256,
           "scale"_a = std::array<double, 2>{0.08, 1.0},
           "ratio"_a = std::array<double, 2>{3.0 / 4.0, 4.0 / 3.0}, "flip_probability"_a = 0.0,
           "pixel"_a = "float32",
           "pixel_scale"_a = std::array<float, 3>{1.0f / 255, 1.0f / 255, 1.0f / 255},
           "pixel_bias"_a = std::array<float, 3>{0, 0, 0},
           "geometry: random_resized_crop, resize_center_crop, resize or center_crop.\n"
           "scale, ratio: of random_resized_crop. pixel: 'float32' (level * pixel_scale[c] +\n"
           "pixel_bias[c]) or 'uint8'. Raises ValueError.")
      .def_prop_ro("sample_bytes", &Pass::sample_bytes);

  m.def("prepare", &prepare, "item"_a, "pass_"_a, "seed"_a, "epoch"_a, "index"_a,
        "out"_a.noconvert(),  // never a copy of what the caller passed
        "Encoded bytes -> pixels in `out`, (3, out_height, out_width) of the pass's pixel type.\n"
        "False when the item is not one for the native pass; `out` is then unspecified.\n"
        "Releases the GIL.");
  m.def("choose_draw", &choose_draw, "pass_"_a, "width"_a, "height"_a, "seed"_a, "epoch"_a,
        "index"_a, "(x, y, width, height, flip) of a sample on an image of that size.");
  m.def("philox", &coordl::philox, "counter"_a, "key"_a,
        "Philox4x64-10: four 64-bit words that depend on counter and key only.");
  m.def("simd", [] { return coordl::kernels().name; },
        "Name of the kernels in use: scalar, avx2, avx512 or neon; COORDL_SIMD chooses one.");
}
