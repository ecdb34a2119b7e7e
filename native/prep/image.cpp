#include "prep/image.hpp"

#include "prep/jpeg/libjpeg.hpp"

#ifdef COORDL_PNG
#include "prep/png.hpp"
#include "prep/png_chunks.hpp"
#endif
#ifdef COORDL_WEBP
#include "prep/webp.hpp"
#endif

namespace coordl {
namespace {

constexpr std::string_view kFormats[] = {
    "jpeg",
#ifdef COORDL_PNG
    "png",
#endif
#ifdef COORDL_WEBP
    "webp",
#endif
};

enum class Format { jpeg, png, webp };

Format format_of([[maybe_unused]] std::span<const std::byte> item) {
#ifdef COORDL_PNG
  if (has_png_signature(item)) return Format::png;
#endif
#ifdef COORDL_WEBP
  if (has_webp_signature(item)) return Format::webp;
#endif
  return Format::jpeg;  // which looks at the signature itself
}

}  // namespace

std::span<const std::string_view> formats() { return kFormats; }

struct ImageDecoder::State {
  Format format = Format::jpeg;
  LibjpegDecoder jpeg;
#ifdef COORDL_PNG
  PngDecoder png;
#endif
#ifdef COORDL_WEBP
  WebpDecoder webp;
#endif

  template <typename Use>
  auto with_decoder(Use&& use) {
#ifdef COORDL_PNG
    if (format == Format::png) return use(png);
#endif
#ifdef COORDL_WEBP
    if (format == Format::webp) return use(webp);
#endif
    return use(jpeg);
  }
};

ImageDecoder::ImageDecoder() : state_(std::make_unique<State>()) {}
ImageDecoder::~ImageDecoder() = default;

std::optional<ImageSize> ImageDecoder::open(std::span<const std::byte> item) noexcept {
  state_->format = format_of(item);
  return state_->with_decoder([&](auto& decoder) { return decoder.open(item); });
}

std::optional<PixelView> ImageDecoder::decode(const Region& region,
                                              std::vector<std::uint8_t>& buffer) {
  return state_->with_decoder([&](auto& decoder) { return decoder.decode(region, buffer); });
}

void ImageDecoder::close() noexcept {
  state_->with_decoder([](auto& decoder) { decoder.close(); });
}

}  // namespace coordl
