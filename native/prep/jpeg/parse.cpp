#include "prep/jpeg/parse.hpp"

#include <algorithm>
#include <cstring>

namespace coordl {
namespace {

enum Marker : int {
  kSof0 = 0xC0, kSof1 = 0xC1, kDht = 0xC4, kSoi = 0xD8, kEoi = 0xD9, kSos = 0xDA, kDqt = 0xDB,
  kDri = 0xDD, kApp0 = 0xE0, kApp14 = 0xEE,
};

// Bytes of one marker segment. Reading past its end gives zeros and is remembered.
class Segment {
 public:
  explicit Segment(std::span<const std::byte> bytes) : bytes_(bytes) {}
  int byte() {
    if (at_ >= bytes_.size()) {
      overrun_ = true;
      return 0;
    }
    return std::to_integer<int>(bytes_[at_++]);
  }
  int word() {
    const int high = byte();
    return high << 8 | byte();
  }
  bool starts_with(const char* text, std::size_t length) const {
    return bytes_.size() >= length && std::memcmp(bytes_.data(), text, length) == 0;
  }
  std::size_t size() const { return bytes_.size(); }
  std::size_t left() const { return bytes_.size() - at_; }
  bool ended_well() const { return !overrun_ && left() == 0; }
  bool overrun() const { return overrun_; }

 private:
  std::span<const std::byte> bytes_;
  std::size_t at_ = 0;
  bool overrun_ = false;
};

class Parser {
 public:
  explicit Parser(std::span<const std::byte> item) : item_(item) {}
  std::optional<ParsedJpeg> parse(bool header_only);

 private:
  bool take(int marker, Segment segment);
  bool quantisers(Segment& segment);
  bool huffman_tables(Segment& segment);
  bool frame(Segment& segment);
  bool scan(Segment& segment);
  bool colours_are_ycc() const;
  bool find_end(std::size_t at);

  std::span<const std::byte> item_;
  ParsedJpeg out_;
  std::array<std::array<std::uint16_t, kCoefficients>, 4> quantiser_{};
  std::array<bool, 4> has_quantiser_{};
  std::array<HuffmanSpec, 4> dc_, ac_;
  std::array<int, 3> id_{}, quantiser_of_{};
  bool seen_frame_ = false, jfif_ = false, adobe_ = false;
};

std::optional<ParsedJpeg> Parser::parse(bool header_only) {
  const auto at_byte = [&](std::size_t at) { return std::to_integer<int>(item_[at]); };
  const std::size_t size = item_.size();
  if (size < 4 || at_byte(0) != 0xFF || at_byte(1) != kSoi) return std::nullopt;
  for (std::size_t at = 2;;) {
    if (at >= size || at_byte(at) != 0xFF) return std::nullopt;
    while (at < size && at_byte(at) == 0xFF) ++at;
    if (at + 3 > size) return std::nullopt;
    const int marker = at_byte(at++);
    const std::size_t length = std::size_t(at_byte(at)) << 8 | std::size_t(at_byte(at + 1));
    if (marker < kSof0 || (marker >= 0xD0 && marker <= kEoi)) return std::nullopt;
    if (length < 2 || length > size - at) return std::nullopt;
    if (!take(marker, Segment(item_.subspan(at + 2, length - 2)))) return std::nullopt;
    at += length;
    if (marker != kSos) continue;
    out_.header = item_.first(at);
    const bool whole = header_only ? at == size : find_end(at);
    return whole ? std::optional(out_) : std::nullopt;
  }
}

bool Parser::take(int marker, Segment segment) {
  switch (marker) {
    case kDqt: return quantisers(segment);
    case kDht: return huffman_tables(segment);
    case kSof0:
    case kSof1: return frame(segment);
    case kSos: return scan(segment);
    case kDri:
      out_.restart_interval = segment.word();
      return segment.ended_well();
    case kApp0:
      if (segment.size() < 14 || !segment.starts_with("JFIF\0", 5)) return true;
      jfif_ = true;
      for (int i = 0; i < 5; ++i) segment.byte();
      return segment.byte() == 1;  // libjpeg warns of other major versions
    case kApp14:
      if (segment.size() < 12 || !segment.starts_with("Adobe", 5)) return true;
      adobe_ = true;
      for (int i = 0; i < 11; ++i) segment.byte();
      return segment.byte() == 1;  // YCbCr; other colours are libjpeg's
    default:
      // Other kinds of frame (progressive, arithmetic, ...) and DNL, DHP, EXP are not ours.
      return marker >= kApp0 && (marker <= 0xEF || marker == 0xFE);
  }
}

bool Parser::quantisers(Segment& segment) {
  while (segment.left() > 0) {
    const int which = segment.byte(), slot = which & 15;
    if (which >> 4 > 1 || slot > 3) return false;
    for (int k = 0; k < kCoefficients; ++k) {
      const int value = which >> 4 ? segment.word() : segment.byte();
      if (value > 0x7FFF) return false;
      quantiser_[slot][kZigzag[k]] = static_cast<std::uint16_t>(value);
    }
    has_quantiser_[slot] = true;
  }
  return segment.ended_well();
}

bool Parser::huffman_tables(Segment& segment) {
  while (segment.left() > 0) {
    const int which = segment.byte();
    if (which >> 4 > 1 || (which & 15) > 3) return false;
    HuffmanSpec spec;
    for (int length = 1; length <= 16; ++length) {
      spec.counts[length] = static_cast<std::uint8_t>(segment.byte());
      spec.size += spec.counts[length];
    }
    if (spec.size > 256 || std::size_t(spec.size) > segment.left()) return false;
    for (int i = 0; i < spec.size; ++i) {
      spec.symbols[i] = static_cast<std::uint8_t>(segment.byte());
    }
    ((which >> 4) != 0 ? ac_ : dc_)[which & 15] = spec;
  }
  return segment.ended_well();
}

bool Parser::frame(Segment& segment) {
  if (seen_frame_ || segment.byte() != 8) return false;
  seen_frame_ = true;
  Frame& frame = out_.frame;
  frame.height = segment.word();
  frame.width = segment.word();
  const int count = segment.byte();
  if (count != 1 && count != 3) return false;
  std::array<int, 3> sampling{};
  for (int c = 0; c < count; ++c) {
    id_[c] = segment.byte();
    sampling[c] = segment.byte();
    quantiser_of_[c] = segment.byte();
    if (quantiser_of_[c] > 3) return false;
  }
  if (!segment.ended_well()) return false;
  if (count == 1) {
    // One component is never interleaved: its blocks come row by row whatever its factors are.
    const int across = sampling[0] >> 4, down = sampling[0] & 15;
    frame.sampling = Sampling::grey;
    return across >= 1 && across <= 4 && down >= 1 && down <= 4;
  }
  if (id_[0] == id_[1] || id_[0] == id_[2] || id_[1] == id_[2]) return false;
  if (sampling[1] != 0x11 || sampling[2] != 0x11) return false;
  switch (sampling[0]) {
    case 0x11: frame.sampling = Sampling::full; return true;
    case 0x21: frame.sampling = Sampling::half_wide; return true;
    case 0x22: frame.sampling = Sampling::quarter; return true;
    default: return false;
  }
}

// libjpeg's rule for three components: JFIF says YCbCr, then Adobe, then the components' ids.
bool Parser::colours_are_ycc() const {
  return jfif_ || adobe_ || !(id_[0] == 'R' && id_[1] == 'G' && id_[2] == 'B');
}

bool Parser::scan(Segment& segment) {
  Frame& frame = out_.frame;
  if (!seen_frame_ || segment.byte() != frame.components()) return false;
  for (int c = 0; c < frame.components(); ++c) {
    const int id = segment.byte(), tables = segment.byte();
    if (id != id_[c] || (tables >> 4) > 3 || (tables & 15) > 3) return false;
    out_.dc[c] = dc_[tables >> 4];
    out_.ac[c] = ac_[tables & 15];
    if (out_.dc[c].size == 0 || out_.ac[c].size == 0 || !has_quantiser_[quantiser_of_[c]]) {
      return false;
    }
    frame.component[c].quantiser = quantiser_[quantiser_of_[c]];
  }
  const bool sequential =
      segment.byte() == 0 && segment.byte() == kCoefficients - 1 && segment.byte() == 0;
  if (!sequential || !segment.ended_well()) return false;
  if (frame.components() == 3 && !colours_are_ycc()) return false;
  if (std::int64_t(frame.width) * frame.height > kMaxPixels) return false;
  frame.derive();
  return frame.is_ours();
}

// The data end at a marker that is neither a stuffed byte nor a restart: it must end the image. What
// follows is ignored, as Pillow and libjpeg do.
bool Parser::find_end(std::size_t at) {
  const std::size_t begin = at;
  for (;;) {
    const void* hit = at < item_.size()
                          ? std::memchr(item_.data() + at, 0xFF, item_.size() - at) : nullptr;
    if (hit == nullptr) return false;
    at = static_cast<std::size_t>(static_cast<const std::byte*>(hit) - item_.data());
    if (at + 1 >= item_.size()) return false;
    const int next = std::to_integer<int>(item_[at + 1]);
    const bool restart = next >= 0xD0 && next <= 0xD7;
    if (restart && out_.restart_interval == 0) return false;
    if (next == 0x00 || restart) {
      at += 2;
      continue;
    }
    out_.scan = item_.subspan(begin, at - begin);
    return next == kEoi;
  }
}

}  // namespace

std::optional<ParsedJpeg> parse_jpeg(std::span<const std::byte> item) noexcept {
  return Parser(item).parse(false);
}

std::optional<ParsedJpeg> parse_jpeg_header(std::span<const std::byte> header) noexcept {
  return Parser(header).parse(true);
}

std::span<const std::byte> jpeg_header_of(std::span<const std::byte> item) noexcept {
  const auto at_byte = [&](std::size_t at) { return std::to_integer<int>(item[at]); };
  for (std::size_t at = 2; at + 4 <= item.size() && at_byte(at) == 0xFF;) {
    const int marker = at_byte(at + 1);
    if (marker == 0xFF) {
      ++at;
      continue;
    }
    const std::size_t length = std::size_t(at_byte(at + 2)) << 8 | std::size_t(at_byte(at + 3));
    if (length < 2 || length > item.size() - at - 2) break;
    at += 2 + length;
    if (marker == kSos) return item.first(at);
  }
  return {};
}

}  // namespace coordl
