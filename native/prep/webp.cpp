#include "prep/webp.hpp"

#include <algorithm>
#include <cstring>

#include <webp/decode.h>
#include <webp/demux.h>

namespace coordl {
namespace {

// Smooth upsampling of chroma reads a neighbour; libwebp takes a crop's border for the image's. Two
// pixels, and an even first one, keep the phase of chroma.
constexpr int kMargin = 2;

bool is_kind(const std::byte* at, const char* name) { return std::memcmp(at, name, 4) == 0; }

// Even origin, margin to the left, above and right; down to the last row: damage there counts too.
Region widened(const Region& wanted, int width, int height) {
  const int left = std::max(0, wanted.x - kMargin) & ~1, top = std::max(0, wanted.y - kMargin) & ~1;
  const int right = std::min(width, wanted.x + wanted.width + kMargin);
  return {left, top, right - left, height - top};
}

}  // namespace

// The first check is Pillow's: the first chunk is one of three.
bool has_webp_signature(std::span<const std::byte> item) {
  if (item.size() < 16 || !is_kind(&item[0], "RIFF") || !is_kind(&item[8], "WEBP")) return false;
  return is_kind(&item[12], "VP8 ") || is_kind(&item[12], "VP8L") || is_kind(&item[12], "VP8X");
}

struct WebpDecoder::State {
  WebPDemuxer* demuxer = nullptr;  // owns the frame's place in the item
  WebPIterator frame{};
  int width = 0, height = 0;
};

WebpDecoder::WebpDecoder() : state_(std::make_unique<State>()) {}

WebpDecoder::~WebpDecoder() { close(); }

void WebpDecoder::close() noexcept {
  WebPDemuxReleaseIterator(&state_->frame);
  WebPDemuxDelete(state_->demuxer);
  state_->frame = {};
  state_->demuxer = nullptr;
}

std::optional<ImageSize> WebpDecoder::open(std::span<const std::byte> item) noexcept {
  close();
  if (!has_webp_signature(item)) return std::nullopt;
  const WebPData data{reinterpret_cast<const std::uint8_t*>(item.data()), item.size()};
  State& state = *state_;
  state.demuxer = WebPDemux(&data);  // nothing for a truncated file
  if (state.demuxer == nullptr || WebPDemuxGetI(state.demuxer, WEBP_FF_FRAME_COUNT) != 1 ||
      !WebPDemuxGetFrame(state.demuxer, 1, &state.frame)) {
    return std::nullopt;
  }
  state.width = static_cast<int>(WebPDemuxGetI(state.demuxer, WEBP_FF_CANVAS_WIDTH));
  state.height = static_cast<int>(WebPDemuxGetI(state.demuxer, WEBP_FF_CANVAS_HEIGHT));
  const bool fills = state.frame.width == state.width && state.frame.height == state.height;
  const bool animated = WebPDemuxGetI(state.demuxer, WEBP_FF_FORMAT_FLAGS) & ANIMATION_FLAG;
  if (!fills || animated || !state.frame.complete) return std::nullopt;
  if (std::int64_t(state.width) * state.height > kMaxPixels) return std::nullopt;
  return ImageSize{state.width, state.height};
}

std::optional<PixelView> WebpDecoder::decode(const Region& region,
                                             std::vector<std::uint8_t>& buffer) {
  const State& state = *state_;
  WebPDecoderConfig config;
  if (!WebPInitDecoderConfig(&config)) return std::nullopt;
  const Region decoded = widened(region, state.width, state.height);
  // Pillow decodes alpha and fails where it is damaged: so do we, and then drop it.
  const int step = state.frame.has_alpha ? 4 : 3;
  const std::size_t stride = std::size_t(decoded.width) * step, size = stride * decoded.height;
  if (buffer.size() < size + kPixelSlack) {
    buffer.clear();
    buffer.resize(size + kPixelSlack);
  }
  config.options.use_cropping = 1;
  config.options.crop_left = decoded.x;
  config.options.crop_top = decoded.y;
  config.options.crop_width = decoded.width;
  config.options.crop_height = decoded.height;
  config.output.colorspace = step == 4 ? MODE_RGBA : MODE_RGB;
  config.output.is_external_memory = 1;
  config.output.u.RGBA = {buffer.data(), static_cast<int>(stride), size};
  const auto& bytes = state.frame.fragment;
  if (WebPDecode(bytes.bytes, bytes.size, &config) != VP8_STATUS_OK) return std::nullopt;

  std::uint8_t* const first = buffer.data() + std::size_t(region.y - decoded.y) * stride +
                              std::size_t(region.x - decoded.x) * step;
  if (step == 4) {
    for (int row = 0; row < region.height; ++row) {
      std::uint8_t* const line = first + std::size_t(row) * stride;
      for (int i = 1; i < region.width; ++i) std::memmove(line + 3 * i, line + 4 * i, 3);
    }
  }
  return PixelView{first, static_cast<std::ptrdiff_t>(stride)};
}

}  // namespace coordl
