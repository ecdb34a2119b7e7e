// A window on a picture that goes on beyond its borders: constant, edge, reflect or symmetric, with
// the results of numpy.pad.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "prep/pass.hpp"

namespace coordl {

// Which source pixel each pixel of the window takes, on one axis.
class PaddedAxis {
 public:
  // The window [offset, offset + outputs) of `source` pixels; any of it may lie outside.
  void build(PadMode mode, int source, int offset, int outputs);

  int outputs() const { return static_cast<int>(taken_.size()); }
  int begin() const { return begin_; }  // source pixels [begin, end) are read; never empty
  int end() const { return end_; }
  int taken(int output) const { return taken_[output]; }  // counted from begin(); -1: the fill

 private:
  int begin_ = 0, end_ = 0;
  std::vector<int> taken_;
};

// Levels and the steps from one to the next, interleaved or in planes.
struct Samples {
  const std::uint8_t* first;
  std::ptrdiff_t channel, row, column;
};

// Copies pixels whose first one is (x.begin(), y.begin()) to levels, (3, y.outputs(), x.outputs()).
void place(const Samples& pixels, const PaddedAxis& x, const PaddedAxis& y,
           const std::array<std::uint8_t, 3>& fill, std::uint8_t* levels);

}  // namespace coordl
