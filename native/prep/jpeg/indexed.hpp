// Indexed items: a baseline JPEG's own data, with points inside it to begin decoding at.
//
// Layout, all numbers little-endian:
//
//   0   char[4]  "CdIx"
//   4   u8       version, 1
//   5   u8       MCUs between two points of a row
//   6   u16      0
//   8   u32      bytes of the JPEG's header
//   12  u32      points
//   16  u32      bytes of the data
//   20  u32      0
//   24           points, in order of MCU rows: u32 bit, i16 DC prediction of each of 3 components
//                the JPEG's header, from SOI up to the scan's data
//                the data without stuffed bytes; kBitSlack zero bytes
//
// A few percent larger than the file. Files with restart markers have none.
#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "prep/jpeg/coefficients.hpp"
#include "prep/jpeg/parse.hpp"
#include "prep/jpeg/scan.hpp"

namespace coordl {

inline constexpr char kIndexedMagic[] = "CdIx";

// A view of an indexed item, which must outlive it.
class IndexedImage {
 public:
  // Nothing where the item is no indexed one, or its sizes do not agree.
  static std::optional<IndexedImage> open(std::span<const std::byte> item) noexcept;

  const Frame& frame() const { return parsed_.frame; }
  const ParsedJpeg& parsed() const { return parsed_; }
  std::span<const std::uint8_t> data() const { return data_; }
  // The last point of an MCU row that is not behind MCU `mcu`, and the MCU it stands before.
  ScanPoint point(int mcu_row, int mcu, int& stands_before) const;

 private:
  ParsedJpeg parsed_;
  const std::uint8_t* points_ = nullptr;
  std::span<const std::uint8_t> data_;
  int step_ = 1;
};

class IndexedSource final : public CoefficientSource {
 public:
  bool open(const IndexedImage& image);
  bool read(int mcu_row, CoefficientRow& row) override;

 private:
  std::optional<IndexedImage> image_;
  ScanDecoder scan_;
};

// Indexes a file into `out` (replaced). False when its data are damaged or it has restart markers.
bool make_indexed(const ParsedJpeg& parsed, ScanDecoder& scan, CoefficientRow& row,
                  std::vector<std::byte>& out);

}  // namespace coordl
