// Pixels of a region of a JPEG, row by row, from its coefficients: inverse DCT, smooth upsampling,
// YCbCr -> RGB. The pixels are those of libjpeg-turbo's full decode with the accurate DCT.
#pragma once
#include <array>
#include <cstdint>
#include <vector>

#include "prep/jpeg/coefficients.hpp"
#include "prep/pixels.hpp"

namespace coordl {

// Not thread-safe; one object per thread, reused. Only MCU rows that the region touches are decoded,
// when a row of theirs is first asked for; two of them are held.
class RegionRows final : public PixelRows {
 public:
  // Both arguments must outlive the reading. The region lies inside the image.
  void begin(const Frame& frame, CoefficientSource& source, const Region& region);
  bool read(int row, std::uint16_t* const* rgb) override;

 private:
  void open_planes();
  bool load(int mcu_row);
  const std::uint8_t* sample(int c, int x, int y) const;
  void chroma_sums(int y);

  const Frame* frame_ = nullptr;
  CoefficientSource* source_ = nullptr;
  Region region_;
  CoefficientRow coefficients_;
  std::array<std::vector<std::uint8_t>, 3> planes_;  // two MCU rows each, by turns
  std::array<std::ptrdiff_t, 3> stride_{};
  std::array<std::vector<std::int16_t>, 2> sums_;
  int first_ = 0, loaded_ = 0;  // MCU rows [first_, loaded_) were loaded
};

}  // namespace coordl
