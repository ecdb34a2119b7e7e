// Packed items: JPEG coefficients without entropy code, so that a crop costs what it shows.
//
// Layout, all numbers little-endian:
//
//   0   char[4]  "CdPk"
//   4   u8       version, 1
//   5   u8       sampling (frame.hpp)
//   6   u16      0
//   8   u16      width, height in pixels
//   12  u32      bytes of the JPEG's own header kept behind the blocks, 0 for none
//   16  u32      bytes of all blocks
//   20  u32      0
//   24           quantisers: 64 u16 for each component, natural order
//                directory: u32 for each run of 16 blocks of a row, component by component, row by
//                row: where the run begins, counted from the first block
//                blocks (packed_block.hpp)
//                kPackedSlack zero bytes: kernels load whole vectors
//                the JPEG's header, from SOI up to the scan's data
//
// The same coefficients as the JPEG's, so the same pixels. Who made an item in this process or took it
// from the arena may read it as it is; bytes from anywhere else go through check() first.
#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "prep/jpeg/coefficients.hpp"
#include "prep/jpeg/frame.hpp"

namespace coordl {

inline constexpr char kPackedMagic[] = "CdPk";
inline constexpr std::size_t kPackedSlack = 32;

// A view of a packed item, which must outlive it. Immutable: any thread may use it.
class PackedImage {
 public:
  // Nothing where the item is no packed one, or its header and sizes do not agree.
  static std::optional<PackedImage> open(std::span<const std::byte> item) noexcept;

  // Walks directory and blocks: false when reading any part could leave the item.
  bool check() const noexcept;

  const Frame& frame() const { return frame_; }
  std::span<const std::byte> jpeg_header() const { return jpeg_header_; }
  // The first of the blocks from `column` of a row.
  const std::uint8_t* blocks(int component, int row, int column) const;
  // Has blocks [left, right) of a row brought near: they will be read soon.
  void prefetch(int component, int row, int left, int right) const;

 private:
  Frame frame_;
  const std::uint8_t* directory_ = nullptr;
  const std::uint8_t* blocks_ = nullptr;
  std::size_t blocks_bytes_ = 0;
  std::span<const std::byte> jpeg_header_;
  std::array<std::size_t, 3> first_run_{};  // of each component, in the directory
};

// Reads a checked packed item.
class PackedSource final : public CoefficientSource {
 public:
  void open(const PackedImage& image) { image_ = image; }
  bool read(int mcu_row, CoefficientRow& row) override;

 private:
  PackedImage image_;
};

// Packs an image whose coefficients `source` gives, into `out` (replaced). False when the source is
// damaged or a coefficient is beyond what a block can hold (no 8-bit image needs that).
bool pack(const Frame& frame, CoefficientSource& source, std::span<const std::byte> jpeg_header,
          CoefficientRow& row, std::vector<std::byte>& out);

}  // namespace coordl
