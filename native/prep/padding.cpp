#include "prep/padding.hpp"

#include <algorithm>

namespace coordl {
namespace {

constexpr int kFill = -1;

int modulo(int value, int period) {
  const int rest = value % period;
  return rest < 0 ? rest + period : rest;
}

int source_of(PadMode mode, int at, int source) {
  if (at >= 0 && at < source) return at;
  switch (mode) {
    case PadMode::constant: return kFill;
    case PadMode::edge: return std::clamp(at, 0, source - 1);
    case PadMode::symmetric: {
      const int rest = modulo(at, 2 * source);
      return rest < source ? rest : 2 * source - 1 - rest;
    }
    case PadMode::reflect: break;
  }
  if (source == 1) return 0;
  const int period = 2 * (source - 1), rest = modulo(at, period);
  return rest < source ? rest : period - rest;
}

}  // namespace

void PaddedAxis::build(PadMode mode, int source, int offset, int outputs) {
  taken_.resize(outputs);
  begin_ = source;
  end_ = 0;
  for (int o = 0; o < outputs; ++o) {
    const int taken = taken_[o] = source_of(mode, offset + o, source);
    if (taken == kFill) continue;
    begin_ = std::min(begin_, taken);
    end_ = std::max(end_, taken + 1);
  }
  if (begin_ >= end_) {  // the window misses the picture; one pixel proves that it decodes
    begin_ = 0;
    end_ = 1;
  }
  for (int& taken : taken_) {
    if (taken != kFill) taken -= begin_;
  }
}

void place(const Samples& pixels, const PaddedAxis& x, const PaddedAxis& y,
           const std::array<std::uint8_t, 3>& fill, std::uint8_t* levels) {
  const int width = x.outputs(), height = y.outputs();
  for (int channel = 0; channel < 3; ++channel) {
    for (int row = 0; row < height; ++row) {
      const bool outside = y.taken(row) == kFill;
      const std::uint8_t* source =
          pixels.first + channel * pixels.channel + (outside ? 0 : y.taken(row) * pixels.row);
      for (int column = 0; column < width; ++column) {
        const int taken = x.taken(column);
        *levels++ = outside || taken == kFill ? fill[channel] : source[taken * pixels.column];
      }
    }
  }
}

}  // namespace coordl
