#include "fuzz/jpegs.hpp"

#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstdlib>

#include <jpeglib.h>

namespace coordl::fuzz {
namespace {

struct Errors {
  jpeg_error_mgr base;
  std::jmp_buf escape;
};

[[noreturn]] void give_up(j_common_ptr codec) {
  std::longjmp(reinterpret_cast<Errors*>(codec->err)->escape, 1);
}

std::uint8_t sample(Content content, int x, int y, int c, Chance& chance) {
  switch (content) {
    case Content::smooth: return static_cast<std::uint8_t>(3 * x + (2 + c) * y + (x * y >> 3));
    case Content::noise: return static_cast<std::uint8_t>(chance.next() >> 40);
    case Content::flat: return static_cast<std::uint8_t>(60 * c + 17);
    case Content::stripes: return ((x + c) & 1) != 0 ? 255 : 0;
  }
  return 0;
}

// Fills `out` (memory of libjpeg's). False: libjpeg cannot write such a file.
bool compress(const JpegOptions& options, const std::uint8_t* pixels, unsigned char*& out,
              unsigned long& size) {
  jpeg_compress_struct codec{};
  Errors errors{};
  codec.err = jpeg_std_error(&errors.base);
  errors.base.error_exit = give_up;
  if (setjmp(errors.escape)) {
    jpeg_destroy_compress(&codec);
    return false;
  }
  jpeg_create_compress(&codec);
  jpeg_mem_dest(&codec, &out, &size);
  codec.image_width = static_cast<JDIMENSION>(options.width);
  codec.image_height = static_cast<JDIMENSION>(options.height);
  codec.input_components = options.components;
  codec.in_color_space = options.components == 1   ? JCS_GRAYSCALE
                         : options.components == 3 ? JCS_RGB : JCS_CMYK;
  jpeg_set_defaults(&codec);
  if (options.rgb && options.components == 3) jpeg_set_colorspace(&codec, JCS_RGB);
  jpeg_set_quality(&codec, options.quality, TRUE);
  codec.comp_info[0].h_samp_factor = options.across;
  codec.comp_info[0].v_samp_factor = options.down;
  codec.restart_interval = static_cast<unsigned>(options.restart);
  codec.optimize_coding = options.optimise ? TRUE : FALSE;
  codec.arith_code = options.arithmetic ? TRUE : FALSE;
  if (options.progressive) jpeg_simple_progression(&codec);
  jpeg_start_compress(&codec, TRUE);
  const std::size_t stride = std::size_t(options.width) * options.components;
  while (codec.next_scanline < codec.image_height) {
    JSAMPROW row = const_cast<JSAMPROW>(pixels + codec.next_scanline * stride);
    jpeg_write_scanlines(&codec, &row, 1);
  }
  jpeg_finish_compress(&codec);
  jpeg_destroy_compress(&codec);
  return true;
}

struct Segment {
  int marker;
  std::size_t begin, end;  // of what follows the length
};

// The segments up to and including the first scan's header, as far as they make sense.
std::vector<Segment> segments_of(const Bytes& jpeg) {
  std::vector<Segment> segments;
  for (std::size_t at = 2; at + 4 <= jpeg.size() && jpeg[at] == 0xFF;) {
    const std::size_t length = std::size_t(jpeg[at + 2]) << 8 | jpeg[at + 3];
    if (length < 2 || at + 2 + length > jpeg.size()) break;
    segments.push_back({jpeg[at + 1], at + 4, at + 2 + length});
    if (jpeg[at + 1] == 0xDA) break;
    at += 2 + length;
  }
  return segments;
}

std::size_t scan_begin(const std::vector<Segment>& segments) {
  return segments.empty() ? 2 : segments.back().end;
}

void mutate_frame(Bytes& jpeg, const Segment& frame, Chance& chance) {
  if (frame.end - frame.begin < 9) return;
  std::uint8_t* at = jpeg.data() + frame.begin;
  constexpr std::uint8_t factors[] = {0x11, 0x21, 0x12, 0x22, 0x41, 0x14, 0x31, 0x44, 0x00, 0x24};
  switch (chance.below(6)) {
    case 0: at[1 + 2 * chance.below(2)] = chance.one_in(8) ? chance.byte() : 0; break;
    case 1: at[2 + 2 * chance.below(2)] = static_cast<std::uint8_t>(chance.within(0, 48)); break;
    case 2: {
      const std::size_t c = std::size_t(chance.below((frame.end - frame.begin - 6) / 3));
      at[6 + 3 * c + 1] = factors[chance.below(10)];
      break;
    }
    case 3: at[6 + chance.below(frame.end - frame.begin - 6)] = chance.byte(); break;
    case 4: at[5] = static_cast<std::uint8_t>(chance.below(5)); break;
    default: jpeg[frame.begin - 3] = static_cast<std::uint8_t>(0xC0 + chance.below(16));
  }
}

// Another table of as many symbols as there is room for: mostly a valid one.
void mutate_huffman(Bytes& jpeg, const Segment& segment, Chance& chance) {
  if (segment.end - segment.begin < 18) return;
  std::uint8_t* counts = jpeg.data() + segment.begin;  // [1, 16]
  const int first = 17, size = static_cast<int>(segment.end - segment.begin) - first;
  switch (chance.below(5)) {
    case 0: counts[chance.within(1, 16)] = static_cast<std::uint8_t>(chance.below(8)); break;
    case 1: counts[first + chance.below(std::size_t(size))] = chance.byte(); break;
    case 2: {  // one code longer, one shorter
      const int from = chance.within(1, 16), to = chance.within(1, 16);
      if (counts[from] > 0) --counts[from], ++counts[to];
      break;
    }
    case 3: {  // random lengths; `room` codes of the length at hand are free
      int left = std::min(size, 255), room = 1;
      for (int length = 1; length <= 16; ++length) {
        room = std::min(room * 2, 1 << 20);
        const int most = std::min({left, room - (chance.one_in(10) ? 0 : 1), 255});
        const int count = length == 16 ? most : chance.one_in(2) ? 0 : chance.within(0, std::max(0, most));
        counts[length] = static_cast<std::uint8_t>(std::max(0, count));
        left -= counts[length];
        room -= counts[length];
      }
      counts[16] = static_cast<std::uint8_t>(counts[16] + std::max(0, left));
      break;
    }
    default: counts[0] = static_cast<std::uint8_t>((chance.below(2) << 4) | chance.below(5));
  }
}

void mutate_scan(Bytes& jpeg, std::size_t begin, Chance& chance) {
  if (begin + 4 > jpeg.size()) return;
  const std::size_t size = jpeg.size() - begin - 2;
  const auto at = [&] { return begin + std::size_t(chance.below(size)); };
  switch (chance.below(8)) {
    case 0: jpeg[at()] ^= static_cast<std::uint8_t>(1u << chance.below(8)); break;
    case 1:
      for (std::size_t i = at(), left = std::size_t(chance.within(1, 40)); left > 0; --left, ++i) {
        if (i + 2 < jpeg.size()) jpeg[i] = chance.byte();
      }
      break;
    case 2: {
      const std::size_t from = at(), to = at();
      std::copy(jpeg.begin() + std::ptrdiff_t(std::max(from, to)), jpeg.end() - 2,
                jpeg.begin() + std::ptrdiff_t(std::min(from, to)));
      break;
    }
    case 3: {
      const std::uint8_t restart[] = {0xFF, static_cast<std::uint8_t>(0xD0 + chance.below(8))};
      jpeg.insert(jpeg.begin() + std::ptrdiff_t(at()), restart, restart + 2);
      break;
    }
    case 4: {
      const std::uint8_t stuffed[] = {0xFF, static_cast<std::uint8_t>(chance.one_in(8) ? 0xFF : 0)};
      jpeg.insert(jpeg.begin() + std::ptrdiff_t(at()), stuffed, stuffed + 2);
      break;
    }
    case 5: jpeg.erase(jpeg.begin() + std::ptrdiff_t(at())); break;
    case 6: jpeg.insert(jpeg.end() - 2, std::size_t(chance.within(1, 30)), chance.byte()); break;
    default: {
      const auto to = jpeg.begin() + std::ptrdiff_t(at());
      jpeg.insert(to, std::size_t(chance.within(1, 30)), chance.byte());
    }
  }
}

void mutate_order(Bytes& jpeg, const std::vector<Segment>& segments, Chance& chance) {
  const Segment& segment = segments[std::size_t(chance.below(segments.size()))];
  const Segment& other = segments[std::size_t(chance.below(segments.size()))];
  const auto begin = jpeg.begin() + std::ptrdiff_t(segment.begin - 4);
  const auto end = jpeg.begin() + std::ptrdiff_t(segment.end);
  const Bytes whole(begin, end);
  switch (chance.below(4)) {
    case 0: jpeg.erase(begin, end); break;
    case 1: jpeg.insert(jpeg.begin() + std::ptrdiff_t(other.begin - 4), whole.begin(), whole.end()); break;
    case 2: jpeg.insert(begin, std::size_t(chance.within(1, 3)), 0xFF); break;
    default: {
      const std::uint8_t interval[] = {0xFF, 0xDD, 0, 4, 0, static_cast<std::uint8_t>(chance.below(8))};
      jpeg.insert(jpeg.begin() + std::ptrdiff_t(other.begin - 4), interval, interval + 6);
    }
  }
}

}  // namespace

Bytes encode(const JpegOptions& options, Chance& chance) {
  Bytes pixels;
  for (int y = 0; y < options.height; ++y) {
    for (int x = 0; x < options.width; ++x) {
      for (int c = 0; c < options.components; ++c) pixels.push_back(sample(options.content, x, y, c, chance));
    }
  }
  unsigned char* out = nullptr;
  unsigned long size = 0;
  const bool done = compress(options, pixels.data(), out, size);
  Bytes jpeg;
  if (done) jpeg.assign(out, out + size);
  std::free(out);
  return jpeg;
}

std::vector<Bytes> jpegs_of_every_kind() {
  Chance chance(1);
  std::vector<Bytes> all;
  const auto add = [&](JpegOptions options) {
    options.width = chance.within(1, 40);
    options.height = chance.within(1, 40);
    options.quality = chance.one_in(3) ? chance.within(1, 100) : chance.within(60, 98);
    options.content = static_cast<Content>(chance.below(4));
    Bytes jpeg = encode(options, chance);
    if (!jpeg.empty()) all.push_back(std::move(jpeg));
  };
  constexpr int factors[][2] = {{2, 2}, {1, 1}, {2, 1}, {1, 2}, {4, 1}};
  for (const auto& [across, down] : factors) {
    for (int kind = 0; kind < 12; ++kind) {
      JpegOptions options;
      options.across = across;
      options.down = down;
      options.restart = kind % 3 == 1 ? chance.within(1, 6) : 0;
      options.progressive = kind == 4 || kind == 5;
      options.optimise = kind % 2 == 0;
      options.arithmetic = kind == 6 || kind == 7;
      options.rgb = kind == 8 && across == 1;
      const bool ours = across * down != 1 << 2 || down != 1;
      for (int count = ours && kind != 5 && kind != 7 ? 4 : 1; count > 0; --count) add(options);
    }
  }
  for (int count = 0; count < 20; ++count) {
    JpegOptions options;
    options.components = 1;
    options.across = options.down = count % 4 == 3 ? chance.within(1, 4) : 1;
    options.restart = count % 5 == 4 ? 2 : 0;
    options.progressive = count == 7;
    add(options);
  }
  JpegOptions cmyk;
  cmyk.components = 4;
  for (int count = 0; count < 3; ++count) add(cmyk);
  return all;
}

void put_in_longest_codes(Bytes& jpeg) {
  // One code of 16 bits, all zeros; its value has 11 bits.
  Bytes tables;
  for (const int which : {0x00, 0x01, 0x10, 0x11}) {
    Bytes table = {0xFF, 0xC4, 0, 20, static_cast<std::uint8_t>(which)};
    table.insert(table.end(), 15, 0);
    table.push_back(1);
    table.push_back(11);
    tables.insert(tables.end(), table.begin(), table.end());
  }
  const auto segments = segments_of(jpeg);
  if (segments.empty()) return;
  for (const Segment& segment : segments) {
    if (segment.marker != 0xDB) continue;  // quantisers of 1, so that no DC is too large
    for (std::size_t i = segment.begin; i < segment.end; ++i) {
      if ((i - segment.begin) % 65 != 0) jpeg[i] = 1;
    }
  }
  jpeg.insert(jpeg.begin() + std::ptrdiff_t(segments.back().begin - 4), tables.begin(), tables.end());
}

void mutate_jpeg(Bytes& jpeg, Chance& chance) {
  const auto segments = segments_of(jpeg);
  if (segments.empty() || chance.one_in(12)) return mutate_anywhere(jpeg, chance);
  if (chance.one_in(3)) return mutate_scan(jpeg, scan_begin(segments), chance);
  if (chance.one_in(8)) return mutate_order(jpeg, segments, chance);
  if (chance.one_in(60)) return put_in_longest_codes(jpeg);
  const Segment& segment = segments[std::size_t(chance.below(segments.size()))];
  if (segment.begin >= segment.end) return;
  const bool frame = segment.marker >= 0xC0 && segment.marker <= 0xC2;
  if (frame) return mutate_frame(jpeg, segment, chance);
  if (segment.marker == 0xC4 && !chance.one_in(8)) return mutate_huffman(jpeg, segment, chance);
  jpeg[segment.begin + std::size_t(chance.below(segment.end - segment.begin))] = chance.byte();
}

}  // namespace coordl::fuzz
