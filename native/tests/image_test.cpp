// Damaged PNG and WebP files, for the sanitizers: no decoder reads or writes where it may not, whatever
// it makes of them. That what it makes of them is right is checked against Pillow, in Python.
#include <cstring>
#include <random>
#include <vector>

#include "prep/image.hpp"
#include "test.hpp"

namespace {

using Bytes = std::vector<unsigned char>;
using Random = std::mt19937;

[[maybe_unused]] unsigned char octet(std::uint64_t value) {
  return static_cast<unsigned char>(value & 0xFF);
}

int below(Random& random, int limit) { return static_cast<int>(random() % unsigned(limit)); }

// Decodes a random region from memory of exactly the item's size into memory of exactly the size
// asked for; reads every pixel and the slack. Whether it was decoded.
[[maybe_unused]] bool decodes(const Bytes& item, Random& random) {
  const Bytes own(item);
  coordl::ImageDecoder decoder;
  const auto size = decoder.open(std::as_bytes(std::span(own)));
  if (!size || std::int64_t(size->width) * size->height > 1'000'000) return false;
  coordl::Region region;
  region.width = 1 + below(random, size->width);
  region.height = 1 + below(random, size->height);
  region.x = below(random, size->width - region.width + 1);
  region.y = below(random, size->height - region.height + 1);
  std::vector<std::uint8_t> buffer;
  const auto pixels = decoder.decode(region, buffer);
  if (!pixels) return false;
  unsigned sum = 0;
  for (int row = 0; row < region.height; ++row) {
    const bool last = row + 1 == region.height;
    const std::size_t bytes = std::size_t(region.width) * 3 + (last ? coordl::kPixelSlack : 0);
    const std::uint8_t* const line = pixels->first + row * pixels->stride;
    for (std::size_t i = 0; i < bytes; ++i) sum += line[i];
  }
  return sum != ~0u;
}

[[maybe_unused]] void damage(Bytes& item, Random& random) {
  for (int i = 1 + below(random, 4); i > 0; --i) {
    item[std::size_t(below(random, int(item.size())))] = octet(random());
  }
  if (below(random, 8) == 0) item.resize(std::size_t(below(random, int(item.size()))));
}

#ifdef COORDL_PNG

void append(Bytes& to, std::uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) to.push_back(octet(value >> shift));
}

std::uint32_t crc(const unsigned char* at, std::size_t bytes) {
  std::uint32_t sum = ~0u;
  for (std::size_t i = 0; i < bytes; ++i) {
    sum ^= at[i];
    for (int bit = 0; bit < 8; ++bit) sum = sum & 1 ? sum >> 1 ^ 0xEDB88320u : sum >> 1;
  }
  return ~sum;
}

void append_chunk(Bytes& png, const char* name, const Bytes& body) {
  append(png, static_cast<std::uint32_t>(body.size()));
  const std::size_t start = png.size();
  png.insert(png.end(), name, name + 4);
  png.insert(png.end(), body.begin(), body.end());
  append(png, crc(&png[start], png.size() - start));
}

// A zlib stream of one stored block.
Bytes stored(const Bytes& raw) {
  Bytes stream{0x78, 0x01, 0x01};
  const auto bytes = static_cast<unsigned>(raw.size());
  for (unsigned value : {bytes, ~bytes}) {
    stream.push_back(octet(value));
    stream.push_back(octet(value >> 8));
  }
  stream.insert(stream.end(), raw.begin(), raw.end());
  std::uint32_t low = 1, high = 0;
  for (const unsigned char byte : raw) low = (low + byte) % 65521, high = (high + low) % 65521;
  append(stream, high << 16 | low);
  return stream;
}

struct Kind {
  int colour, depth, bits;  // a pixel's
};
constexpr Kind kKinds[] = {{0, 1, 1},   {0, 2, 2}, {0, 4, 4}, {0, 8, 8}, {2, 8, 24},
                           {2, 16, 48}, {3, 1, 1}, {3, 2, 2}, {3, 4, 4}, {3, 8, 8},
                           {4, 8, 16},  {4, 16, 32}, {6, 8, 32}, {6, 16, 64}};
constexpr int kPasses[8][4] = {{0, 0, 8, 8}, {4, 0, 8, 8}, {0, 4, 4, 8}, {2, 0, 4, 4},
                               {0, 2, 2, 4}, {1, 0, 2, 2}, {0, 1, 1, 2}, {0, 0, 1, 1}};

// Rows of random pixels, filters mostly known; the size may be wrong.
Bytes random_rows(Random& random, int width, int height, int bits, bool interlaced) {
  Bytes raw;
  for (int pass = interlaced ? 0 : 7; pass < (interlaced ? 7 : 8); ++pass) {
    const auto& [x, y, dx, dy] = kPasses[pass];
    const int columns = (width - x + dx - 1) / dx, rows = (height - y + dy - 1) / dy;
    for (int row = 0; columns > 0 && row < rows; ++row) {
      raw.push_back(octet(unsigned(below(random, below(random, 50) == 0 ? 256 : 5))));
      for (int i = (columns * bits + 7) / 8; i > 0; --i) raw.push_back(octet(random()));
    }
  }
  if (below(random, 20) == 0) raw.pop_back();
  return raw;
}

Bytes random_png(Random& random) {
  const Kind kind = kKinds[below(random, int(std::size(kKinds)))];
  const int width = 1 + below(random, 30), height = 1 + below(random, 20);
  const bool interlaced = below(random, 2) == 1;
  Bytes png{0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'}, header;
  append(header, std::uint32_t(width));
  append(header, std::uint32_t(height));
  for (int value : {kind.depth, kind.colour, 0, 0, int(interlaced)}) {
    header.push_back(octet(unsigned(value)));
  }
  append_chunk(png, "IHDR", header);
  if (kind.colour == 3) append_chunk(png, "PLTE", Bytes(std::size_t(3) * (1 + below(random, 256))));
  append_chunk(png, "tEXt", {'a', 0, 'b'});
  append_chunk(png, "IDAT", stored(random_rows(random, width, height, kind.bits, interlaced)));
  append_chunk(png, "IEND", {});
  return png;
}

// Puts the right checksums back, so that damage gets past them.
void mend_checksums(Bytes& png) {
  for (std::size_t at = 8; at + 12 <= png.size();) {
    std::size_t bytes = 0;
    for (std::size_t i = at; i < at + 4; ++i) bytes = bytes << 8 | png[i];
    if (bytes > png.size() - at - 12) return;
    Bytes sum;
    append(sum, crc(&png[at + 4], bytes + 4));
    std::memcpy(&png[at + 8 + bytes], sum.data(), 4);
    at += 12 + bytes;
  }
}

TEST(png_random_pixels_of_every_kind_stay_within_their_memory) {
  Random random(1);
  int taken = 0;
  for (int i = 0; i < 3000; ++i) taken += decodes(random_png(random), random);
  CHECK(taken > 1000);
}

TEST(png_damaged_files_stay_within_their_memory) {
  Random random(2);
  for (int i = 0; i < 3000; ++i) {
    Bytes item = random_png(random);
    damage(item, random);
    if (i % 4 != 0) mend_checksums(item);
    decodes(item, random);
  }
}

#endif
#ifdef COORDL_WEBP

// 26 x 21 pixels of tests/data/coffee.jpg, written by Pillow.
constexpr unsigned char kLossy[] = {  // 236 bytes
    82, 73, 70, 70, 228, 0, 0, 0, 87, 69, 66, 80, 86, 80, 56, 32, 216, 0, 0, 0, 16, 6, 0, 157, 1,
    42, 26, 0, 21, 0, 63, 17, 116, 176, 80, 44, 39, 36, 162, 176, 8, 1, 128, 34, 9, 108, 0, 157, 51,
    52, 66, 152, 39, 103, 85, 151, 136, 204, 117, 138, 131, 227, 34, 207, 115, 103, 123, 237, 215,
    125, 143, 238, 50, 21, 102, 16, 0, 0, 254, 113, 171, 168, 48, 244, 138, 207, 229, 241, 151, 133,
    150, 126, 54, 17, 1, 150, 143, 241, 128, 116, 124, 79, 43, 137, 152, 20, 143, 193, 92, 94, 31,
    175, 201, 139, 181, 157, 22, 31, 200, 244, 163, 125, 154, 91, 93, 110, 175, 136, 102, 200, 59,
    66, 46, 40, 35, 209, 21, 90, 79, 134, 127, 8, 52, 76, 99, 124, 200, 225, 5, 48, 3, 54, 128, 85,
    33, 109, 133, 171, 165, 93, 112, 86, 132, 96, 205, 246, 31, 117, 252, 25, 235, 254, 183, 47,
    248, 116, 109, 32, 3, 101, 25, 62, 162, 247, 125, 180, 148, 15, 0, 85, 33, 191, 135, 170, 111,
    218, 164, 43, 110, 103, 243, 31, 217, 178, 89, 184, 78, 224, 231, 231, 68, 253, 38, 201, 35,
    182, 185, 108, 7, 133, 182, 208, 83, 181, 14, 203, 108, 133, 190, 167, 91, 181, 152, 232, 0, 0,
};
constexpr unsigned char kLossless[] = {  // 226 bytes
    82, 73, 70, 70, 218, 0, 0, 0, 87, 69, 66, 80, 86, 80, 56, 76, 205, 0, 0, 0, 47, 25, 0, 5, 0, 22,
    56, 145, 109, 11, 97, 218, 40, 64, 64, 76, 196, 89, 172, 33, 240, 3, 46, 238, 189, 205, 113,
    112, 26, 131, 108, 35, 33, 189, 87, 149, 62, 175, 242, 64, 163, 80, 208, 182, 145, 115, 227, 87,
    244, 16, 30, 205, 99, 11, 241, 254, 79, 192, 223, 61, 245, 119, 175, 119, 242, 255, 63, 209,
    121, 38, 156, 135, 15, 170, 73, 212, 4, 136, 219, 30, 52, 175, 154, 128, 186, 109, 33, 230, 59,
    108, 15, 131, 124, 7, 247, 14, 124, 129, 204, 67, 119, 129, 220, 9, 28, 0, 185, 176, 211, 232,
    196, 59, 223, 115, 65, 15, 163, 115, 3, 52, 145, 159, 25, 152, 39, 55, 222, 219, 130, 176, 185,
    185, 141, 22, 104, 121, 46, 123, 165, 173, 174, 143, 42, 101, 211, 13, 90, 12, 79, 37, 182, 204,
    61, 185, 245, 153, 220, 153, 11, 173, 111, 200, 139, 137, 22, 113, 219, 65, 95, 201, 157, 185,
    80, 86, 221, 160, 159, 19, 96, 107, 117, 131, 79, 133, 50, 219, 154, 13, 62, 181, 155, 218, 22,
    221, 23, 96, 83, 66, 219, 234, 193, 227, 54, 165, 5, 0,
};
constexpr unsigned char kWithAlpha[] = {  // 360 bytes
    82, 73, 70, 70, 96, 1, 0, 0, 87, 69, 66, 80, 86, 80, 56, 88, 10, 0, 0, 0, 16, 0, 0, 0, 25, 0, 0,
    20, 0, 0, 65, 76, 80, 72, 153, 0, 0, 0, 17, 31, 32, 36, 32, 99, 35, 100, 205, 34, 17, 17, 228,
    128, 91, 219, 182, 170, 106, 227, 220, 139, 187, 67, 43, 148, 224, 90, 129, 67, 76, 70, 9, 148,
    224, 118, 176, 18, 160, 4, 98, 34, 34, 190, 148, 160, 251, 91, 17, 17, 253, 15, 121, 59, 201,
    43, 61, 242, 182, 19, 249, 199, 243, 151, 67, 94, 223, 73, 218, 228, 70, 146, 90, 26, 36, 169,
    164, 241, 73, 14, 148, 180, 31, 228, 90, 137, 132, 182, 241, 141, 150, 70, 8, 217, 138, 150, 80,
    48, 87, 206, 235, 182, 165, 137, 73, 69, 53, 44, 67, 228, 226, 170, 98, 136, 227, 154, 176, 87,
    44, 49, 220, 59, 170, 110, 49, 99, 146, 81, 77, 11, 112, 169, 168, 73, 8, 64, 89, 143, 26, 0,
    198, 218, 216, 2, 178, 75, 171, 109, 98, 48, 151, 219, 0, 0, 86, 80, 56, 32, 160, 0, 0, 0, 48,
    5, 0, 157, 1, 42, 26, 0, 21, 0, 63, 113, 160, 197, 89, 52, 171, 167, 163, 176, 8, 2, 144, 46, 9,
    108, 0, 157, 0, 31, 133, 197, 53, 125, 24, 77, 210, 113, 204, 115, 134, 37, 189, 134, 129, 233,
    228, 80, 66, 0, 0, 253, 32, 223, 147, 122, 17, 116, 87, 45, 121, 214, 46, 245, 146, 214, 28,
    158, 163, 183, 176, 194, 36, 155, 200, 219, 115, 170, 33, 156, 110, 7, 8, 247, 3, 203, 204, 94,
    218, 220, 162, 1, 73, 128, 85, 64, 114, 137, 254, 30, 148, 181, 100, 13, 231, 252, 128, 64, 162,
    254, 39, 214, 250, 254, 208, 174, 139, 91, 157, 0, 134, 93, 108, 18, 45, 140, 22, 65, 45, 174,
    128, 111, 90, 134, 151, 213, 60, 185, 91, 23, 137, 168, 94, 181, 30, 21, 191, 12, 21, 34, 217,
    146, 225, 4, 158, 237, 220, 164, 0, 0,
};

TEST(webp_damaged_files_stay_within_their_memory) {
  Random random(3);
  const Bytes whole[] = {Bytes(std::begin(kLossy), std::end(kLossy)),
                         Bytes(std::begin(kLossless), std::end(kLossless)),
                         Bytes(std::begin(kWithAlpha), std::end(kWithAlpha))};
  int taken = 0;
  for (const Bytes& item : whole) CHECK(decodes(item, random));
  for (int i = 0; i < 4000; ++i) {
    Bytes item = whole[i % 3];
    damage(item, random);
    taken += decodes(item, random);
  }
  CHECK(taken > 300);
}

#endif

}  // namespace
