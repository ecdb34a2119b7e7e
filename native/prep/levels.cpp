#include "prep/levels.hpp"

#include "prep/colour_ops.hpp"
#include "prep/finish.hpp"
#include "prep/keep.hpp"

namespace coordl {
namespace {

template <class Axes>
Region region_of(const Box& source, const Axes& x, const Axes& y) {
  return {source.x + x.begin(), source.y + y.begin(), x.end() - x.begin(), y.end() - y.begin()};
}

}  // namespace

Placement placement_of(const Geometry& geometry, const Draw& draw, const ImageSize& image) {
  using Kind = Geometry::Kind;
  const Box whole{0, 0, image.width, image.height}, box{draw.x, draw.y, draw.width, draw.height};
  switch (geometry.kind) {
    case Kind::random_crop: return {whole, {image.width, image.height}, draw.x, draw.y};
    case Kind::resize_random_crop:
      return {whole, by_shorter_edge(geometry.resize_shorter, image.width, image.height), draw.x, draw.y};
    case Kind::resize_center_crop: {
      const Extent resized = by_shorter_edge(geometry.resize_shorter, box.width, box.height);
      return {box, resized, center_offset(resized.width, geometry.out_width),
              center_offset(resized.height, geometry.out_height)};
    }
    case Kind::random_resized_crop:
    case Kind::resize:
    case Kind::center_crop: break;
  }
  return {box, {geometry.out_width, geometry.out_height}, 0, 0};
}

Region Levels::region(const Pass& pass, const Placement& at) {
  const Geometry& geometry = pass.geometry;
  int left = at.left, top = at.top;
  resized_ = {geometry.out_width, geometry.out_height};
  if (geometry.pads()) {
    padded_x_.build(geometry.pad_mode, at.resized.width, left, geometry.out_width);
    padded_y_.build(geometry.pad_mode, at.resized.height, top, geometry.out_height);
    const Region kept = region_of(Box{}, padded_x_, padded_y_);
    if (geometry.kind == Geometry::Kind::random_crop) return kept;
    left = kept.x;
    top = kept.y;
    resized_ = {kept.width, kept.height};
  }
  if (geometry.filter == Filter::bilinear) {
    x_.build(at.source.width, at.resized.width, left, resized_.width);
    y_.build(at.source.height, at.resized.height, top, resized_.height);
    return region_of(at.source, x_, y_);
  }
  exact_x_.build(geometry.filter, at.source.width, at.resized.width, left, resized_.width);
  exact_y_.build(geometry.filter, at.source.height, at.resized.height, top, resized_.height);
  return region_of(at.source, exact_x_, exact_y_);
}

// (3, resized_.height, resized_.width) levels from the rows of the region.
bool Levels::resize(PixelRows& rows, const Region& region, Filter filter,
                    std::vector<std::uint8_t>& out) {
  out.resize(std::size_t(3) * resized_.height * resized_.width);
  if (filter == Filter::bilinear) {
    Pass plain;
    plain.geometry.out_height = resized_.height;
    plain.geometry.out_width = resized_.width;
    plain.pixel = Pixel::uint8;
    return resample(rows, x_, y_, false, plain, std::as_writable_bytes(std::span(out)), strip_);
  }
  pixels_.resize(std::size_t(region.width) * region.height * 3 + kPixelSlack);
  if (!read_interleaved(rows, region.width, region.height, pixels_.data(), strip_.lines)) return false;
  const PixelView pixels{pixels_.data(), std::ptrdiff_t(region.width) * 3};
  resample_exact(pixels, exact_x_, exact_y_, out.data(), exact_);
  return true;
}

bool Levels::write(PixelRows& rows, const Region& region, const Pass& pass, const Draw& draw,
                   std::span<std::byte> out) {
  const Geometry& geometry = pass.geometry;
  const std::size_t plane = std::size_t(geometry.out_height) * geometry.out_width;
  levels_.resize(3 * plane);
  if (geometry.kind == Geometry::Kind::random_crop) {
    pixels_.resize(std::size_t(region.width) * region.height * 3 + kPixelSlack);
    if (!read_interleaved(rows, region.width, region.height, pixels_.data(), strip_.lines)) return false;
    const Samples interleaved{pixels_.data(), 1, std::ptrdiff_t(region.width) * 3, 3};
    place(interleaved, padded_x_, padded_y_, geometry.fill, levels_.data());
  } else if (geometry.pads()) {
    if (!resize(rows, region, geometry.filter, unpadded_)) return false;
    const std::ptrdiff_t width = resized_.width;
    const Samples planes{unpadded_.data(), width * resized_.height, width, 1};
    place(planes, padded_x_, padded_y_, geometry.fill, levels_.data());
  } else if (!resize(rows, region, geometry.filter, levels_)) {
    return false;
  }
  trim(exact_.rows, pixels_);
  strip_.trim();
  apply_colours(draw.colour_ops(), levels_.data(), plane);
  finish(levels_.data(), pass, draw, out);
  return true;
}

}  // namespace coordl
