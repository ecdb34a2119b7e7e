#include "prep/jpeg/scan.hpp"

#include <algorithm>
#include <cstring>

#include "prep/kernels.hpp"

namespace coordl {

void CoefficientRow::prepare(const Frame& frame, const BlockWindow& window) {
  window_ = window;
  std::size_t total = 0;
  for (int c = 0; c < frame.components(); ++c) {
    start_[c] = total;
    // A spare block ends each row: an end of block is written behind its block (see decode_block).
    pitch_[c] = std::size_t(window.right[c] - window.left[c] + 1) * kCoefficients;
    total += pitch_[c] * frame.blocks_down(c);
  }
  total += kSpareBlocks * kCoefficients;
  if (values_.size() < total) values_.resize(total);
}

const HuffmanTable* HuffmanTables::find(const HuffmanSpec& spec, bool ac) {
  Entry* oldest = &entries_[0];
  for (Entry& entry : entries_) {
    if (entry.asked < oldest->asked) oldest = &entry;
    if (entry.asked == 0 || entry.ac != ac || entry.spec != spec) continue;
    entry.asked = ++asked_;
    return &entry.table;
  }
  oldest->asked = 0;
  if (!oldest->table.build(spec, ac)) return nullptr;
  oldest->spec = spec;
  oldest->ac = ac;
  oldest->asked = ++asked_;
  return &oldest->table;
}

bool PlainScan::fill(std::span<const std::byte> scan) {
  bytes.resize(scan.size() + kBitSlack);
  interval_ends.clear();
  const auto* from = reinterpret_cast<const std::uint8_t*>(scan.data());
  const auto* const end = from + scan.size();
  std::uint8_t* to = bytes.data();
  for (int restarts = 0; from < end;) {
    const void* hit = std::memchr(from, 0xFF, static_cast<std::size_t>(end - from));
    const auto* stop = hit == nullptr ? end : static_cast<const std::uint8_t*>(hit);
    std::memcpy(to, from, static_cast<std::size_t>(stop - from));
    to += stop - from;
    if (hit == nullptr) break;
    if (stop + 1 == end) return false;
    if (stop[1] == 0) {
      *to++ = 0xFF;
    } else {  // the parser let only restarts through
      if (stop[1] != 0xD0 + (restarts++ & 7)) return false;
      interval_ends.push_back(static_cast<std::size_t>(to - bytes.data()));
    }
    from = stop + 2;
  }
  const auto size = static_cast<std::size_t>(to - bytes.data());
  interval_ends.push_back(size);
  bytes.resize(size + kBitSlack);
  std::memset(bytes.data() + size, 0, kBitSlack);
  return true;
}

bool ScanDecoder::find_tables(const ParsedJpeg& parsed) {
  frame_ = &parsed.frame;
  points_ = nullptr;
  for (int c = 0; c < frame_->components(); ++c) {
    dc_[c] = tables_.find(parsed.dc[c], false);
    ac_[c] = tables_.find(parsed.ac[c], true);
    if (dc_[c] == nullptr || ac_[c] == nullptr) return false;
    most_dc_[c] = kMostDc / std::max<int>(1, frame_->component[c].quantiser[0]);
  }
  return true;
}

bool ScanDecoder::open(const ParsedJpeg& parsed) {
  if (!find_tables(parsed) || !scan_.fill(parsed.scan)) return false;
  data_ = scan_.data();
  interval_ = parsed.restart_interval;
  next_interval_ = 0;
  left_in_interval_ = 0;
  next_mcu_row_ = 0;
  prediction_ = {};
  reader_ = BitReader(data_.data(), 0);
  end_bit_ = std::uint64_t(data_.size()) * 8;
  if (interval_ == 0) {
    if (scan_.interval_ends.size() != 1) return false;
    left_in_interval_ = -1;  // never reached
  }
  return true;
}

bool ScanDecoder::open(const ParsedJpeg& parsed, std::span<const std::uint8_t> plain) {
  data_ = plain;
  end_bit_ = std::uint64_t(data_.size()) * 8;
  return find_tables(parsed);
}

// The bits left of the interval before must be the padding of its last byte.
bool ScanDecoder::begin_interval() {
  std::size_t start = 0;
  if (next_interval_ > 0) {
    start = scan_.interval_ends[next_interval_ - 1];
    const std::uint64_t position = reader_.position();
    if (position > start * 8 || position + 8 <= start * 8) return false;
  }
  if (next_interval_ >= scan_.interval_ends.size()) return false;
  end_bit_ = std::uint64_t(scan_.interval_ends[next_interval_++]) * 8;
  left_in_interval_ = interval_;
  prediction_ = {};
  reader_ = BitReader(data_.data(), start * 8);
  return true;
}

// Piece by piece: compilers make one memset of it a string instruction, which starts slowly.
inline void clear(std::int16_t* block) {
  for (int i = 0; i < kCoefficients; i += 8) std::memset(block + i, 0, 8 * sizeof *block);
}

bool ScanDecoder::decode_mcu(int mcu, CoefficientRow* row) {
  const Frame& frame = *frame_;
  BitReader reader = reader_;  // in registers
  for (int c = 0; c < frame.components(); ++c) {
    const int across = frame.blocks_across(c), down = frame.blocks_down(c);
    for (int y = 0; y < down; ++y) {
      for (int x = mcu * across; x < (mcu + 1) * across; ++x) {
        bool good;
        if (row != nullptr && x >= row->window().left[c] && x < row->window().right[c]) {
          std::int16_t* out =
              row->row(c, y) + std::size_t(x - row->window().left[c]) * kCoefficients;
          clear(out);
          good = decode_block<true>(reader, *dc_[c], *ac_[c], prediction_[c], out);
        } else {
          good = decode_block<false>(reader, *dc_[c], *ac_[c], prediction_[c], nullptr);
        }
        if (!good || std::abs(prediction_[c]) > most_dc_[c]) return false;
      }
    }
  }
  reader_ = reader;
  return reader.position() <= end_bit_;
}

bool ScanDecoder::next_row(CoefficientRow* row) {
  const int mcus = frame_->mcus_across();
  for (int mcu = 0; mcu < mcus; ++mcu) {
    if (left_in_interval_ == 0 && !begin_interval()) return false;
    if (points_ != nullptr && mcu % step_ == 0) points_->push_back({reader_.position(), prediction_});
    if (!decode_mcu(mcu, row)) return false;
    if (left_in_interval_ > 0) --left_in_interval_;
  }
  return true;
}

// Coefficients no image has are libjpeg's affair: what it makes of them is what Pillow shows.
bool ScanDecoder::in_range(CoefficientRow& row) const {
  const BlockWindow& window = row.window();
  for (int c = 0; c < frame_->components(); ++c) {
    for (int y = 0; y < frame_->blocks_down(c); ++y) {
      if (!kernels().in_range(row.row(c, y), window.right[c] - window.left[c],
                              frame_->component[c].quantiser.data())) {
        return false;
      }
    }
  }
  return true;
}

bool ScanDecoder::read(int mcu_row, CoefficientRow& row) {
  while (next_mcu_row_ < mcu_row) {
    ++next_mcu_row_;
    if (!next_row(nullptr)) return false;
  }
  ++next_mcu_row_;
  return next_row(&row) && in_range(row);
}

bool ScanDecoder::read_from(const ScanPoint& point, int first, int last, CoefficientRow& row) {
  if (point.bit > data_.size() * 8) return false;
  prediction_ = point.prediction;
  reader_ = BitReader(data_.data(), point.bit);
  for (int mcu = first; mcu < last; ++mcu) {
    if (!decode_mcu(mcu, &row)) return false;
  }
  return in_range(row);
}

bool ScanDecoder::ended_well() const {
  const std::uint64_t position = reader_.position(), size = data_.size() * 8;
  const bool all = interval_ == 0 || next_interval_ == scan_.interval_ends.size();
  return all && position <= size && position + 8 > size;
}

}  // namespace coordl
