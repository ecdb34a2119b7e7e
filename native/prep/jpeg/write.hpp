// The way back: items of ours as JPEG files, for `coordl unpack`.
//
// Coefficients, quantisers, and the application and comment segments before the first scan are those
// of the original file. Its entropy code is not: scans, restart markers and Huffman tables are ours.
#pragma once
#include <cstddef>
#include <span>
#include <vector>

#include "prep/jpeg/indexed.hpp"
#include "prep/jpeg/packed.hpp"

namespace coordl {

// A packed item that passed check() as a baseline JPEG with optimal Huffman tables, in `out`
// (replaced). Without the JPEG's own header it gets a JFIF one. False when a coefficient has no
// baseline code.
bool write_packed(const PackedImage& image, std::vector<std::byte>& out);

// An indexed item: header, data with the bytes stuffed again, end-of-image marker. Equals the file
// up to the bits that fill the last byte and what came behind the end-of-image marker.
void write_indexed(const IndexedImage& image, std::vector<std::byte>& out);

// Whether every coefficient has a baseline code: true of what any encoder makes of 8-bit samples, not
// of all that a file can say. A little stricter than write_packed(), and much faster. For a packed
// item that passed check().
bool has_baseline_codes(const PackedImage& image);

// Either, after a check of the whole item. False: no item of ours, or damaged.
bool unpack_item(std::span<const std::byte> item, std::vector<std::byte>& out);

}  // namespace coordl
