#include "prep/png.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <exception>

#include <libdeflate.h>

#include "prep/keep.hpp"
#include "prep/png_chunks.hpp"
#include "prep/png_filters.hpp"

namespace coordl {
namespace {

constexpr std::size_t kMaxExpansion = 1032;  // of deflate: 258 bytes from two bits
constexpr std::size_t kMaxRawBytes = std::size_t(4) * kMaxPixels;

// One of Adam7's seven images within the image; a plain PNG is a single one.
struct Pass7 {
  int x, y, dx, dy;
  int columns(int width) const { return (width - x + dx - 1) / dx; }
  int rows(int height) const { return (height - y + dy - 1) / dy; }
};
constexpr Pass7 kWhole[] = {{0, 0, 1, 1}};
constexpr Pass7 kAdam7[] = {{0, 0, 8, 8}, {4, 0, 8, 8}, {0, 4, 4, 8}, {2, 0, 4, 4},
                            {0, 2, 2, 4}, {1, 0, 2, 2}, {0, 1, 1, 2}};

std::span<const Pass7> passes_of(const PngChunks& png) {
  if (png.interlaced) return kAdam7;
  return kWhole;
}

// Bytes of a pass's rows, each with its filter's number before it.
std::size_t pass_bytes(const PngChunks& png, const Pass7& pass) {
  const int columns = pass.columns(png.width), rows = pass.rows(png.height);
  if (columns <= 0 || rows <= 0) return 0;
  return (png.row_bytes(columns) + 1) * std::size_t(rows);
}

std::size_t raw_bytes(const PngChunks& png) {
  std::size_t bytes = 0;
  for (const Pass7& pass : passes_of(png)) bytes += pass_bytes(png, pass);
  return bytes;
}

// Copies three bytes of each pixel, or one of them three times.
template <int step, int red, int green, int blue>
void pick(const std::uint8_t* from, int count, std::uint8_t* to) {
  for (int i = 0; i < count; ++i, from += step, to += 3) {
    const std::uint8_t r = from[red], g = from[green], b = from[blue];
    to[0] = r, to[1] = g, to[2] = b;
  }
}

// What the values of a pixel of one byte or less look like.
struct Palette {
  std::array<std::array<std::uint8_t, 4>, 256> colours;  // the fourth byte is not used
  int entries;
};

Palette palette_of(const PngChunks& png) {
  Palette palette{};
  const int values = 1 << std::min(png.depth, 8);
  const bool grey = png.colour != PngChunks::palette;
  palette.entries = grey ? values : static_cast<int>(png.colours.size() / 3);
  for (int value = 0; value < std::min(values, palette.entries); ++value) {
    auto& colour = palette.colours[std::size_t(value)];
    colour.fill(static_cast<std::uint8_t>(value * 255 / (values - 1)));
    if (!grey) std::memcpy(colour.data(), &png.colours[std::size_t(value) * 3], 3);
  }
  return palette;
}

template <int depth>
bool look_up(const Palette& palette, const std::uint8_t* row, int first, int count,
             std::uint8_t* to) {
  constexpr int kEach = 8 / depth, kMask = (1 << depth) - 1;
  int largest = 0;
  for (int i = first; i < first + count; ++i, to += 3) {
    const int value = row[i / kEach] >> (8 - depth - i % kEach * depth) & kMask;
    largest = std::max(largest, value);
    std::memcpy(to, palette.colours[std::size_t(value)].data(), 3);
  }
  return largest < palette.entries;  // Pillow paints others in a colour of its own
}

// Pixels [first, first + count) of a restored row as RGB.
bool expand(const PngChunks& png, const Palette& palette, const std::uint8_t* row, int first,
            int count, std::uint8_t* to) {
  const bool wide = png.depth == 16;
  const std::uint8_t* from = row + std::size_t(first) * png.pixel_bits() / 8;
  switch (png.colour) {
    case PngChunks::rgb:
      wide ? pick<6, 0, 2, 4>(from, count, to) : pick<3, 0, 1, 2>(from, count, to);
      return true;
    case PngChunks::rgb_alpha:
      wide ? pick<8, 0, 2, 4>(from, count, to) : pick<4, 0, 1, 2>(from, count, to);
      return true;
    case PngChunks::grey_alpha:
      wide ? pick<4, 0, 0, 0>(from, count, to) : pick<2, 0, 0, 0>(from, count, to);
      return true;
    case PngChunks::grey:
      if (png.depth != 8) break;
      pick<1, 0, 0, 0>(from, count, to);
      return true;
    case PngChunks::palette:
      break;
  }
  switch (png.depth) {
    case 1:
      return look_up<1>(palette, row, first, count, to);
    case 2:
      return look_up<2>(palette, row, first, count, to);
    case 4:
      return look_up<4>(palette, row, first, count, to);
    default:
      return look_up<8>(palette, row, first, count, to);
  }
}

// The rows of one pass: filters undone from where a region needs it.
class Rows {
 public:
  Rows(const PngChunks& png, std::uint8_t* raw, int columns, const std::uint8_t* zeros)
      : raw_(raw), stride_(png.row_bytes(columns) + 1), zeros_(zeros),
        pixel_bytes_(std::max(1, png.pixel_bits() / 8)) {}

  std::uint8_t* pixels(int row) const { return raw_ + std::size_t(row) * stride_ + 1; }
  std::ptrdiff_t stride() const { return static_cast<std::ptrdiff_t>(stride_); }

  bool have_known_filters(int rows) const {
    for (int row = 0; row < rows; ++row) {
      if (raw_[std::size_t(row) * stride_] >= kPngFilters) return false;
    }
    return true;
  }

  // Restores the first `bytes` bytes of rows [begin, end), and of those above that they build on: up
  // to one whose filter looks at no row above it.
  void restore(int begin, int end, std::size_t bytes) const {
    while (begin > 0 && filter(begin) != PngFilter::none && filter(begin) != PngFilter::left) --begin;
    for (int row = begin; row < end; ++row) {
      undo_filter(filter(row), pixels(row), row == 0 ? zeros_ : pixels(row - 1), bytes, pixel_bytes_);
    }
  }

 private:
  PngFilter filter(int row) const { return PngFilter(raw_[std::size_t(row) * stride_]); }

  std::uint8_t* raw_;
  std::size_t stride_;
  const std::uint8_t* zeros_;
  int pixel_bytes_;
};

}  // namespace

struct PngDecoder::State {
  libdeflate_decompressor* inflater = libdeflate_alloc_decompressor();
  PngChunks png;
  Palette palette;
  std::vector<std::uint8_t> stream;  // the zlib stream where several chunks make it
  std::vector<std::uint8_t> plain;   // inflated metadata, row pieces

  ~State() {
    if (inflater != nullptr) libdeflate_free_decompressor(inflater);
  }
  bool inflate(std::uint8_t* raw, std::size_t bytes);
  std::optional<PixelView> decode_plain(const Region& region, const Rows& rows, std::uint8_t* out);
  bool decode_interlaced(const Region& region, std::uint8_t* raw, const std::uint8_t* zeros,
                         std::uint8_t* out);
};

bool PngDecoder::State::inflate(std::uint8_t* raw, std::size_t bytes) {
  std::span<const std::uint8_t> from = png.data.front();
  if (png.data.size() > 1) {
    stream.clear();
    stream.reserve(png.data_bytes);
    for (const auto& part : png.data) stream.insert(stream.end(), part.begin(), part.end());
    from = stream;
  }
  std::size_t read = 0, written = 0;
  const auto result = libdeflate_zlib_decompress_ex(inflater, from.data(), from.size(), raw, bytes,
                                                    &read, &written);
  return result == LIBDEFLATE_SUCCESS && read == from.size() && written == bytes;
}

std::optional<PixelView> PngDecoder::State::decode_plain(const Region& region, const Rows& rows,
                                                         std::uint8_t* out) {
  if (!rows.have_known_filters(png.height)) return std::nullopt;
  const int bottom = region.y + region.height;
  rows.restore(region.y, bottom, png.row_bytes(region.x + region.width));
  if (png.colour == PngChunks::rgb && png.depth == 8) {
    return PixelView{rows.pixels(region.y) + std::size_t(region.x) * 3, rows.stride()};
  }
  const std::size_t stride = std::size_t(region.width) * 3;
  std::uint8_t* to = out;
  for (int row = region.y; row < bottom; ++row, to += stride) {
    if (!expand(png, palette, rows.pixels(row), region.x, region.width, to)) return std::nullopt;
  }
  return PixelView{out, static_cast<std::ptrdiff_t>(stride)};
}

bool PngDecoder::State::decode_interlaced(const Region& region, std::uint8_t* raw,
                                          const std::uint8_t* zeros, std::uint8_t* out) {
  plain.resize(std::max(plain.size(), std::size_t(png.width) * 3));
  for (const Pass7& pass : kAdam7) {
    const int columns = pass.columns(png.width), count = pass.rows(png.height);
    if (pass_bytes(png, pass) == 0) continue;
    const Rows rows(png, raw, columns, zeros);
    if (!rows.have_known_filters(count)) return false;
    rows.restore(0, count, png.row_bytes(columns));
    for (int row = 0; row < count; ++row) {
      const int y = pass.y + row * pass.dy - region.y;
      if (y < 0 || y >= region.height) continue;
      if (!expand(png, palette, rows.pixels(row), 0, columns, plain.data())) return false;
      for (int column = 0; column < columns; ++column) {
        const int x = pass.x + column * pass.dx - region.x;
        if (x < 0 || x >= region.width) continue;
        std::memcpy(out + (std::size_t(y) * region.width + x) * 3, &plain[std::size_t(column) * 3], 3);
      }
    }
    raw += pass_bytes(png, pass);
  }
  return true;
}

PngDecoder::PngDecoder() : state_(std::make_unique<State>()) {}

PngDecoder::~PngDecoder() = default;

void PngDecoder::close() noexcept {
  state_->png.data.clear();
  trim(state_->stream, state_->plain);
}

std::optional<ImageSize> PngDecoder::open(std::span<const std::byte> item) noexcept {
  PngChunks& png = state_->png;
  try {
    if (state_->inflater == nullptr) return std::nullopt;
    if (!read_chunks(item, state_->inflater, state_->plain, png)) return std::nullopt;
  } catch (const std::exception&) {
    return std::nullopt;
  }
  if (std::int64_t(png.width) * png.height > kMaxPixels) return std::nullopt;
  // A few bytes may claim a giant: what the stream cannot hold is refused before memory is taken.
  const std::size_t bytes = raw_bytes(png);
  if (bytes > kMaxRawBytes || bytes / kMaxExpansion > png.data_bytes) return std::nullopt;
  return ImageSize{png.width, png.height};
}

std::optional<PixelView> PngDecoder::decode(const Region& region,
                                            std::vector<std::uint8_t>& buffer) {
  const PngChunks& png = state_->png;
  const bool in_place = png.colour == PngChunks::rgb && png.depth == 8 && !png.interlaced;
  // A row of zeros, the inflated rows, the region's pixels. The slack keeps reads beyond
  // a row inside.
  const std::size_t zeros = png.row_bytes(png.width) + kFilterSlack, raw = raw_bytes(png);
  const std::size_t pixels = in_place ? 0 : std::size_t(region.width) * 3 * region.height;
  const std::size_t bytes = zeros + raw + kFilterSlack + pixels + kPixelSlack;
  if (buffer.size() < bytes) {
    buffer.clear();
    buffer.resize(bytes);
  }
  std::memset(buffer.data(), 0, zeros);
  std::uint8_t* const rows = buffer.data() + zeros;
  std::uint8_t* const out = rows + raw + kFilterSlack;
  if (!state_->inflate(rows, raw)) return std::nullopt;
  state_->palette = palette_of(png);
  if (!png.interlaced) {
    return state_->decode_plain(region, Rows(png, rows, png.width, buffer.data()), out);
  }
  if (!state_->decode_interlaced(region, rows, buffer.data(), out)) return std::nullopt;
  return PixelView{out, static_cast<std::ptrdiff_t>(region.width) * 3};
}

}  // namespace coordl
