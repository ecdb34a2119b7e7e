#include "prep/levels.hpp"

#include "prep/colour_ops.hpp"
#include "prep/finish.hpp"

namespace coordl {
namespace {

constexpr std::size_t kKeepBytes = std::size_t(64) << 20;  // a rare giant must not pin its memory

template <class Axes>
Region region_of(const Draw& draw, const Axes& x, const Axes& y) {
  return {draw.x + x.begin(), draw.y + y.begin(), x.end() - x.begin(), y.end() - y.begin()};
}

}  // namespace

Region Levels::region(const Pass& pass, const Draw& draw, ImageSize image, int resized_width,
                      int resized_height) {
  const Geometry& geometry = pass.geometry;
  const int width = geometry.out_width, height = geometry.out_height;
  if (geometry.kind == Geometry::Kind::random_crop) {
    padded_x_.build(geometry.pad_mode, image.width, draw.x, width);
    padded_y_.build(geometry.pad_mode, image.height, draw.y, height);
    return region_of(Draw{}, padded_x_, padded_y_);  // already counted from the image's corner
  }
  const int left = center_offset(resized_width, width), top = center_offset(resized_height, height);
  if (geometry.filter == Filter::bilinear) {
    x_.build(draw.width, resized_width, left, width);
    y_.build(draw.height, resized_height, top, height);
    return region_of(draw, x_, y_);
  }
  exact_x_.build(geometry.filter, draw.width, resized_width, left, width);
  exact_y_.build(geometry.filter, draw.height, resized_height, top, height);
  return region_of(draw, exact_x_, exact_y_);
}

bool Levels::write(PixelRows& rows, const Region& region, const Pass& pass, const Draw& draw,
                   std::span<std::byte> out) {
  const Geometry& geometry = pass.geometry;
  const std::size_t plane = std::size_t(geometry.out_height) * geometry.out_width;
  levels_.resize(3 * plane);
  std::uint8_t* levels = levels_.data();
  if (geometry.kind != Geometry::Kind::random_crop && geometry.filter == Filter::bilinear) {
    Pass plain;
    plain.geometry = geometry;
    plain.pixel = Pixel::uint8;
    const auto bytes = std::as_writable_bytes(std::span(levels_));
    if (!resample(rows, x_, y_, false, plain, bytes, strip_)) return false;
  } else {
    pixels_.resize(std::size_t(region.width) * region.height * 3 + kPixelSlack);
    if (!read_interleaved(rows, region.width, region.height, pixels_.data(), strip_.lines)) return false;
    const PixelView pixels{pixels_.data(), std::ptrdiff_t(region.width) * 3};
    if (geometry.kind == Geometry::Kind::random_crop) {
      place(pixels, padded_x_, padded_y_, geometry.fill, levels);
    } else {
      resample_exact(pixels, exact_x_, exact_y_, levels, exact_);
    }
    for (auto* buffer : {&exact_.rows, &pixels_}) {
      if (buffer->capacity() > kKeepBytes) std::vector<std::uint8_t>().swap(*buffer);
    }
  }
  apply_colours(draw.colour_ops(), levels, plane);
  finish(levels, pass, draw, out);
  return true;
}

}  // namespace coordl
