// Our own reading of a JPEG's markers: the common kind of file, strictly.
//
// Taken are files of one baseline scan (SOF0, or SOF1 with 8 bits) whose Frame is ours and that end in
// an end-of-image marker. Everything else, and everything that libjpeg would warn of, is left to
// libjpeg: it knows what Pillow would make of it.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "prep/jpeg/frame.hpp"
#include "prep/pixels.hpp"

namespace coordl {

// A Huffman table as a DHT segment defines it: how many codes of each length, and their symbols.
struct HuffmanSpec {
  std::array<std::uint8_t, 17> counts{};  // [1, 16]
  std::array<std::uint8_t, 256> symbols{};
  int size = 0;  // symbols that count; 0: no such table
  friend bool operator==(const HuffmanSpec&, const HuffmanSpec&) = default;
};

struct ParsedJpeg {
  Frame frame;
  std::array<HuffmanSpec, 3> dc, ac;     // of each component
  int restart_interval = 0;              // MCUs; 0: none
  std::span<const std::byte> header;     // from SOI up to the scan's data
  std::span<const std::byte> scan;       // entropy-coded data, without the marker that ends it
};

// Pure. The views point into `item`.
std::optional<ParsedJpeg> parse_jpeg(std::span<const std::byte> item) noexcept;

// The same of a header alone, as ParsedJpeg::header holds it; `scan` stays empty.
std::optional<ParsedJpeg> parse_jpeg_header(std::span<const std::byte> header) noexcept;
// What comes before the data of the first scan, whatever kind of JPEG it is; empty when none comes.
std::span<const std::byte> jpeg_header_of(std::span<const std::byte> item) noexcept;

}  // namespace coordl
