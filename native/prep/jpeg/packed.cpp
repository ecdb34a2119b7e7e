#include "prep/jpeg/packed.hpp"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>

#include "prep/jpeg/packed_block.hpp"
#include "prep/kernels.hpp"

namespace coordl {
namespace {

static_assert(std::endian::native == std::endian::little, "items are written as they lie in memory");

constexpr std::uint8_t kVersion = 1;
constexpr int kRun = 16;  // blocks between two entries of the directory
constexpr int kRunAhead = 512;  // bytes of a run that are prefetched, about what one has

struct Header {
  char magic[4];
  std::uint8_t version, sampling;
  std::uint16_t unused_0;
  std::uint16_t width, height;
  std::uint32_t header_bytes, blocks_bytes, unused_1;
};
static_assert(sizeof(Header) == 24);

template <class T>
T load(const std::uint8_t* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

int runs(const Component& part) { return (part.across + kRun - 1) / kRun; }

std::size_t all_runs(const Frame& frame) {
  std::size_t count = 0;
  for (int c = 0; c < frame.components(); ++c) {
    count += std::size_t(runs(frame.component[c])) * frame.component[c].down;
  }
  return count;
}

}  // namespace

std::optional<PackedImage> PackedImage::open(std::span<const std::byte> item) noexcept {
  Header header;
  if (item.size() < sizeof header) return std::nullopt;
  std::memcpy(&header, item.data(), sizeof header);
  if (std::memcmp(header.magic, kPackedMagic, sizeof header.magic) != 0 || header.version != kVersion ||
      header.sampling > static_cast<std::uint8_t>(Sampling::quarter)) {
    return std::nullopt;
  }
  PackedImage image;
  Frame& frame = image.frame_;
  frame.width = header.width;
  frame.height = header.height;
  frame.sampling = static_cast<Sampling>(header.sampling);
  frame.derive();
  if (!frame.is_ours()) return std::nullopt;
  const std::size_t quantisers = std::size_t(frame.components()) * kCoefficients * 2;
  const std::size_t before = sizeof header + quantisers + 4 * all_runs(frame);
  if (item.size() != before + header.blocks_bytes + kPackedSlack + header.header_bytes) {
    return std::nullopt;
  }
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(item.data());
  std::size_t run = 0;
  for (int c = 0; c < frame.components(); ++c) {
    Component& part = frame.component[c];
    std::memcpy(part.quantiser.data(), bytes + sizeof header + std::size_t(c) * kCoefficients * 2,
                kCoefficients * 2);
    image.first_run_[c] = run;
    run += std::size_t(runs(part)) * part.down;
  }
  image.directory_ = bytes + sizeof header + quantisers;
  image.blocks_ = bytes + before;
  image.blocks_bytes_ = header.blocks_bytes;
  image.jpeg_header_ = item.last(header.header_bytes);
  return image;
}

const std::uint8_t* PackedImage::blocks(int component, int row, int column) const {
  const Component& part = frame_.component[component];
  const std::size_t run = first_run_[component] + std::size_t(row) * runs(part) + column / kRun;
  const std::uint8_t* at = blocks_ + load<std::uint32_t>(directory_ + 4 * run);
  for (int skipped = column % kRun; skipped > 0; --skipped) at += BlockHeader::read(at).block_bytes();
  return at;
}

void PackedImage::prefetch(int component, int row, int left, int right) const {
  const int count = runs(frame_.component[component]);
  const std::size_t first = first_run_[component] + std::size_t(row) * count;
  const auto entry = [&](int run) { return blocks_ + load<std::uint32_t>(directory_ + 4 * (first + run)); };
  const std::uint8_t* at = entry(left / kRun);
  const std::uint8_t* const end = entry((right - 1) / kRun) + kRunAhead;
  for (; at < end; at += 64) __builtin_prefetch(at);
}

bool PackedImage::check() const noexcept {
  for (int c = 0; c < frame_.components(); ++c) {
    const Component& part = frame_.component[c];
    for (const std::uint16_t value : part.quantiser) {
      if (value > 0x7FFF) return false;
    }
    for (int row = 0; row < part.down; ++row) {
      // Runs of a row follow one another: a reader goes through them without looking up the next.
      const std::size_t first = first_run_[c] + std::size_t(row) * runs(part);
      std::uint64_t at = load<std::uint32_t>(directory_ + 4 * first);
      for (int column = 0; column < part.across; ++column) {
        if (column % kRun == 0 &&
            at != load<std::uint32_t>(directory_ + 4 * (first + column / kRun))) {
          return false;
        }
        if (at >= blocks_bytes_) return false;  // the header may reach into the slack
        const BlockHeader header = BlockHeader::read(blocks_ + at);
        if (header.tiles > kTiles) return false;
        for (int tile = 0; tile < kTiles; ++tile) {
          if (!is_width(header.widths >> (4 * tile) & 15)) return false;
        }
        if (std::abs(header.dc) * part.quantiser[0] > kMostDc) return false;
        at += static_cast<std::uint64_t>(header.block_bytes());
        if (at > blocks_bytes_) return false;
      }
    }
  }
  return true;
}

bool PackedSource::read(int mcu_row, CoefficientRow& row) {
  const Frame& frame = image_.frame();
  const BlockWindow& window = row.window();
  const Kernels& kernel = kernels();
  for (int c = 0; c < frame.components(); ++c) {
    const int down = frame.blocks_down(c), count = window.right[c] - window.left[c];
    for (int y = 0; y < down; ++y) {
      const int block_row = mcu_row * down + y;
      if (block_row < window.top[c] || block_row >= window.bottom[c]) continue;
      const int next = block_row + down;
      if (next < window.bottom[c]) image_.prefetch(c, next, window.left[c], window.right[c]);
      kernel.unpack(image_.blocks(c, block_row, window.left[c]), count, row.row(c, y));
    }
  }
  return true;
}

bool pack(const Frame& frame, CoefficientSource& source, std::span<const std::byte> jpeg_header,
          CoefficientRow& row, std::vector<std::byte>& out) {
  const std::size_t directory = sizeof(Header) + std::size_t(frame.components()) * kCoefficients * 2;
  const std::size_t before = directory + 4 * all_runs(frame);
  row.prepare(frame, BlockWindow::whole(frame));
  std::array<std::size_t, 3> first_run{};
  std::size_t row_blocks = 0;
  for (int c = 0; c < frame.components(); ++c) {
    const Component& part = frame.component[c];
    if (c > 0) {
      const Component& last = frame.component[c - 1];
      first_run[c] = first_run[c - 1] + std::size_t(runs(last)) * last.down;
    }
    row_blocks += std::size_t(part.across) * frame.blocks_down(c);
  }
  const std::size_t most_per_row = row_blocks * kMostBlockBytes + 16;
  std::size_t at = before;
  for (int mcu_row = 0; mcu_row < frame.mcus_down(); ++mcu_row) {
    if (!source.read(mcu_row, row)) return false;
    if (out.size() < at + most_per_row) out.resize(std::max(at + most_per_row, out.size() * 2));
    auto* const bytes = reinterpret_cast<std::uint8_t*>(out.data());
    for (int c = 0; c < frame.components(); ++c) {
      const Component& part = frame.component[c];
      const int down = frame.blocks_down(c);
      const int most_dc = kMostDc / std::max<int>(1, part.quantiser[0]);
      for (int y = 0; y < down && mcu_row * down + y < part.down; ++y) {
        const std::size_t first = first_run[c] + std::size_t(mcu_row * down + y) * runs(part);
        for (int column = 0; column < part.across; ++column) {
          if (column % kRun == 0) {
            const std::size_t offset = at - before;
            if (offset > 0xFFFFFFFFu) return false;
            const auto entry = static_cast<std::uint32_t>(offset);
            std::memcpy(bytes + directory + 4 * (first + column / kRun), &entry, sizeof entry);
          }
          const std::int16_t* block = row.row(c, y) + std::size_t(column) * kCoefficients;
          if (std::abs(block[0]) > most_dc) return false;
          const std::uint8_t* end = kernels().pack(block, bytes + at);
          if (end == nullptr) return false;
          at = static_cast<std::size_t>(end - bytes);
        }
      }
    }
  }
  if (at - before > 0xFFFFFFFFu) return false;
  Header header{};
  std::memcpy(header.magic, kPackedMagic, sizeof header.magic);
  header.version = kVersion;
  header.sampling = static_cast<std::uint8_t>(frame.sampling);
  header.width = static_cast<std::uint16_t>(frame.width);
  header.height = static_cast<std::uint16_t>(frame.height);
  header.header_bytes = static_cast<std::uint32_t>(jpeg_header.size());
  header.blocks_bytes = static_cast<std::uint32_t>(at - before);
  out.resize(at + kPackedSlack + jpeg_header.size());
  std::memcpy(out.data(), &header, sizeof header);
  for (int c = 0; c < frame.components(); ++c) {
    std::memcpy(out.data() + sizeof header + std::size_t(c) * kCoefficients * 2,
                frame.component[c].quantiser.data(), kCoefficients * 2);
  }
  std::memset(out.data() + at, 0, kPackedSlack);
  if (!jpeg_header.empty()) {
    std::memcpy(out.data() + at + kPackedSlack, jpeg_header.data(), jpeg_header.size());
  }
  return true;
}

}  // namespace coordl
