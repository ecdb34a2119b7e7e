#include "prep/draws.hpp"

#include <algorithm>
#include <cmath>

#include "prep/pass.hpp"

namespace coordl {
namespace {

__extension__ using Wide = unsigned __int128;

constexpr std::uint64_t kDomain = 0x636f6f72646c;  // "coordl": second half of every key
constexpr std::uint64_t kVisionDraws = 1;          // counter word that tells uses of the key apart
constexpr std::uint64_t kCropTries = 10;           // torchvision's; the flip has the block after
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
  Draw draw{0, 0, image_width, image_height, false};
  if (geometry.kind == Geometry::Kind::random_resized_crop) {
    random_crop(geometry, image_width, image_height, key, draw);
  } else if (geometry.kind == Geometry::Kind::center_crop) {
    draw = {center_offset(image_width, geometry.out_width),
            center_offset(image_height, geometry.out_height), geometry.out_width,
            geometry.out_height, false};
  }
  if (pass.flip_probability > 0) draw.flip = unit(key.block(kCropTries)[0]) < pass.flip_probability;
  return draw;
}

}  // namespace coordl
