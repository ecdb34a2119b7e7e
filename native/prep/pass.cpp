#include "prep/pass.hpp"

#include <exception>
#include <utility>

#include "prep/item.hpp"
#include "prep/levels.hpp"
#include "prep/resample.hpp"

namespace coordl {
namespace {

struct Resized {  // the size the box is resized to, before any centre crop
  int width = 0, height = 0;
};

// torchvision's Resize(shorter): the longer edge is int(shorter * long / short).
Resized by_shorter_edge(int shorter, int width, int height) {
  const auto longer = [&](int of, int to) {
    return static_cast<int>(static_cast<double>(std::int64_t(shorter) * of) / to);
  };
  return width <= height ? Resized{shorter, longer(height, width)}
                         : Resized{longer(width, height), shorter};
}

// torchvision pads (CenterCrop) or refuses (RandomCrop) a smaller image: not ours.
bool large_enough(const Geometry& geometry, int width, int height) {
  if (geometry.kind == Geometry::Kind::center_crop) {
    return width >= geometry.out_width && height >= geometry.out_height;
  }
  if (geometry.kind != Geometry::Kind::random_crop || geometry.pad_if_needed) return true;
  return width + geometry.padding[0] + geometry.padding[2] >= geometry.out_width &&
         height + geometry.padding[1] + geometry.padding[3] >= geometry.out_height;
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
  const int out_width = geometry.out_width, out_height = geometry.out_height;
  if (!large_enough(geometry, size.width, size.height)) return Prepared::not_ours;
  Resized resized{out_width, out_height};
  if (geometry.kind == Geometry::Kind::resize_center_crop) {
    resized = by_shorter_edge(geometry.resize_shorter, draw.width, draw.height);
    if (resized.width < out_width || resized.height < out_height) return Prepared::not_ours;
  }
  const bool direct = pass.direct();
  Region region;
  if (direct) {
    x.build(draw.width, resized.width, center_offset(resized.width, out_width), out_width);
    y.build(draw.height, resized.height, center_offset(resized.height, out_height), out_height);
    region = {draw.x + x.begin(), draw.y + y.begin(), x.end() - x.begin(), y.end() - y.begin()};
  } else {
    region = levels.region(pass, draw, size, resized.width, resized.height);
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
