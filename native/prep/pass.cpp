#include "prep/pass.hpp"

#include <exception>
#include <utility>

#include "prep/item.hpp"
#include "prep/levels.hpp"
#include "prep/resample.hpp"

namespace coordl {
namespace {

// torchvision pads (CenterCrop) or refuses (RandomCrop) a smaller image: not ours.
bool large_enough(const Geometry& geometry, const ImageSize& image, const Extent& resized) {
  const auto holds = [&](int width, int height) {
    return width >= geometry.out_width && height >= geometry.out_height;
  };
  if (geometry.kind == Geometry::Kind::center_crop) return holds(image.width, image.height);
  if (!geometry.pads()) return holds(resized.width, resized.height);
  return geometry.pad_if_needed || holds(resized.width + geometry.padding[0] + geometry.padding[2],
                                         resized.height + geometry.padding[1] + geometry.padding[3]);
}

// Whether every pixel of the output is one of the resized box.
bool is_inside(const Placement& at, const Geometry& geometry) {
  return at.left >= 0 && at.top >= 0 && at.left + geometry.out_width <= at.resized.width &&
         at.top + geometry.out_height <= at.resized.height;
}

}  // namespace

struct Scratch::Impl {
  ItemDecoder decoder;
  Axis x, y;
  Strip strip;
  Levels levels;

  Prepared prepare(const ImageSize& size, const Pass& pass, const Draw& draw,
                   std::span<std::byte> out);
};

Prepared Scratch::Impl::prepare(const ImageSize& size, const Pass& pass, const Draw& draw,
                                std::span<std::byte> out) {
  const Geometry& geometry = pass.geometry;
  const Placement at = placement_of(geometry, draw, size);
  if (!large_enough(geometry, size, at.resized)) return Prepared::not_ours;
  const bool direct = pass.direct() && is_inside(at, geometry);
  Region region;
  if (direct) {
    x.build(at.source.width, at.resized.width, at.left, geometry.out_width);
    y.build(at.source.height, at.resized.height, at.top, geometry.out_height);
    region = {at.source.x + x.begin(), at.source.y + y.begin(), x.end() - x.begin(),
              y.end() - y.begin()};
  } else {
    region = levels.region(pass, at);
  }
  const auto write = [&](PixelRows* rows) {
    if (rows == nullptr) return false;
    return direct ? resample(*rows, x, y, draw.flip, pass, out, strip)
                  : levels.write(*rows, region, pass, draw, out);
  };
  const bool done = write(decoder.begin(region)) || write(decoder.retry(region));
  decoder.trim();
  strip.trim();
  return done ? Prepared::done : Prepared::not_ours;
}

namespace {

template <class Choose>
Prepared prepare(std::span<const std::byte> item, const Pass& pass, Choose choose,
                 std::span<std::byte> out, Scratch& scratch) noexcept {
  try {
    const auto size = scratch.impl().decoder.open(item);
    return size ? scratch.impl().prepare(*size, pass, choose(*size), out) : Prepared::not_ours;
  } catch (const std::exception&) {  // no memory for this image: the user's loader may have it
    return Prepared::not_ours;
  }
}

}  // namespace

Scratch::Scratch() : impl_(std::make_unique<Impl>()) {}
Scratch::~Scratch() = default;

Prepared prepare(std::span<const std::byte> item, const Pass& pass, std::uint64_t seed,
                 std::uint64_t epoch, std::uint64_t index, std::span<std::byte> out,
                 Scratch& scratch) noexcept {
  return prepare(item, pass, [&](const ImageSize& size) {
    return choose_draw(pass, size.width, size.height, seed, epoch, index);
  }, out, scratch);
}

Prepared prepare(std::span<const std::byte> item, const Pass& pass, const Draw& draw,
                 std::span<std::byte> out, Scratch& scratch) noexcept {
  return prepare(item, pass, [&](const ImageSize&) { return draw; }, out, scratch);
}

}  // namespace coordl
