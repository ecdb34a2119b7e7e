#include "prep/draws.hpp"

#include <algorithm>
#include <cmath>

#include "prep/pass.hpp"

namespace coordl {
namespace {

__extension__ using Wide = unsigned __int128;

constexpr std::uint64_t kDomain = 0x636f6f72646c;  // "coordl": second half of every key
constexpr std::uint64_t kVisionDraws = 1;          // counter word that tells uses of the key apart
constexpr std::uint64_t kCropTries = 10;           // torchvision's, also for erasing
constexpr std::uint64_t kFlipBlock = 10;           // words: horizontal, vertical
constexpr std::uint64_t kColourBlock = 16;         // one for each colour step
constexpr std::uint64_t kEraseBlock = 32;          // whether; the tries have the blocks after
constexpr double kLn2 = 0.6931471805599453;

double unit(std::uint64_t bits) { return static_cast<double>(bits >> 11) * 0x1p-53; }  // [0, 1)

int below(std::uint64_t bits, int n) {  // [0, n)
  return static_cast<int>((Wide(bits) * static_cast<std::uint64_t>(n)) >> 64);
}

struct Key {
  std::uint64_t seed, epoch, index;
  std::array<std::uint64_t, 4> block(std::uint64_t number) const {
    return philox({number, kVisionDraws, epoch, index}, {seed, kDomain});
  }
};

void central_crop(const Geometry& geometry, int width, int height, Draw& draw) {
  const double shape = static_cast<double>(width) / height;
  draw.width = width;
  draw.height = height;
  if (shape < geometry.ratio[0]) {
    draw.height = std::max(1, static_cast<int>(std::rint(width / geometry.ratio[0])));
  } else if (shape > geometry.ratio[1]) {
    draw.width = std::max(1, static_cast<int>(std::rint(height * geometry.ratio[1])));
  }
  draw.x = (width - draw.width) / 2;
  draw.y = (height - draw.height) / 2;
}

// The algorithm of torchvision's RandomResizedCrop.get_params, on our own random numbers.
void random_crop(const Geometry& geometry, int width, int height, const Key& key, Draw& draw) {
  const double area = static_cast<double>(width) * height;
  const double log_low = portable_log(geometry.ratio[0]);
  const double log_high = portable_log(geometry.ratio[1]);
  for (std::uint64_t attempt = 0; attempt < kCropTries; ++attempt) {
    const auto bits = key.block(attempt);
    const double share = geometry.scale[0] + unit(bits[0]) * (geometry.scale[1] - geometry.scale[0]);
    const double ratio = portable_exp(log_low + unit(bits[1]) * (log_high - log_low));
    const double target = area * share;
    const double crop_width = std::rint(std::sqrt(target * ratio));
    const double crop_height = std::rint(std::sqrt(target / ratio));
    if (crop_width > 0 && crop_width <= width && crop_height > 0 && crop_height <= height) {
      draw.width = static_cast<int>(crop_width);
      draw.height = static_cast<int>(crop_height);
      draw.y = below(bits[2], height - draw.height + 1);
      draw.x = below(bits[3], width - draw.width + 1);
      return;
    }
  }
  central_crop(geometry, width, height, draw);
}

// torchvision's RandomCrop of an image that was padded first; 0 where the crop is as large.
void padded_crop(const Geometry& geometry, int width, int height, const Key& key, Draw& draw) {
  const auto missing = [&](int crop, int padded) {
    return geometry.pad_if_needed ? std::max(0, crop - padded) : 0;
  };
  const int padded_width = width + geometry.padding[0] + geometry.padding[2];
  const int padded_height = height + geometry.padding[1] + geometry.padding[3];
  const int more_width = missing(geometry.out_width, padded_width);
  const int more_height = missing(geometry.out_height, padded_height);
  const int rows = padded_height + 2 * more_height - geometry.out_height + 1;
  const int columns = padded_width + 2 * more_width - geometry.out_width + 1;
  const auto bits = key.block(0);
  draw.y = below(bits[2], std::max(1, rows)) - geometry.padding[1] - more_height;
  draw.x = below(bits[3], std::max(1, columns)) - geometry.padding[0] - more_width;
  draw.width = geometry.out_width;
  draw.height = geometry.out_height;
}

void add_op(Draw& draw, ColourOp::Kind kind, double factor) {
  draw.ops[draw.op_count++] = {kind, factor};
}

// torchvision's ColorJitter: a random order, and a factor for each range that is there.
void jitter(const ColourStep& step, const std::array<std::uint64_t, 4>& bits, Draw& draw) {
  constexpr std::uint8_t kOrders[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2},
                                          {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
  constexpr ColourOp::Kind kKinds[3] = {ColourOp::Kind::brightness, ColourOp::Kind::contrast,
                                        ColourOp::Kind::saturation};
  for (const int which : kOrders[below(bits[0], 6)]) {
    if (!step.draws(which)) continue;
    const auto& [low, high] = step.ranges[which];
    add_op(draw, kKinds[which], low + unit(bits[1 + which]) * (high - low));
  }
}

void choose_colours(const Pass& pass, const Key& key, Draw& draw) {
  for (std::size_t number = 0; number < pass.colours.size(); ++number) {
    const ColourStep& step = pass.colours[number];
    const auto bits = key.block(kColourBlock + number);
    if (step.kind == ColourStep::Kind::jitter) {
      jitter(step, bits, draw);
    } else if (unit(bits[0]) < step.probability) {
      add_op(draw, ColourOp::Kind::grey, 0);
    }
  }
}

// The algorithm of torchvision's RandomErasing.get_params, on our own random numbers.
void choose_erase(const Pass& pass, const Key& key, Draw& draw) {
  const Erase& erase = pass.erase;
  if (!(unit(key.block(kEraseBlock)[0]) < erase.probability)) return;
  const int out_width = pass.geometry.out_width, out_height = pass.geometry.out_height;
  const double area = static_cast<double>(out_width) * out_height;
  const double log_low = portable_log(erase.ratio[0]);
  const double log_high = portable_log(erase.ratio[1]);
  for (std::uint64_t attempt = 0; attempt < kCropTries; ++attempt) {
    const auto bits = key.block(kEraseBlock + 1 + attempt);
    const double share = erase.scale[0] + unit(bits[0]) * (erase.scale[1] - erase.scale[0]);
    const double ratio = portable_exp(log_low + unit(bits[1]) * (log_high - log_low));
    const double target = area * share;
    const double height = std::rint(std::sqrt(target * ratio));
    const double width = std::rint(std::sqrt(target / ratio));
    if (height < out_height && width < out_width) {
      draw.erase.width = static_cast<int>(width);
      draw.erase.height = static_cast<int>(height);
      draw.erase.y = below(bits[2], out_height - draw.erase.height + 1);
      draw.erase.x = below(bits[3], out_width - draw.erase.width + 1);
      return;
    }
  }
}

}  // namespace

std::array<std::uint64_t, 4> philox(std::array<std::uint64_t, 4> counter,
                                    std::array<std::uint64_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const Wide a = Wide(counter[0]) * 0xD2E7470EE14C6C93u;
    const Wide b = Wide(counter[2]) * 0xCA5A826395121157u;
    counter = {static_cast<std::uint64_t>(b >> 64) ^ counter[1] ^ key[0],
               static_cast<std::uint64_t>(b),
               static_cast<std::uint64_t>(a >> 64) ^ counter[3] ^ key[1],
               static_cast<std::uint64_t>(a)};
    key[0] += 0x9E3779B97F4A7C15u;
    key[1] += 0xBB67AE8584CAA73Bu;
  }
  return counter;
}

double portable_log(double x) {
  int exponent = 0;
  double mantissa = std::frexp(x, &exponent);
  if (mantissa < 0.7071067811865476) {
    mantissa *= 2;
    exponent -= 1;
  }
  const double s = (mantissa - 1) / (mantissa + 1);  // |s| < 0.172
  const double square = s * s;
  double series = 0;
  for (int k = 25; k >= 1; k -= 2) series = series * square + 1.0 / k;
  return 2 * s * series + exponent * kLn2;
}

double portable_exp(double x) {
  const double power = std::floor(x / kLn2 + 0.5);
  const double rest = x - power * kLn2;  // |rest| < 0.35
  double series = 1;
  for (int n = 18; n >= 1; --n) series = series * rest / n + 1;
  return std::ldexp(series, static_cast<int>(power));
}

Draw choose_draw(const Pass& pass, int image_width, int image_height, std::uint64_t seed,
                 std::uint64_t epoch, std::uint64_t index) {
  const Geometry& geometry = pass.geometry;
  const Key key{seed, epoch, index};
  Draw draw;
  draw.width = image_width;
  draw.height = image_height;
  if (geometry.kind == Geometry::Kind::random_resized_crop) {
    random_crop(geometry, image_width, image_height, key, draw);
  } else if (geometry.kind == Geometry::Kind::random_crop) {
    padded_crop(geometry, image_width, image_height, key, draw);
  } else if (geometry.kind == Geometry::Kind::resize_random_crop) {
    const Extent resized = by_shorter_edge(geometry.resize_shorter, image_width, image_height);
    padded_crop(geometry, resized.width, resized.height, key, draw);
  } else if (geometry.kind == Geometry::Kind::center_crop) {
    draw.x = center_offset(image_width, geometry.out_width);
    draw.y = center_offset(image_height, geometry.out_height);
    draw.width = geometry.out_width;
    draw.height = geometry.out_height;
  }
  if (pass.flip_probability > 0 || pass.vertical_flip_probability > 0) {
    const auto bits = key.block(kFlipBlock);
    draw.flip = unit(bits[0]) < pass.flip_probability;
    draw.vertical_flip = unit(bits[1]) < pass.vertical_flip_probability;
  }
  choose_colours(pass, key, draw);
  if (pass.erase.probability > 0) choose_erase(pass, key, draw);
  return draw;
}

}  // namespace coordl
