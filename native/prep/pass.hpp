// One native pass from the encoded bytes of an image to normalised pixels in the caller's memory:
// decode the region a crop needs -> antialiased resize -> flip -> normalise -> layout.
//
// Thread safety: prepare() may run in many threads at once; each needs its own Scratch.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace coordl {

// Where the crop comes from. Coordinates in pixels of the decoded image.
struct Geometry {
  enum class Kind : std::uint8_t {
    random_resized_crop,  // torchvision RandomResizedCrop(size, scale, ratio)
    resize_center_crop,   // Resize(resize) then CenterCrop(out); resize = shorter edge
    resize,               // Resize((out_height, out_width)), the whole image
    center_crop,          // CenterCrop(out), no resize (image at least that large, else not ours)
  };
  Kind kind = Kind::random_resized_crop;
  int out_height = 224;
  int out_width = 224;
  int resize_shorter = 256;              // resize_center_crop only
  std::array<double, 2> scale{0.08, 1.0};  // random_resized_crop: share of the area
  std::array<double, 2> ratio{3.0 / 4.0, 4.0 / 3.0};  // random_resized_crop: width / height
};

enum class Pixel : std::uint8_t { uint8, float32 };

struct Pass {
  Geometry geometry;
  double flip_probability = 0.0;   // horizontal
  Pixel pixel = Pixel::float32;    // float32: value/255 * scale + bias, see below; uint8: as is
  // float32 output is float(v) * scale[c] + bias[c]; ToTensor+Normalize(m, s): 1/(255 s), -m/s.
  std::array<float, 3> scale{1.0f / 255, 1.0f / 255, 1.0f / 255};
  std::array<float, 3> bias{0, 0, 0};
  std::size_t sample_bytes() const {
    return std::size_t(3) * geometry.out_height * geometry.out_width *
           (pixel == Pixel::float32 ? 4 : 1);
  }
};

// What the draws chose for one sample; box in source pixels, [x, x+width) x [y, y+height).
struct Draw {
  int x = 0, y = 0, width = 0, height = 0;
  bool flip = false;
};

// Draws of the sample keyed by (seed, epoch, index) on an image of that size. Counter-based:
// same key, same draw, in any process, in any order. Twin: coordl/prep/draws.py.
Draw choose_draw(const Pass& pass, int image_width, int image_height, std::uint64_t seed,
                 std::uint64_t epoch, std::uint64_t index);

// CenterCrop's offset: int(round((size - crop) / 2.0)), where Python rounds halves to even.
constexpr int center_offset(int size, int crop) {
  const int twice = size - crop, half = twice >> 1;  // rounded down
  return (twice & 1) != 0 && (half & 1) != 0 ? half + 1 : half;
}

enum class Prepared : std::uint8_t {
  done,
  not_ours,  // not an image we take (other format, CMYK, decoder warnings, corrupt): the user's loader decides
};

class Scratch {  // buffers one thread reuses from sample to sample
 public:
  Scratch();
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  struct Impl;
  Impl& impl() { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

// Writes (3, out_height, out_width), C order, of pass.pixel into `out` (exactly sample_bytes(), aligned
// for the pixel type).
// `out` is unspecified when the result is not_ours.
Prepared prepare(std::span<const std::byte> item, const Pass& pass, std::uint64_t seed,
                 std::uint64_t epoch, std::uint64_t index, std::span<std::byte> out,
                 Scratch& scratch) noexcept;

// The same with a draw of the caller's, whose box lies inside the image.
Prepared prepare(std::span<const std::byte> item, const Pass& pass, const Draw& draw,
                 std::span<std::byte> out, Scratch& scratch) noexcept;

}  // namespace coordl
