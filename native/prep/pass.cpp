#include "prep/pass.hpp"

#include <exception>
#include <utility>

#include "prep/image.hpp"
#include "prep/resample.hpp"

namespace coordl {
namespace {

constexpr std::size_t kKeepBytes = std::size_t(64) << 20;  // a rare giant must not pin its memory

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
  ImageDecoder decoder;
  std::vector<std::uint8_t> pixels;
  Axis x, y;
  Strip strip;

  Prepared prepare(std::span<const std::byte> item, const Pass& pass, std::uint64_t seed,
                   std::uint64_t epoch, std::uint64_t index, std::span<std::byte> out);
};

Prepared Scratch::Impl::prepare(std::span<const std::byte> item, const Pass& pass,
                                std::uint64_t seed, std::uint64_t epoch, std::uint64_t index,
                                std::span<std::byte> out) {
  const auto size = decoder.open(item);
  if (!size) return Prepared::not_ours;
  const Geometry& geometry = pass.geometry;
  const int out_width = geometry.out_width, out_height = geometry.out_height;
  const bool crops = geometry.kind == Geometry::Kind::center_crop;
  if (crops && (size->width < out_width || size->height < out_height)) return Prepared::not_ours;

  const Draw draw = choose_draw(pass, size->width, size->height, seed, epoch, index);
  Resized resized{out_width, out_height};
  if (geometry.kind == Geometry::Kind::resize_center_crop) {
    resized = by_shorter_edge(geometry.resize_shorter, draw.width, draw.height);
    if (resized.width < out_width || resized.height < out_height) return Prepared::not_ours;
  }
  x.build(draw.width, resized.width, center_offset(resized.width, out_width), out_width);
  y.build(draw.height, resized.height, center_offset(resized.height, out_height), out_height);

  const Region region{draw.x + x.begin(), draw.y + y.begin(), x.end() - x.begin(),
                      y.end() - y.begin()};
  const auto decoded = decoder.decode(region, pixels);
  decoder.close();
  if (!decoded) return Prepared::not_ours;
  resample(*decoded, x, y, draw.flip, pass, out, strip);
  if (pixels.capacity() > kKeepBytes) std::vector<std::uint8_t>().swap(pixels);
  return Prepared::done;
}

Scratch::Scratch() : impl_(std::make_unique<Impl>()) {}
Scratch::~Scratch() = default;

Prepared prepare(std::span<const std::byte> item, const Pass& pass, std::uint64_t seed,
                 std::uint64_t epoch, std::uint64_t index, std::span<std::byte> out,
                 Scratch& scratch) noexcept {
  try {
    return scratch.impl().prepare(item, pass, seed, epoch, index, out);
  } catch (const std::exception&) {  // no memory for this image: the user's loader may have it
    return Prepared::not_ours;
  }
}

}  // namespace coordl
