// One native pass from the encoded bytes of an image to normalised pixels in the caller's memory:
// decode the region a crop needs -> antialiased resize -> flip -> colour -> normalise -> erase -> layout.
//
// Thread safety: prepare() may run in many threads at once; each needs its own Scratch.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace coordl {

// How pixels are resized: bilinear within one level of Pillow, the others exactly as Pillow does.
enum class Filter : std::uint8_t { bilinear, bicubic, nearest };

// What lies beyond the image's border.
enum class PadMode : std::uint8_t { constant, edge, reflect, symmetric };

// Where the crop comes from. Coordinates in pixels of the decoded image.
struct Geometry {
  enum class Kind : std::uint8_t {
    random_resized_crop,  // torchvision RandomResizedCrop(size, scale, ratio)
    resize_center_crop,   // Resize(resize) then CenterCrop(out); resize = shorter edge
    resize,               // Resize((out_height, out_width)), the whole image
    center_crop,          // CenterCrop(out), no resize (image at least that large, else not ours)
    random_crop,          // RandomCrop(out, padding, ...), no resize (too small an image is not ours)
    resize_random_crop,   // Resize(resize) then RandomCrop(out, padding, ...), likewise
  };
  Kind kind = Kind::random_resized_crop;
  int out_height = 224;
  int out_width = 224;
  int resize_shorter = 256;              // resize_center_crop, resize_random_crop
  std::array<double, 2> scale{0.08, 1.0};  // random_resized_crop: share of the area
  std::array<double, 2> ratio{3.0 / 4.0, 4.0 / 3.0};  // random_resized_crop: width / height
  Filter filter = Filter::bilinear;                    // of what is resized
  std::array<int, 4> padding{0, 0, 0, 0};  // of random crops: left, top, right, bottom
  bool pad_if_needed = false;              // of random crops: by what is missing, on both sides
  PadMode pad_mode = PadMode::constant;
  std::array<std::uint8_t, 3> fill{0, 0, 0};  // of PadMode::constant
  bool pads() const { return kind == Kind::random_crop || kind == Kind::resize_random_crop; }
};

enum class Pixel : std::uint8_t { uint8, float32, float16, bfloat16 };

enum class Layout : std::uint8_t {
  chw,  // (3, out_height, out_width)
  hwc,  // (out_height, out_width, 3): torch's channels_last
};

constexpr std::size_t pixel_bytes(Pixel pixel) {
  return pixel == Pixel::uint8 ? 1 : pixel == Pixel::float32 ? 4 : 2;
}

// One thing done to the colours, as Pillow's ImageEnhance does it; grey: three equal channels.
struct ColourOp {
  enum class Kind : std::uint8_t { brightness, contrast, saturation, grey };
  Kind kind = Kind::grey;
  double factor = 1.0;  // 1 leaves the picture as it is
};

// One of the user's colour transforms, in their order. An empty range (low > high) is not drawn.
struct ColourStep {
  enum class Kind : std::uint8_t { jitter, grey };
  Kind kind = Kind::jitter;
  double probability = 1.0;                             // grey
  std::array<std::array<double, 2>, 3> ranges{};        // jitter: brightness, contrast, saturation
  bool draws(int which) const { return ranges[which][0] <= ranges[which][1]; }
};

inline constexpr std::size_t kMaxColourSteps = 4;

// A rectangle of the finished sample that is overwritten: torchvision's RandomErasing.
struct Erase {
  double probability = 0.0;
  std::array<double, 2> scale{0.02, 0.33};  // share of the area
  std::array<double, 2> ratio{0.3, 3.3};    // height / width
  std::array<float, 3> value{0, 0, 0};      // as it stands in the output, channel by channel
};

struct Pass {
  Geometry geometry;
  double flip_probability = 0.0;   // horizontal
  double vertical_flip_probability = 0.0;
  std::vector<ColourStep> colours;  // at most kMaxColourSteps
  Erase erase;
  Layout layout = Layout::chw;
  Pixel pixel = Pixel::float32;    // uint8: levels as they are; others: see below
  // Float output is float(v) * scale[c] + bias[c]; ToTensor+Normalize(m, s): 1/(255 s), -m/s.
  // Halves are that float32, rounded to the nearest even.
  std::array<float, 3> scale{1.0f / 255, 1.0f / 255, 1.0f / 255};
  std::array<float, 3> bias{0, 0, 0};
  std::size_t sample_bytes() const {
    return std::size_t(3) * geometry.out_height * geometry.out_width * pixel_bytes(pixel);
  }
  // The resize itself writes the output: nothing but geometry and a mirror, in the usual form. A crop
  // that reaches into padding needs more all the same.
  bool direct() const {
    return geometry.filter == Filter::bilinear && geometry.kind != Geometry::Kind::random_crop &&
           vertical_flip_probability == 0 && colours.empty() && erase.probability == 0 &&
           layout == Layout::chw && (pixel == Pixel::uint8 || pixel == Pixel::float32);
  }
};

struct Box {
  int x = 0, y = 0, width = 0, height = 0;
};

// What the draws chose for one sample; box in source pixels, [x, x+width) x [y, y+height), but of
// resize_random_crop in pixels of the resized image. That of a padded crop may lie outside the image,
// partly or wholly.
struct Draw {
  int x = 0, y = 0, width = 0, height = 0;
  bool flip = false;
  bool vertical_flip = false;
  Box erase;  // in the output; empty: nothing
  std::array<ColourOp, 3 * kMaxColourSteps> ops{};
  std::size_t op_count = 0;
  std::span<const ColourOp> colour_ops() const { return {ops.data(), op_count}; }
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

struct Extent {
  int width = 0, height = 0;
};

// torchvision's Resize(shorter): the longer edge is int(shorter * long / short).
constexpr Extent by_shorter_edge(int shorter, int width, int height) {
  const auto longer = [shorter](int of, int to) {
    return static_cast<int>(static_cast<double>(std::int64_t(shorter) * of) / to);
  };
  return width <= height ? Extent{shorter, longer(height, width)}
                         : Extent{longer(width, height), shorter};
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

// Writes pass.layout, C order, of pass.pixel into `out` (exactly sample_bytes(), aligned for the pixel
// type).
// `out` is unspecified when the result is not_ours.
Prepared prepare(std::span<const std::byte> item, const Pass& pass, std::uint64_t seed,
                 std::uint64_t epoch, std::uint64_t index, std::span<std::byte> out,
                 Scratch& scratch) noexcept;

// The same with a draw of the caller's, whose box lies inside the image.
Prepared prepare(std::span<const std::byte> item, const Pass& pass, const Draw& draw,
                 std::span<std::byte> out, Scratch& scratch) noexcept;

}  // namespace coordl
