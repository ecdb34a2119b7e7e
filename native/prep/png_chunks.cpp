#include "prep/png_chunks.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>

#include <libdeflate.h>

namespace coordl {
namespace {

using Bytes = std::span<const std::uint8_t>;

constexpr std::uint8_t kSignature[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
constexpr std::size_t kEnvelope = 12;  // of a chunk: length, name, checksum
// Pillow raises beyond these: PngImagePlugin.MAX_TEXT_CHUNK and MAX_TEXT_MEMORY.
constexpr std::size_t kMaxPlainBytes = std::size_t(1) << 20;
constexpr std::size_t kMaxTextBytes = std::size_t(64) << 20;

std::uint32_t big_endian(const std::uint8_t* at) {
  return std::uint32_t(at[0]) << 24 | std::uint32_t(at[1]) << 16 | std::uint32_t(at[2]) << 8 | at[3];
}

bool is_name(std::string_view name) {
  return std::all_of(name.begin(), name.end(),
                     [](char c) { return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'); });
}

class Reader {
 public:
  Reader(libdeflate_decompressor* inflater, std::vector<std::uint8_t>& plain, PngChunks& chunks)
      : inflater_(inflater), plain_(plain), chunks_(chunks) {}
  bool read(Bytes file);

 private:
  bool take(std::string_view name, Bytes body);
  bool header(Bytes body);
  bool ancillary(std::string_view name, Bytes body);
  bool text(std::string_view name, Bytes body);
  bool international(Bytes rest);
  bool inflates(Bytes stream);

  libdeflate_decompressor* inflater_;
  std::vector<std::uint8_t>& plain_;
  PngChunks& chunks_;
  std::size_t text_bytes_ = 0;
  bool data_ended_ = false;
};

bool Reader::read(Bytes file) {
  for (std::size_t at = sizeof kSignature; file.size() - at >= kEnvelope;) {
    const std::size_t length = big_endian(&file[at]);
    if (length > file.size() - at - kEnvelope) return false;
    const std::string_view name(reinterpret_cast<const char*>(&file[at + 4]), 4);
    const Bytes body = file.subspan(at + 8, length);
    const auto sum = libdeflate_crc32(0, &file[at + 4], length + 4);
    if (sum != big_endian(body.data() + length) || !is_name(name)) return false;
    at += kEnvelope + length;
    const bool first = chunks_.width == 0;
    if (first != (name == "IHDR")) return false;
    if (name == "IEND") return length == 0 && !chunks_.data.empty();  // Pillow reads no further
    if (!take(name, body)) return false;
  }
  return false;
}

bool Reader::take(std::string_view name, Bytes body) {
  if (name == "IDAT") {
    if (data_ended_) return false;
    if (chunks_.colour == PngChunks::palette && chunks_.colours.empty()) return false;
    chunks_.data.push_back(body);
    chunks_.data_bytes += body.size();
    return true;
  }
  data_ended_ = !chunks_.data.empty();
  if (name == "IHDR") return header(body);
  if (name == "PLTE") {
    const bool late = data_ended_ || !chunks_.colours.empty();
    if (late || body.empty() || body.size() > 768 || body.size() % 3 != 0) return false;
    chunks_.colours = body;
    return true;
  }
  const bool critical = name[0] < 'a';
  return !critical && ancillary(name, body);
}

bool Reader::header(Bytes body) {
  if (body.size() != 13) return false;
  const std::uint32_t width = big_endian(&body[0]), height = big_endian(&body[4]);
  if (width == 0 || height == 0 || width > INT32_MAX || height > INT32_MAX) return false;
  const int depth = body[8], colour = body[9];
  const bool whole = depth == 8 || depth == 16, part = depth == 1 || depth == 2 || depth == 4;
  switch (colour) {
    case PngChunks::grey:  // 16 bits: Pillow's "I;16", whose way to RGB changed between its versions
    case PngChunks::palette:
      if (depth != 8 && !part) return false;
      break;
    case PngChunks::rgb:
    case PngChunks::grey_alpha:
    case PngChunks::rgb_alpha:
      if (!whole) return false;
      break;
    default:
      return false;
  }
  if (body[10] != 0 || body[11] != 0 || body[12] > 1) return false;
  chunks_.width = static_cast<int>(width);
  chunks_.height = static_cast<int>(height);
  chunks_.depth = depth;
  chunks_.colour = static_cast<PngChunks::Colour>(colour);
  chunks_.interlaced = body[12] == 1;
  return true;
}

bool Reader::ancillary(std::string_view name, Bytes body) {
  // Pillow raises for shorter ones.
  struct Known {
    std::string_view name;
    std::size_t bytes;
  };
  constexpr std::array<Known, 4> kKnown{{{"gAMA", 4}, {"cHRM", 32}, {"sRGB", 1}, {"pHYs", 9}}};
  for (const Known& known : kKnown) {
    if (name == known.name) return body.size() == known.bytes;
  }
  // Transparency stays in Pillow's info and makes its convert() warn or look for the colour; with
  // animation control it composes frames.
  constexpr std::array<std::string_view, 4> kPillows{"tRNS", "acTL", "fcTL", "fdAT"};
  if (std::find(kPillows.begin(), kPillows.end(), name) != kPillows.end()) return false;
  if (name == "iCCP" || name == "tEXt" || name == "zTXt" || name == "iTXt") return text(name, body);
  return true;  // Pillow skips all others, or only keeps them, as it does eXIf
}

// Chunks that begin with a keyword: Pillow writes text into the dictionary under that key.
bool Reader::text(std::string_view name, Bytes body) {
  const auto end = std::find(body.begin(), body.end(), std::uint8_t(0));
  const auto key_bytes = static_cast<std::size_t>(end - body.begin());
  if (end == body.end() || key_bytes == 0) return false;
  const std::string_view key(reinterpret_cast<const char*>(body.data()), key_bytes);
  // Keys that Pillow's own reader and convert() look up.
  constexpr std::array<std::string_view, 7> kSteering{
      "transparency", "interlace", "bbox", "default_image", "disposal", "blend", "icc_profile"};
  if (std::find(kSteering.begin(), kSteering.end(), key) != kSteering.end()) return false;
  const Bytes rest = body.subspan(key_bytes + 1);
  text_bytes_ += rest.size();
  if (text_bytes_ > kMaxTextBytes) return false;
  if (name == "tEXt") return true;
  if (name == "iTXt") return international(rest);
  return !rest.empty() && rest[0] == 0 && inflates(rest.subspan(1));
}

// iTXt after the keyword: compression flag, method, language, keyword in it, text. Pillow passes over
// what does not have that form, without an error.
bool Reader::international(Bytes rest) {
  if (rest.size() < 2 || rest[0] == 0 || rest[1] != 0) return true;
  Bytes stream = rest.subspan(2);
  for (int part = 0; part < 2; ++part) {
    const auto end = std::find(stream.begin(), stream.end(), std::uint8_t(0));
    if (end == stream.end()) return true;
    stream = stream.subspan(static_cast<std::size_t>(end - stream.begin()) + 1);
  }
  return inflates(stream);
}

// True when a zlib stream is whole and within the size from which on Pillow raises.
bool Reader::inflates(Bytes stream) {
  if (plain_.size() < kMaxPlainBytes) plain_.resize(kMaxPlainBytes);
  std::size_t bytes = 0;
  const auto result = libdeflate_zlib_decompress(inflater_, stream.data(), stream.size(),
                                                 plain_.data(), kMaxPlainBytes - 1, &bytes);
  text_bytes_ += bytes;
  return result == LIBDEFLATE_SUCCESS && text_bytes_ <= kMaxTextBytes;
}

}  // namespace

bool has_png_signature(std::span<const std::byte> item) {
  return item.size() >= sizeof kSignature &&
         std::memcmp(item.data(), kSignature, sizeof kSignature) == 0;
}

bool read_chunks(std::span<const std::byte> item, libdeflate_decompressor* inflater,
                 std::vector<std::uint8_t>& plain, PngChunks& chunks) {
  chunks.width = 0;
  chunks.colours = {};
  chunks.data.clear();
  chunks.data_bytes = 0;
  if (!has_png_signature(item)) return false;
  return Reader(inflater, plain, chunks)
      .read({reinterpret_cast<const std::uint8_t*>(item.data()), item.size()});
}

}  // namespace coordl
