#include "prep/pass.hpp"

#include <exception>
#include <utility>

#include "prep/item.hpp"
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

}  // namespace

struct Scratch::Impl {
  ItemDecoder decoder;
  Axis x, y;
  Strip strip;

  Prepared prepare(const ImageSize& size, const Pass& pass, const Draw& draw,
                   std::span<std::byte> out);
};

Prepared Scratch::Impl::prepare(const ImageSize& size, const Pass& pass, const Draw& draw,
                                std::span<std::byte> out) {
  const Geometry& geometry = pass.geometry;
  const int out_width = geometry.out_width, out_height = geometry.out_height;
  const bool crops = geometry.kind == Geometry::Kind::center_crop;
  if (crops && (size.width < out_width || size.height < out_height)) return Prepared::not_ours;
  Resized resized{out_width, out_height};
  if (geometry.kind == Geometry::Kind::resize_center_crop) {
    resized = by_shorter_edge(geometry.resize_shorter, draw.width, draw.height);
    if (resized.width < out_width || resized.height < out_height) return Prepared::not_ours;
  }
  x.build(draw.width, resized.width, center_offset(resized.width, out_width), out_width);
  y.build(draw.height, resized.height, center_offset(resized.height, out_height), out_height);

  const Region region{draw.x + x.begin(), draw.y + y.begin(), x.end() - x.begin(),
                      y.end() - y.begin()};
  PixelRows* rows = decoder.begin(region);
  bool done = rows != nullptr && resample(*rows, x, y, draw.flip, pass, out, strip);
  if (!done) {
    rows = decoder.retry(region);
    done = rows != nullptr && resample(*rows, x, y, draw.flip, pass, out, strip);
  }
  decoder.trim();
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
