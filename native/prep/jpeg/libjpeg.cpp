#include "prep/jpeg/libjpeg.hpp"

#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstring>

#include <jpeglib.h>

#include "prep/jpeg/parse.hpp"
#include "prep/kernels.hpp"

namespace coordl {
namespace {

constexpr long kMaxCoefficientBytes = 256L << 20;  // of a progressive file: 44 Mpx in 4:4:4
constexpr int kMaxScans = 64;  // a few bytes may ask for thousands of passes over a large image
constexpr int kMargin = 1;     // smooth upsampling reads one chroma neighbour on each side
constexpr int kNarrowest = 16;  // libjpeg upsamples crops of a few columns without smoothing

struct Errors {
  jpeg_error_mgr base;
  std::jmp_buf escape;
};

[[noreturn]] void give_up(j_common_ptr codec) {
  std::longjmp(reinterpret_cast<Errors*>(codec->err)->escape, 1);
}

void on_message(j_common_ptr codec, int level) {
  if (level < 0) give_up(codec);  // a warning: the data are damaged
}

// Walks the markers. True when the item is a baseline or progressive JPEG, Huffman-coded or
// arithmetic, whose segments lead without a gap to the end-of-image marker; what follows that marker is ignored, as
// Pillow and libjpeg do.
bool is_whole_jpeg(std::span<const std::byte> item) {
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(item.data());
  const std::size_t size = item.size();
  if (size < 4 || bytes[0] != 0xFF || bytes[1] != 0xD8) return false;
  int scans = 0;
  for (std::size_t at = 2;;) {
    if (at >= size || bytes[at] != 0xFF) return false;
    while (at < size && bytes[at] == 0xFF) ++at;
    if (at >= size) return false;
    const std::uint8_t marker = bytes[at++];
    if (marker == 0xD9) return scans > 0;
    if (marker < 0xC0 || (marker >= 0xD0 && marker <= 0xD8)) return false;
    const bool frame = marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 &&
                       marker != 0xCC;
    const bool arithmetic = marker == 0xC9 || marker == 0xCA;
    if (frame && marker > 0xC2 && !arithmetic) return false;  // lossless or hierarchical
    if (at + 2 > size) return false;
    const std::size_t length = std::size_t(bytes[at]) << 8 | bytes[at + 1];
    if (length < 2 || length > size - at) return false;
    at += length;
    if (marker != 0xDA) continue;
    if (++scans > kMaxScans) return false;
    for (;;) {  // entropy-coded data: up to a marker that is neither a stuffed byte nor a restart
      const void* hit = at < size ? std::memchr(bytes + at, 0xFF, size - at) : nullptr;
      if (hit == nullptr) return false;
      at = static_cast<std::size_t>(static_cast<const std::uint8_t*>(hit) - bytes);
      if (at + 1 >= size) return false;
      const std::uint8_t next = bytes[at + 1];
      if (next != 0x00 && next != 0xFF && (next < 0xD0 || next > 0xD7)) break;
      at += next == 0xFF ? 1 : 2;
    }
  }
}

}  // namespace

struct LibjpegDecoder::State {
  jpeg_decompress_struct codec{};
  Errors errors{};
  bool created = false;

  bool read_header(std::span<const std::byte> item);
  bool takes() const;
  bool decodes_regions() const;
  bool has_all_scans() const;
  bool start(const Region& wanted, Region& decoded);
  bool read_rows(std::uint8_t* pixels, std::size_t stride, int rows);
  bool read_coefficients();
  bool read_blocks(int component, int block_row, const BlockWindow& window, std::int16_t* out);

  jvirt_barray_ptr* arrays = nullptr;  // of coefficients, one for each component
  Frame frame;
};

// The functions below hold no object with a destructor between setjmp and longjmp.

bool LibjpegDecoder::State::read_header(std::span<const std::byte> item) {
  codec.err = jpeg_std_error(&errors.base);
  errors.base.error_exit = give_up;
  errors.base.emit_message = on_message;
  if (setjmp(errors.escape)) return false;
  // Created anew for every item: tables of an earlier item must not fill in for missing ones.
  created = true;
  jpeg_create_decompress(&codec);
  codec.mem->max_memory_to_use = kMaxCoefficientBytes;  // beyond it libjpeg gives up
  jpeg_mem_src(&codec, reinterpret_cast<const unsigned char*>(item.data()),
               static_cast<unsigned long>(item.size()));
  return jpeg_read_header(&codec, TRUE) == JPEG_HEADER_OK && takes();
}

bool LibjpegDecoder::State::takes() const {
  const auto space = codec.jpeg_color_space;
  const bool grey = codec.num_components == 1 && space == JCS_GRAYSCALE;
  const bool colour = codec.num_components == 3 && (space == JCS_YCbCr || space == JCS_RGB);
  return (grey || colour) && codec.data_precision == 8 && codec.image_width > 0 &&
         codec.image_height > 0 &&
         std::int64_t(codec.image_width) * codec.image_height <= kMaxPixels;
}

// True where libjpeg-turbo's crop and skip are known to give a full decode's pixels. Elsewhere (rare
// samplings, a separate scan for each component) the whole image is decoded.
bool LibjpegDecoder::State::decodes_regions() const {
  const auto* part = codec.comp_info;
  for (int i = codec.num_components == 1 ? 0 : 1; i < codec.num_components; ++i) {
    if (part[i].h_samp_factor != 1 || part[i].v_samp_factor != 1) return false;
  }
  if (codec.num_components == 3) {
    const int across = part[0].h_samp_factor, down = part[0].v_samp_factor;
    const bool known = (across == 1 && down == 1) || (across == 2 && down <= 2);
    if (!known) return false;
  }
  return codec.progressive_mode || codec.comps_in_scan == codec.num_components;
}

// A progressive file whose last scans are missing is smoothed across blocks, and not in the same way
// by all versions of libjpeg-turbo: not ours.
bool LibjpegDecoder::State::has_all_scans() const {
  if (!codec.progressive_mode) return true;
  if (codec.coef_bits == nullptr) return false;
  for (int i = 0; i < codec.num_components; ++i) {
    for (int k = 0; k < DCTSIZE2; ++k) {
      if (codec.coef_bits[i][k] != 0) return false;
    }
  }
  return true;
}

bool LibjpegDecoder::State::start(const Region& wanted, Region& decoded) {
  if (setjmp(errors.escape)) return false;
  codec.out_color_space = JCS_RGB;
  codec.dct_method = JDCT_ISLOW;
  codec.do_fancy_upsampling = TRUE;
  if (!jpeg_start_decompress(&codec) || !has_all_scans()) return false;
  const int width = static_cast<int>(codec.output_width);
  const int height = static_cast<int>(codec.output_height);
  decoded = {0, 0, width, height};
  if (!decodes_regions()) return true;
  const int right = std::min(width, std::max(wanted.x + wanted.width + kMargin, kNarrowest));
  const int left = std::max(0, std::min(wanted.x - kMargin, right - kNarrowest));
  if (left > 0 || right < width) {
    JDIMENSION first = static_cast<JDIMENSION>(left);
    JDIMENSION count = static_cast<JDIMENSION>(right - left);
    jpeg_crop_scanline(&codec, &first, &count);  // moves `first` left to a whole block
    decoded.x = static_cast<int>(first);
    decoded.width = static_cast<int>(count);
  }
  decoded.y = std::max(0, wanted.y - kMargin);
  decoded.height = wanted.y + wanted.height - decoded.y;
  if (decoded.y > 0) {
    const auto skip = static_cast<JDIMENSION>(decoded.y);
    if (jpeg_skip_scanlines(&codec, skip) != skip) return false;
  }
  return true;
}

bool LibjpegDecoder::State::read_rows(std::uint8_t* pixels, std::size_t stride, int rows) {
  if (setjmp(errors.escape)) return false;
  constexpr int kAtOnce = 16;
  JSAMPROW pointers[kAtOnce];
  for (int row = 0; row < rows;) {
    const int count = rows - row < kAtOnce ? rows - row : kAtOnce;
    for (int i = 0; i < count; ++i) pointers[i] = pixels + std::size_t(row + i) * stride;
    const auto read = jpeg_read_scanlines(&codec, pointers, static_cast<JDIMENSION>(count));
    if (read == 0) return false;
    row += static_cast<int>(read);
  }
  return true;
}

bool LibjpegDecoder::State::read_coefficients() {
  if (setjmp(errors.escape)) return false;
  arrays = jpeg_read_coefficients(&codec);
  return arrays != nullptr && has_all_scans();
}

bool LibjpegDecoder::State::read_blocks(int component, int block_row, const BlockWindow& window,
                                        std::int16_t* out) {
  if (setjmp(errors.escape)) return false;
  const JBLOCKARRAY rows = codec.mem->access_virt_barray(
      reinterpret_cast<j_common_ptr>(&codec), arrays[component],
      static_cast<JDIMENSION>(block_row), 1, FALSE);
  static_assert(sizeof(JCOEF) == sizeof(std::int16_t));
  std::memcpy(out, rows[0][window.left[component]],
              std::size_t(window.right[component] - window.left[component]) * sizeof(JBLOCK));
  return true;
}

LibjpegDecoder::LibjpegDecoder() : state_(std::make_unique<State>()) {}

LibjpegDecoder::~LibjpegDecoder() { close(); }

void LibjpegDecoder::close() noexcept {
  if (state_->created) jpeg_destroy_decompress(&state_->codec);
  state_->created = false;
}

std::optional<ImageSize> LibjpegDecoder::open(std::span<const std::byte> item) noexcept {
  close();
  if (!is_whole_jpeg(item) || !state_->read_header(item)) return std::nullopt;
  return ImageSize{static_cast<int>(state_->codec.image_width),
                   static_cast<int>(state_->codec.image_height)};
}

std::optional<PixelView> LibjpegDecoder::decode(const Region& region,
                                             std::vector<std::uint8_t>& buffer) {
  Region decoded;
  if (!state_->start(region, decoded)) return std::nullopt;
  const std::size_t stride = std::size_t(decoded.width) * 3;
  const std::size_t bytes = stride * decoded.height + kPixelSlack;
  if (buffer.size() < bytes) buffer.resize(bytes);
  if (!state_->read_rows(buffer.data(), stride, decoded.height)) return std::nullopt;
  return PixelView{buffer.data() + std::size_t(region.y - decoded.y) * stride +
                       std::size_t(region.x - decoded.x) * 3,
                   static_cast<std::ptrdiff_t>(stride)};
}

std::optional<Frame> LibjpegDecoder::coefficients() noexcept {
  const auto& codec = state_->codec;
  Frame& frame = state_->frame;
  frame = {};
  frame.width = static_cast<int>(codec.image_width);
  frame.height = static_cast<int>(codec.image_height);
  if (codec.num_components == 3) {
    const auto* part = codec.comp_info;
    for (int c = 1; c < 3; ++c) {
      if (part[c].h_samp_factor != 1 || part[c].v_samp_factor != 1) return std::nullopt;
    }
    const int across = part[0].h_samp_factor, down = part[0].v_samp_factor;
    if (codec.jpeg_color_space != JCS_YCbCr || across > 2 || down > across) return std::nullopt;
    frame.sampling = across == 1 ? Sampling::full
                     : down == 1 ? Sampling::half_wide : Sampling::quarter;
  }
  frame.derive();
  if (!frame.is_ours() || !state_->read_coefficients()) return std::nullopt;
  for (int c = 0; c < frame.components(); ++c) {
    const JQUANT_TBL* table = codec.comp_info[c].quant_table;
    if (table == nullptr) return std::nullopt;
    for (int i = 0; i < kCoefficients; ++i) {
      if (table->quantval[i] > 0x7FFF) return std::nullopt;
      frame.component[c].quantiser[i] = table->quantval[i];
    }
  }
  return frame;
}

bool LibjpegDecoder::read(int mcu_row, CoefficientRow& row) {
  const Frame& frame = state_->frame;
  for (int c = 0; c < frame.components(); ++c) {
    const int down = frame.blocks_down(c);
    for (int y = 0; y < down; ++y) {
      const int block_row = mcu_row * down + y;
      if (block_row < row.window().top[c] || block_row >= row.window().bottom[c]) continue;
      if (!state_->read_blocks(c, block_row, row.window(), row.row(c, y))) return false;
      if (!kernels().in_range(row.row(c, y), row.window().right[c] - row.window().left[c],
                              frame.component[c].quantiser.data())) {
        return false;
      }
    }
  }
  return true;
}

}  // namespace coordl
