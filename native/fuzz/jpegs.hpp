// JPEGs of every kind libjpeg-turbo can write, and changes to them that a parser has to think about.
#pragma once
#include <cstdint>
#include <vector>

#include "fuzz/fuzz.hpp"

namespace coordl::fuzz {

enum class Content { smooth, noise, flat, stripes };

struct JpegOptions {
  int width = 16, height = 16;
  int components = 3;        // 1: grey; 3: YCbCr; 4: CMYK
  int across = 2, down = 2;  // sampling factors of the first component; the others have 1
  int quality = 75;
  int restart = 0;           // MCUs
  bool progressive = false, optimise = false, arithmetic = false, rgb = false;
  Content content = Content::smooth;
};

Bytes encode(const JpegOptions& options, Chance& chance);
// All kinds, in sizes from one pixel on.
std::vector<Bytes> jpegs_of_every_kind();
// Changes a marker segment, their order, or the data of a scan.
void mutate_jpeg(Bytes& jpeg, Chance& chance);
// Puts in tables whose codes are as long as codes get, so that a few bits of data ask for many.
void put_in_longest_codes(Bytes& jpeg);

}  // namespace coordl::fuzz
