// Levels of a pass on pixels that are exactly as many as were asked for: a sanitizer sees every read
// beyond them. What the values are is for the tests against Pillow.
#include "prep/levels.hpp"

#include <algorithm>
#include <random>
#include <vector>

#include "test.hpp"

using namespace coordl;

namespace {

constexpr Pixel kPixels[] = {Pixel::uint8, Pixel::float32, Pixel::float16, Pixel::bfloat16};
constexpr Geometry::Kind kKinds[] = {Geometry::Kind::random_resized_crop, Geometry::Kind::random_crop,
                                     Geometry::Kind::resize_random_crop};

class Chance {
 public:
  int between(int low, int high) { return std::uniform_int_distribution<int>(low, high)(engine_); }

 private:
  std::mt19937 engine_{7};
};

Pass random_pass(Chance& chance) {
  Pass pass;
  Geometry& geometry = pass.geometry;
  geometry.kind = kKinds[chance.between(0, 2)];
  geometry.resize_shorter = chance.between(1, 90);
  geometry.filter = chance.between(0, 1) ? Filter::bicubic : Filter::nearest;
  geometry.out_height = chance.between(1, 70);
  geometry.out_width = chance.between(1, 70);
  geometry.pad_if_needed = true;
  geometry.pad_mode = static_cast<PadMode>(chance.between(0, 3));
  for (int& pad : geometry.padding) pad = chance.between(0, 90);
  pass.flip_probability = pass.vertical_flip_probability = 0.5;
  pass.colours = {ColourStep{ColourStep::Kind::jitter, 1, {{{0, 2}, {0, 2}, {0, 2}}}}};
  pass.erase = {0.5, {0, 1}, {0.1, 10}, {1, 2, 3}};
  pass.layout = chance.between(0, 1) ? Layout::hwc : Layout::chw;
  pass.pixel = kPixels[chance.between(0, 3)];
  return pass;
}

// The region's pixels, all of one level, with the slack a decoder leaves.
std::vector<std::uint8_t> pixels_of(const Region& region, std::uint8_t level) {
  return std::vector<std::uint8_t>(std::size_t(3) * region.width * region.height + kPixelSlack,
                                   level);
}

}  // namespace

TEST(levels_read_the_region_and_write_the_sample_and_no_more) {
  Chance chance;
  Levels levels;
  for (int round = 0; round < 400; ++round) {
    const Pass pass = random_pass(chance);
    const ImageSize image{chance.between(1, 120), chance.between(1, 120)};
    const Draw draw = choose_draw(pass, image.width, image.height, 1, 2, round);
    const Region region = levels.region(pass, placement_of(pass.geometry, draw, image));
    CHECK(region.x >= 0 && region.y >= 0 && region.width > 0 && region.height > 0);
    CHECK(region.x + region.width <= image.width && region.y + region.height <= image.height);
    const auto pixels = pixels_of(region, 128);
    std::vector<std::byte> out(pass.sample_bytes());
    InterleavedRows rows({pixels.data(), std::ptrdiff_t(3) * region.width}, region.width);
    CHECK(levels.write(rows, region, pass, draw, out));
  }
}

TEST(a_picture_of_one_level_keeps_it_through_every_filter) {
  Chance chance;
  Levels levels;
  for (int round = 0; round < 200; ++round) {
    Pass pass = random_pass(chance);
    pass.colours.clear();
    pass.erase.probability = 0;
    pass.pixel = Pixel::uint8;
    pass.geometry.fill = {200, 200, 200};
    const ImageSize image{chance.between(1, 300), chance.between(1, 300)};
    const Draw draw = choose_draw(pass, image.width, image.height, 1, 2, round);
    const Region region = levels.region(pass, placement_of(pass.geometry, draw, image));
    const auto pixels = pixels_of(region, 200);
    std::vector<std::byte> out(pass.sample_bytes());
    InterleavedRows rows({pixels.data(), std::ptrdiff_t(3) * region.width}, region.width);
    CHECK(levels.write(rows, region, pass, draw, out));
    CHECK(std::all_of(out.begin(), out.end(), [](std::byte v) { return v == std::byte{200}; }));
  }
}
