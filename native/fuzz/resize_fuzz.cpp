// Any sizes, crops and rows through the resize: inside its bounds, the same with every table of kernels,
// and near what real numbers give.
//
// An input is eight numbers and a flag; rows are made from it.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "fuzz/fuzz.hpp"
#include "prep/resample.hpp"

namespace coordl::fuzz {
namespace {

constexpr int kMostEdge = 900;

struct Task {
  std::uint16_t source[2], resized[2], offset[2], outputs[2], flags;
};
static_assert(sizeof(Task) == 18);

// Rows that use all the room the contract gives them.
class MadeRows final : public PixelRows {
 public:
  MadeRows(std::uint64_t seed, int kind, int width, int height) : width_(width) {
    Chance chance(seed);
    levels_.resize(std::size_t(3) * width * height);
    for (auto& level : levels_) {
      level = kind == 0 ? 255 : kind == 1 ? static_cast<std::uint8_t>(255 * chance.below(2)) : chance.byte();
    }
  }
  bool read(int row, std::uint16_t* const* rgb) override {
    HOLDS(row == next_++);
    for (int c = 0; c < 3; ++c) {
      std::fill(rgb[c] - kRowMargin, rgb[c] + width_ + kSlack / 2, 0xFFFF);
      for (int i = 0; i < width_; ++i) rgb[c][i] = static_cast<std::uint16_t>(level(c, i, row) << 8);
    }
    return true;
  }
  int level(int c, int x, int y) const { return levels_[(std::size_t(y) * width_ + x) * 3 + c]; }

 private:
  int width_, next_ = 0;
  Bytes levels_;
};

// Weights of one output of an axis, in real numbers: (source pixel, weight).
std::vector<std::pair<int, double>> exact_weights(int source, int resized, int output) {
  const double scale = double(source) / resized, support = std::max(scale, 1.0);
  const double center = (output + 0.5) * scale;
  std::vector<std::pair<int, double>> weights;
  double sum = 0;
  for (int i = std::max(0, int(center - support)); i < std::min<double>(source, center + support + 1); ++i) {
    const double weight = std::max(0.0, 1 - std::abs((i + 0.5 - center) / support));
    weights.emplace_back(i, weight);
    sum += weight;
  }
  for (auto& [pixel, weight] : weights) weight /= sum;
  return weights;
}

}  // namespace

std::vector<Bytes> seeds() {
  std::vector<Bytes> all;
  Chance chance(3);
  for (int count = 0; count < 64; ++count) {
    Task task{};
    for (int axis = 0; axis < 2; ++axis) {
      task.source[axis] = static_cast<std::uint16_t>(chance.within(1, count < 32 ? 80 : 600));
      task.resized[axis] = static_cast<std::uint16_t>(chance.within(1, count % 2 == 0 ? 40 : 300));
      task.outputs[axis] = static_cast<std::uint16_t>(chance.within(1, task.resized[axis]));
      const int most = task.resized[axis] - task.outputs[axis];
      task.offset[axis] = static_cast<std::uint16_t>(chance.within(0, most));
    }
    task.flags = static_cast<std::uint16_t>(chance.next());
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(&task);
    all.emplace_back(bytes, bytes + sizeof task);
  }
  return all;
}

void mutate(Bytes& input, Chance& chance) {
  input.resize(sizeof(Task));
  std::uint16_t values[9];
  std::memcpy(values, input.data(), sizeof values);
  std::uint16_t& value = values[chance.below(9)];
  constexpr std::uint16_t edges[] = {1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 224, 256};
  switch (chance.below(4)) {
    case 0: value = edges[chance.below(16)]; break;
    case 1: value = static_cast<std::uint16_t>(value + chance.within(-2, 2)); break;
    case 2: value = static_cast<std::uint16_t>(chance.next() >> 20); break;
    default: value = static_cast<std::uint16_t>(chance.within(1, 100));
  }
  std::memcpy(input.data(), values, sizeof values);
}

void check(std::span<const std::uint8_t> input) {
  if (input.size() < sizeof(Task)) return;
  Task task;
  std::memcpy(&task, input.data(), sizeof task);
  int source[2], resized[2], offset[2], outputs[2];
  Axis axes[2];
  for (int axis = 0; axis < 2; ++axis) {  // any number, folded into what callers may ask for
    source[axis] = task.source[axis] % kMostEdge + 1;
    resized[axis] = task.resized[axis] % kMostEdge + 1;
    outputs[axis] = task.outputs[axis] % resized[axis] + 1;
    offset[axis] = task.offset[axis] % (resized[axis] - outputs[axis] + 1);
    if ((task.flags & 0x30) != 0) outputs[axis] = std::min(outputs[axis], 70);
    axes[axis].build(source[axis], resized[axis], offset[axis], outputs[axis]);
    const int begin = axes[axis].begin(), end = axes[axis].end();
    HOLDS(0 <= begin && begin < end && end <= source[axis]);
    const Taps taps = axes[axis].taps();
    for (int o = 0; o < taps.outputs; ++o) {
      HOLDS(taps.first[o] >= 0 && taps.first[o] < axes[axis].end() - axes[axis].begin());
      int sum = 0;
      for (int t = 0; t < taps.count; ++t) {
        sum += taps.weights[o * taps.count + t];
        HOLDS(taps.weights[o * taps.count + t] == 0 || begin + taps.first[o] + t < end);
      }
      HOLDS(sum == 65536 || sum == 65535);
    }
  }
  if (std::int64_t(source[0]) * source[1] + std::int64_t(outputs[0]) * outputs[1] > 200'000) return;
  const bool possible = axes[0].taps().count + axes[1].taps().count <= kMostTaps;
  const bool flip = (task.flags & 1) != 0;
  Pass pass;
  pass.geometry.out_width = outputs[0];
  pass.geometry.out_height = outputs[1];
  pass.pixel = (task.flags & 2) != 0 ? Pixel::float32 : Pixel::uint8;
  static Strip reused;  // and a new one, whose memory ends where it must
  std::optional<std::vector<std::uint8_t>> plain;
  const std::size_t misaligned = pass.pixel == Pixel::uint8 ? task.flags >> 12 : 0;
  for_each_table([&] {
    for (const bool anew : {true, false}) {
      Strip own;
      MadeRows rows(hash_of(input), task.flags >> 2 & 3, axes[0].end() - axes[0].begin(),
                    axes[1].end() - axes[1].begin());
      std::vector<std::uint8_t> out(pass.sample_bytes() + misaligned);
      const std::span<std::uint8_t> to(out.data() + misaligned, pass.sample_bytes());
      const bool made = resample(rows, axes[0], axes[1], flip, pass, std::as_writable_bytes(to),
                                 anew ? own : reused);
      HOLDS(made == possible);
      if (!plain) plain = out;
      HOLDS(out == *plain);
    }
  });
  if (!possible || pass.pixel != Pixel::uint8) return;
  const MadeRows rows(hash_of(input), task.flags >> 2 & 3, axes[0].end() - axes[0].begin(),
                      axes[1].end() - axes[1].begin());
  // One level from rounding, and what products lose (resample.hpp).
  const double most = 1.0 + (axes[0].taps().count + axes[1].taps().count) / 512.0;
  for (int sample = 0; sample < 12; ++sample) {
    const int x = int(hash_of(input) >> sample) % outputs[0], y = int(hash_of(input) >> (2 * sample)) % outputs[1];
    if (x < 0 || y < 0) continue;
    for (int c = 0; c < 3; ++c) {
      double exact = 0;
      for (const auto& [row, down] : exact_weights(source[1], resized[1], offset[1] + y)) {
        for (const auto& [column, across] : exact_weights(source[0], resized[0], offset[0] + x)) {
          const bool inside = row >= axes[1].begin() && row < axes[1].end() && column >= axes[0].begin() &&
                              column < axes[0].end();
          if (!inside) continue;
          exact += down * across * rows.level(c, column - axes[0].begin(), row - axes[1].begin());
        }
      }
      const int place = flip ? outputs[0] - 1 - x : x;
      const std::size_t at = misaligned + (std::size_t(c) * outputs[1] + y) * outputs[0] + place;
      HOLDS(std::abs((*plain)[at] - exact) <= most);
    }
  }
}

}  // namespace coordl::fuzz
