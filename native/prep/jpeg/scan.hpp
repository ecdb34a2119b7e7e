// The entropy-coded data of a JPEG, MCU row by MCU row.
//
// Not thread-safe; one object per thread, reused from item to item.
#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "prep/jpeg/coefficients.hpp"
#include "prep/jpeg/huffman.hpp"
#include "prep/jpeg/parse.hpp"
#include "prep/keep.hpp"

namespace coordl {

// Huffman tables by their definition: most files of a data set share one pair.
class HuffmanTables {
 public:
  // Null where the table is none. Valid until as many others as there are places were asked for.
  const HuffmanTable* find(const HuffmanSpec& spec, bool ac);

 private:
  struct Entry {
    HuffmanSpec spec;
    HuffmanTable table;
    bool ac = false;
    std::uint64_t asked = 0;  // when it last was; 0: nothing here
  };
  std::array<Entry, 8> entries_{};  // an item has six at most
  std::uint64_t asked_ = 0;
};

// Where decoding can begin: the bit of an MCU's first code and the DC predictions before it.
struct ScanPoint {
  std::uint64_t bit = 0;
  std::array<int, 3> prediction{};
};

// The data of a scan without stuffed bytes and restart markers.
struct PlainScan {
  std::vector<std::uint8_t> bytes;      // kBitSlack zeros follow the data
  std::vector<std::size_t> interval_ends;  // byte each restart interval ends at; the last: all
  // False when restart markers are out of order.
  bool fill(std::span<const std::byte> scan);
  std::span<const std::uint8_t> data() const { return {bytes.data(), bytes.size() - kBitSlack}; }
};

class ScanDecoder final : public CoefficientSource {
 public:
  // Begins at the first MCU of a file. False where a table is missing or the data are malformed.
  // Keeps a reference to `parsed.frame`.
  bool open(const ParsedJpeg& parsed);
  // Begins nowhere: read_from() says where. `plain` has kBitSlack readable bytes behind it.
  bool open(const ParsedJpeg& parsed, std::span<const std::uint8_t> plain);

  // Rows above the first one asked for are decoded and dropped.
  bool read(int mcu_row, CoefficientRow& row) override;
  // Blocks of MCUs [first, last) of a row from a point before MCU `first`.
  bool read_from(const ScanPoint& point, int first, int last, CoefficientRow& row);
  // After the last row: whether the data ended where they should.
  bool ended_well() const;

  // From now on, appends a point for every `step`-th MCU of each row.
  void record(std::vector<ScanPoint>* points, int step) {
    points_ = points;
    step_ = step;
  }
  const PlainScan& scan() const { return scan_; }
  // Ends the reading and gives a rare giant's memory back.
  void trim() noexcept {
    data_ = {};
    coordl::trim(scan_.bytes, scan_.interval_ends);
  }

 private:
  bool find_tables(const ParsedJpeg& parsed);
  bool next_row(CoefficientRow* row);
  bool decode_mcu(int mcu, CoefficientRow* row);
  bool begin_interval();
  bool in_range(CoefficientRow& row) const;

  const Frame* frame_ = nullptr;
  HuffmanTables tables_;
  std::array<const HuffmanTable*, 3> dc_{}, ac_{};
  std::array<int, 3> most_dc_{};
  PlainScan scan_;
  std::span<const std::uint8_t> data_;
  BitReader reader_;
  std::uint64_t end_bit_ = 0;  // of the restart interval, or of all data where there is none
  std::array<int, 3> prediction_{};
  int next_mcu_row_ = 0;
  int interval_ = 0, left_in_interval_ = 0;
  std::size_t next_interval_ = 0;
  std::vector<ScanPoint>* points_ = nullptr;
  int step_ = 1;
};

}  // namespace coordl
