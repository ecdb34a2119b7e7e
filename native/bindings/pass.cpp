// coordl._native: Pass, its draws, and its steps on given pixels (what the tests hold against Pillow).
#include "prep/pass.hpp"

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <cmath>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "prep/colour_ops.hpp"
#include "prep/finish.hpp"
#include "prep/resample_exact.hpp"

namespace nb = nanobind;
using namespace nb::literals;
using coordl::ColourOp;
using coordl::ColourStep;
using coordl::Filter;
using coordl::Geometry;
using coordl::Layout;
using coordl::PadMode;
using coordl::Pass;
using coordl::Pixel;

namespace {

constexpr int kMaxEdge = 16384;

using Range = std::array<double, 2>;
using Step = std::tuple<std::string, double, std::array<std::optional<Range>, 3>>;
using Levels = nb::ndarray<std::uint8_t, nb::shape<3, -1, -1>, nb::c_contig, nb::device::cpu>;

void require(bool holds, const std::string& message) {
  if (!holds) throw nb::value_error(message.c_str());
}

template <class Value>
struct Named {
  const char* name;
  Value value;
};

// The value of that name; the error lists the names there are.
template <class Value, std::size_t kCount>
Value look_up(const char* what, const std::string& name, const Named<Value> (&known)[kCount]) {
  std::string names;
  for (std::size_t i = 0; i < kCount; ++i) {
    if (name == known[i].name) return known[i].value;
    names += (i == 0 ? "" : i + 1 == kCount ? " or " : ", ") + std::string(known[i].name);
  }
  throw nb::value_error((std::string(what) + " '" + name + "' is unknown: use " + names).c_str());
}

constexpr Named<Geometry::Kind> kKinds[] = {
    {"random_resized_crop", Geometry::Kind::random_resized_crop},
    {"resize_center_crop", Geometry::Kind::resize_center_crop},
    {"resize", Geometry::Kind::resize},
    {"center_crop", Geometry::Kind::center_crop},
    {"random_crop", Geometry::Kind::random_crop},
    {"resize_random_crop", Geometry::Kind::resize_random_crop}};
constexpr Named<Filter> kFilters[] = {
    {"bilinear", Filter::bilinear}, {"bicubic", Filter::bicubic}, {"nearest", Filter::nearest}};
constexpr Named<PadMode> kPadModes[] = {{"constant", PadMode::constant},
                                        {"edge", PadMode::edge},
                                        {"reflect", PadMode::reflect},
                                        {"symmetric", PadMode::symmetric}};
constexpr Named<Pixel> kPixels[] = {{"float32", Pixel::float32},
                                    {"uint8", Pixel::uint8},
                                    {"float16", Pixel::float16},
                                    {"bfloat16", Pixel::bfloat16}};
constexpr Named<Layout> kLayouts[] = {{"chw", Layout::chw}, {"hwc", Layout::hwc}};
constexpr Named<ColourOp::Kind> kOps[] = {{"brightness", ColourOp::Kind::brightness},
                                          {"contrast", ColourOp::Kind::contrast},
                                          {"saturation", ColourOp::Kind::saturation},
                                          {"grey", ColourOp::Kind::grey}};
constexpr Named<ColourStep::Kind> kSteps[] = {{"jitter", ColourStep::Kind::jitter},
                                              {"grey", ColourStep::Kind::grey}};

void check_range(const Range& range, const char* name, bool from_zero = false) {
  const bool fine = range[0] <= range[1] && std::isfinite(range[1]) && range[1] < 1e9 &&
                    (from_zero ? range[0] >= 0 : range[0] > 1e-9);
  require(fine, std::string(name) + " must be (low, high) with 0 " + (from_zero ? "<=" : "<") +
                    " low <= high; got (" + std::to_string(range[0]) + ", " +
                    std::to_string(range[1]) + ")");
}

void check_probability(double value, const char* name) {
  require(value >= 0 && value <= 1,
          std::string(name) + " must be in [0, 1]; got " + std::to_string(value));
}

ColourStep make_step(const Step& given) {
  const auto& [kind, probability, ranges] = given;
  check_probability(probability, "a colour step's probability");
  ColourStep step{look_up("colour step", kind, kSteps), probability, {}};
  for (int which = 0; which < 3; ++which) {
    step.ranges[which] = ranges[which].value_or(Range{1, 0});  // empty: not drawn
    if (ranges[which]) check_range(*ranges[which], kOps[which].name, true);
  }
  return step;
}

void check_geometry(const Geometry& geometry) {
  for (const int edge : {geometry.out_height, geometry.out_width, geometry.resize_shorter}) {
    require(edge >= 1 && edge <= kMaxEdge, "an edge of " + std::to_string(edge) +
                                               " px is outside 1.." + std::to_string(kMaxEdge));
  }
  for (const int pad : geometry.padding) {
    require(pad >= 0 && pad <= kMaxEdge, "a padding of " + std::to_string(pad) +
                                             " px is outside 0.." + std::to_string(kMaxEdge));
  }
  check_range(geometry.scale, "scale");
  check_range(geometry.ratio, "ratio");
}

void init_pass(Pass* self, const std::string& geometry, int out_height, int out_width,
               int resize_shorter, Range scale, Range ratio, const std::string& filter,
               std::array<int, 4> padding, bool pad_if_needed, const std::string& pad_mode,
               std::array<std::uint8_t, 3> fill, double flip_probability,
               double vertical_flip_probability, const std::vector<Step>& colours,
               double erase_probability, Range erase_scale, Range erase_ratio,
               std::array<float, 3> erase_value, const std::string& layout,
               const std::string& pixel, std::array<float, 3> pixel_scale,
               std::array<float, 3> pixel_bias) {
  Pass pass;
  pass.geometry = {look_up("geometry", geometry, kKinds), out_height, out_width, resize_shorter,
                   scale, ratio, look_up("filter", filter, kFilters), padding, pad_if_needed,
                   look_up("pad_mode", pad_mode, kPadModes), fill};
  check_geometry(pass.geometry);
  check_probability(flip_probability, "flip_probability");
  check_probability(vertical_flip_probability, "vertical_flip_probability");
  check_probability(erase_probability, "erase_probability");
  check_range(erase_scale, "erase_scale", true);
  check_range(erase_ratio, "erase_ratio");
  require(colours.size() <= coordl::kMaxColourSteps,
          std::to_string(colours.size()) + " colour steps are more than the " +
              std::to_string(coordl::kMaxColourSteps) + " there can be");
  for (const Step& step : colours) pass.colours.push_back(make_step(step));
  pass.flip_probability = flip_probability;
  pass.vertical_flip_probability = vertical_flip_probability;
  pass.erase = {erase_probability, erase_scale, erase_ratio, erase_value};
  pass.layout = look_up("layout", layout, kLayouts);
  pass.pixel = look_up("pixel", pixel, kPixels);
  pass.scale = pixel_scale;
  pass.bias = pixel_bias;
  new (self) Pass(std::move(pass));
}

using OpTuple = nb::typed<nb::tuple, nb::str, double>;
using DrawTuple = std::tuple<int, int, int, int, bool, bool, nb::typed<nb::tuple, OpTuple, nb::ellipsis>,
                             std::tuple<int, int, int, int>>;

DrawTuple choose_draw(const Pass& pass, int width, int height, std::uint64_t seed,
                      std::uint64_t epoch, std::uint64_t index) {
  require(width >= 1 && height >= 1, "an image has at least one pixel; got " +
                                         std::to_string(width) + " x " + std::to_string(height));
  const auto draw = coordl::choose_draw(pass, width, height, seed, epoch, index);
  nb::list ops;
  for (const ColourOp& op : draw.colour_ops()) {
    ops.append(nb::make_tuple(kOps[static_cast<int>(op.kind)].name, op.factor));
  }
  const auto& [x, y, erase_width, erase_height] = draw.erase;
  return {draw.x, draw.y, draw.width, draw.height, draw.flip, draw.vertical_flip,
          nb::borrow<nb::typed<nb::tuple, OpTuple, nb::ellipsis>>(nb::tuple(ops)),
          {x, y, erase_width, erase_height}};
}

void apply_colours(Levels levels, const std::vector<std::tuple<std::string, double>>& given) {
  std::vector<ColourOp> ops;
  for (const auto& [name, factor] : given) ops.push_back({look_up("colour op", name, kOps), factor});
  const std::size_t plane = levels.shape(1) * levels.shape(2);
  if (plane > 0) coordl::apply_colours(ops, levels.data(), plane);
}

void resize_exact(nb::ndarray<const std::uint8_t, nb::shape<-1, -1, 3>, nb::c_contig, nb::device::cpu> pixels,
                  const std::string& filter, Levels out) {
  const Filter kind = look_up("filter", filter, kFilters);
  require(kind != Filter::bilinear, "filter is 'bicubic' or 'nearest'");
  require(pixels.size() > 0 && out.size() > 0, "an image has at least one pixel");
  const int height = int(pixels.shape(0)), width = int(pixels.shape(1));
  coordl::ExactAxis x, y;
  x.build(kind, width, int(out.shape(2)), 0, int(out.shape(2)));
  y.build(kind, height, int(out.shape(1)), 0, int(out.shape(1)));
  const std::ptrdiff_t stride = std::ptrdiff_t(3) * width;
  coordl::ExactBuffers buffers;
  coordl::resample_exact({pixels.data() + y.begin() * stride + 3 * x.begin(), stride}, x, y,
                         out.data(), buffers);
}

}  // namespace

void bind_pass(nb::module_& m) {
  nb::class_<Pass>(m, "Pass", "What happens to the pixels of every sample of one data set.")
      .def("__init__", &init_pass, nb::kw_only(), "geometry"_a, "out_height"_a, "out_width"_a,
           "resize_shorter"_a = 256, "scale"_a = Range{0.08, 1.0},
           "ratio"_a = Range{3.0 / 4.0, 4.0 / 3.0}, "filter"_a = "bilinear",
           "padding"_a = std::array<int, 4>{0, 0, 0, 0}, "pad_if_needed"_a = false,
           "pad_mode"_a = "constant", "fill"_a = std::array<std::uint8_t, 3>{0, 0, 0},
           "flip_probability"_a = 0.0, "vertical_flip_probability"_a = 0.0,
           "colours"_a = std::vector<Step>{}, "erase_probability"_a = 0.0,
           "erase_scale"_a = Range{0.02, 0.33}, "erase_ratio"_a = Range{0.3, 3.3},
           "erase_value"_a = std::array<float, 3>{0, 0, 0}, "layout"_a = "chw",
           "pixel"_a = "float32",
           "pixel_scale"_a = std::array<float, 3>{1.0f / 255, 1.0f / 255, 1.0f / 255},
           "pixel_bias"_a = std::array<float, 3>{0, 0, 0},
           "geometry: random_resized_crop, resize_center_crop, resize, center_crop, random_crop or\n"
           "resize_random_crop.\n"
           "scale, ratio: of random_resized_crop. filter: bilinear, bicubic or nearest. padding\n"
           "(left, top, right, bottom), pad_if_needed, pad_mode, fill: of random crops.\n"
           "colours: ('jitter', 1, (brightness, contrast, saturation)), each (low, high) or None;\n"
           "('grey', probability, (None, None, None)). erase_value: as it stands in the output.\n"
           "layout: 'chw' or 'hwc'. pixel: 'uint8', or level * pixel_scale[c] + pixel_bias[c] as\n"
           "'float32', 'float16' or 'bfloat16'. Raises ValueError.")
      .def_prop_ro("sample_bytes", &Pass::sample_bytes);

  m.def("choose_draw", &choose_draw, "pass_"_a, "width"_a, "height"_a, "seed"_a, "epoch"_a,
        "index"_a,
        "(x, y, width, height, flip, vertical_flip, colour ops, erased (x, y, width, height)) of a\n"
        "sample on an image of that size; of resize_random_crop in pixels of the resized image.");
  m.def("apply_colours", &apply_colours, "levels"_a.noconvert(), "ops"_a,
        "Does (name, factor) of brightness, contrast, saturation, grey to (3, H, W) levels in place.");
  m.def("resize_exact", &resize_exact, "pixels"_a, "filter"_a, "out"_a.noconvert(),
        "Pillow's 'bicubic' or 'nearest' resize of (H, W, 3) pixels to (3, height, width) levels.");
  m.def("to_float16", &coordl::to_float16, "value"_a, "Bits of the nearest half, ties to even.");
  m.def("to_bfloat16", &coordl::to_bfloat16, "value"_a, "Bits of the nearest bfloat16, ties to even.");
}
