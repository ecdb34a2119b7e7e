// Twins: every table of kernels that runs here gives the plain kernels' bits, and leaves alone what is
// not its to write. Under AddressSanitizer it also shows that kSlack is enough.
#include "prep/kernels.hpp"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "prep/jpeg/packed.hpp"
#include "prep/jpeg/packed_block.hpp"
#include "test.hpp"

using namespace coordl;

namespace {

class Chance {
 public:
  explicit Chance(unsigned seed) : engine_(seed) {}
  int within(int low, int high) {  // both may come
    return low + static_cast<int>(engine_() % static_cast<unsigned>(high - low + 1));
  }
  // A number of 16 bits, often one at an end of a range.
  std::uint16_t word() {
    constexpr std::uint16_t edges[] = {0, 1, 127, 128, 255, 256, 0x7FFF, 0x8000, 0xFF00, 0xFFFF};
    return within(0, 3) == 0 ? edges[within(0, 9)] : static_cast<std::uint16_t>(engine_());
  }
  std::uint8_t level() {
    return within(0, 3) == 0 ? (within(0, 1) != 0 ? 255 : 0) : static_cast<std::uint8_t>(engine_());
  }

 private:
  std::mt19937 engine_;
};

// Runs a check for every table but the plain one; says which failed.
template <class Check>
void for_each_twin(Check check) {
  for (const Kernels* table : usable_kernels()) {
    if (table == &kScalarKernels) continue;
    try {
      check(*table);
    } catch (const std::exception& error) {
      throw std::runtime_error(std::string(table->name) + ": " + error.what());
    }
  }
}

template <class T>
std::vector<T> random_words(Chance& chance, std::size_t count) {
  std::vector<T> values(count);
  for (T& value : values) value = static_cast<T>(chance.word());
  return values;
}

std::vector<std::uint8_t> random_levels(Chance& chance, std::size_t count) {
  std::vector<std::uint8_t> values(count);
  for (std::uint8_t& value : values) value = chance.level();
  return values;
}

// Three rows of pixels, and how kernels want them; `offset` values off any alignment.
struct Rgb {
  Rgb(int count, int offset) {
    for (int c = 0; c < 3; ++c) {
      rows[c].assign(std::size_t(count) + offset + kSlack / 2, 0x5A5A);
      at[c] = rows[c].data() + offset;
    }
  }
  std::vector<std::uint16_t> rows[3];
  std::uint16_t* at[3];
};

bool equal(const Rgb& a, const Rgb& b, int count) {
  for (int c = 0; c < 3; ++c) {
    if (!std::equal(a.at[c], a.at[c] + count, b.at[c])) return false;
  }
  return true;
}

// One axis, its arrays included.
struct Weights {
  Weights(Chance& chance, int outputs, int count, int source, bool extreme) {
    for (int o = 0; o < outputs; ++o) {
      first.push_back(chance.within(0, source - 1));
      losses.push_back(extreme ? chance.word() : static_cast<std::uint16_t>(count / 2));
      int left = 65536;
      for (int t = 0; t < count; ++t) {
        const int share = t + 1 == count ? left : chance.within(0, left);
        weights.push_back(extreme ? chance.word() : static_cast<std::uint16_t>(std::min(share, 65535)));
        left -= share;
      }
    }
    taps = {first.data(), weights.data(), losses.data(), outputs, count};
  }
  std::vector<std::int32_t> first;
  std::vector<std::uint16_t> weights, losses;
  Taps taps;
};

std::size_t at(int row, int index, int rows) { return std::size_t(index) * rows + row; }

// Rows the widest table works on together; the plain table takes them 16 at a time.
constexpr int kMostRows = 32;
static_assert(kMostRows % 16 == 0);

}  // namespace

TEST(every_table_has_a_name_and_the_plain_one_is_there) {
  bool plain = false;
  std::string names;
  for (const Kernels* table : usable_kernels()) {
    plain = plain || table == &kScalarKernels;
    names += std::string(" ") + table->name;
    CHECK(table->rows > 0 && table->rows <= kMostRows);
  }
  std::printf("     tables that run here:%s\n", names.c_str());
  CHECK(plain);
}

TEST(unpacked_blocks_equal_the_plain_ones_at_every_width) {
  Chance chance(1);
  for_each_twin([&](const Kernels& kernel) {
    for (int round = 0; round < 400; ++round) {
      const int blocks = chance.within(1, 20);
      std::vector<std::uint8_t> packed;
      for (int block = 0; block < blocks; ++block) {
        const int tiles = round <= kMostWidth ? kTiles : chance.within(0, kTiles);
        std::uint32_t widths = 0;
        for (int tile = 0; tile < tiles; ++tile) {
          // The first rounds have one width throughout; 11 is none.
          unsigned width = round <= kMostWidth ? round : chance.within(0, kMostWidth);
          if (!is_width(width)) width = 12;
          widths |= width << (4 * tile);
        }
        std::uint8_t start[6];
        const auto word = static_cast<std::uint16_t>(chance.within(-2048, 2047) * 16 | tiles);
        std::memcpy(start, &word, sizeof word);
        std::memcpy(start + sizeof word, &widths, sizeof widths);
        const BlockHeader header = BlockHeader::read(start);
        packed.insert(packed.end(), start, start + header.bytes);
        for (int i = header.bytes; i < header.block_bytes(); ++i) packed.push_back(chance.level());
      }
      const std::size_t size = packed.size();
      packed.resize(size + kPackedSlack);
      packed.shrink_to_fit();
      std::vector<std::int16_t> plain(std::size_t(blocks) * 64), ours(plain.size());
      CHECK(kScalarKernels.unpack(packed.data(), blocks, plain.data()) == packed.data() + size);
      CHECK(kernel.unpack(packed.data(), blocks, ours.data()) == packed.data() + size);
      CHECK(ours == plain);
    }
  });
}

TEST(packed_blocks_equal_the_plain_ones_and_unpack_to_what_they_were) {
  Chance chance(7);
  for_each_twin([&](const Kernels& kernel) {
    for (int round = 0; round < 20000; ++round) {
      std::vector<std::int16_t> block(64), back(64);
      for (int i = chance.within(0, 64); i > 0; --i) {
        const int most = 1 << chance.within(0, round % 50 == 0 ? 14 : 11);
        block[chance.within(0, 63)] = static_cast<std::int16_t>(chance.within(-most, most - 1));
      }
      std::vector<std::uint8_t> plain(kMostBlockBytes + 16), ours(plain.size());
      const std::uint8_t* plain_end = kScalarKernels.pack(block.data(), plain.data());
      const std::uint8_t* our_end = kernel.pack(block.data(), ours.data());
      CHECK((plain_end == nullptr) == (our_end == nullptr));
      if (plain_end == nullptr) continue;
      const auto bytes = plain_end - plain.data();
      CHECK(our_end - ours.data() == bytes);
      CHECK(std::equal(ours.begin(), ours.begin() + bytes, plain.begin()));
      CHECK(kernel.unpack(ours.data(), 1, back.data()) == our_end);
      CHECK(back == block);
    }
  });
}

TEST(the_inverse_dct_equals_the_plain_one_also_where_it_wraps_and_saturates) {
  Chance chance(2);
  for_each_twin([&](const Kernels& kernel) {
    for (int round = 0; round < 3000; ++round) {
      const int blocks = chance.within(1, 9), kind = round % 6;
      std::vector<std::int16_t> coefficients(std::size_t(blocks + 8) * 64);
      std::vector<std::uint16_t> quantiser(64);
      for (auto& value : coefficients) {
        const bool zero = kind % 2 == 0 && chance.within(0, 5) != 0;
        value = zero ? std::int16_t{0}
                : kind < 2 ? static_cast<std::int16_t>(chance.within(-2048, 2047))
                : kind < 4 ? static_cast<std::int16_t>(chance.word())
                           : static_cast<std::int16_t>(chance.within(0, 1) != 0 ? 32767 : -32768);
      }
      for (auto& value : quantiser) {
        value = kind < 2 ? static_cast<std::uint16_t>(chance.within(1, 255))
                : kind < 4 ? chance.word() & 0x7FFF : std::uint16_t{1};
      }
      const std::ptrdiff_t stride = blocks * 8 + std::ptrdiff_t(kSlack) / 2 + chance.within(0, 9);
      std::vector<std::uint8_t> plain(std::size_t(stride) * 8), ours(plain.size());
      kScalarKernels.idct(coefficients.data(), blocks, quantiser.data(), plain.data(), stride);
      kernel.idct(coefficients.data(), blocks, quantiser.data(), ours.data(), stride);
      for (int row = 0; row < 8; ++row) {
        CHECK(std::equal(&plain[row * stride], &plain[row * stride + blocks * 8], &ours[row * stride]));
      }
    }
  });
}

TEST(chroma_sums_equal_the_plain_ones) {
  Chance chance(3);
  for_each_twin([&](const Kernels& kernel) {
    for (int count = 1; count <= 150; ++count) {
      const auto near = random_levels(chance, count + kSlack), far = random_levels(chance, count + kSlack);
      std::vector<std::int16_t> plain(count + kSlack / 2), ours(plain.size());
      kScalarKernels.chroma(near.data(), far.data(), count, plain.data());
      kernel.chroma(near.data(), far.data(), count, ours.data());
      CHECK(std::equal(plain.begin(), plain.begin() + count, ours.begin()));
    }
  });
}

TEST(pixels_of_every_pair_of_chroma_values_equal_the_plain_ones) {
  for_each_twin([&](const Kernels& kernel) {
    constexpr int count = 256;
    std::vector<std::uint8_t> luma(count + kSlack), cb(count + kSlack), cr(count + kSlack);
    for (int i = 0; i < count; ++i) cr[i] = static_cast<std::uint8_t>(i);
    for (int level = 0; level < 256; level += 15) {
      for (int blue = 0; blue < 256; ++blue) {
        std::fill(cb.begin(), cb.end(), static_cast<std::uint8_t>(blue));
        for (int i = 0; i < count; ++i) luma[i] = static_cast<std::uint8_t>(level + (i & 1));
        Rgb plain(count, 0), ours(count, 1);
        kScalarKernels.full(luma.data(), cb.data(), cr.data(), count, plain.at);
        kernel.full(luma.data(), cb.data(), cr.data(), count, ours.at);
        CHECK(equal(plain, ours, count));
      }
    }
  });
}

TEST(pixels_equal_the_plain_ones_at_every_width_and_alignment) {
  Chance chance(4);
  for_each_twin([&](const Kernels& kernel) {
    for (int count = 1; count <= 200; ++count) {
      const int offset = count % 17;
      const auto luma = random_levels(chance, count + kSlack);
      const auto cb = random_levels(chance, count + kSlack), cr = random_levels(chance, count + kSlack);
      Rgb plain(count, offset), ours(count, offset);
      kScalarKernels.full(luma.data(), cb.data(), cr.data(), count, plain.at);
      kernel.full(luma.data(), cb.data(), cr.data(), count, ours.at);
      CHECK(equal(plain, ours, count));
      kScalarKernels.grey(luma.data(), count, plain.at[0]);
      kernel.grey(luma.data(), count, ours.at[0]);
      CHECK(equal(plain, ours, count));
    }
  });
}

TEST(pixels_of_half_wide_chroma_equal_the_plain_ones) {
  Chance chance(5);
  for_each_twin([&](const Kernels& kernel) {
    for (int round = 0; round < 1000; ++round) {
      const int count = round % 200 + 1;
      const auto luma = random_levels(chance, count + kSlack);
      std::vector<std::int16_t> cb(1 + count + kSlack / 2), cr(cb.size());
      for (std::size_t i = 0; i < cb.size(); ++i) {
        cb[i] = static_cast<std::int16_t>(3 * chance.level() + chance.level());
        cr[i] = static_cast<std::int16_t>(3 * chance.level() + chance.level());
      }
      const bool quarter = chance.within(0, 1) != 0;
      const int even = quarter ? 8 : 4, odd = quarter ? 7 : 8;
      Rgb plain(count, round % 3), ours(count, round % 3);
      kScalarKernels.half(luma.data(), cb.data() + 1, cr.data() + 1, even, odd, count, plain.at);
      kernel.half(luma.data(), cb.data() + 1, cr.data() + 1, even, odd, count, ours.at);
      CHECK(equal(plain, ours, count));
    }
  });
}

TEST(weighted_sums_of_rows_equal_the_plain_ones_for_1_to_40_taps) {
  Chance chance(6);
  for_each_twin([&](const Kernels& kernel) {
    for (int round = 0; round < 400; ++round) {
      const int taps = round % 40 + 1, count = chance.within(1, 150), outputs = 3;
      const Weights weights(chance, outputs, taps, 1, round % 2 == 1);
      std::vector<std::vector<std::uint16_t>> rows;
      std::vector<const std::uint16_t*> pointers;
      for (int t = 0; t < taps; ++t) rows.push_back(random_words<std::uint16_t>(chance, count + kSlack / 2));
      for (const auto& row : rows) pointers.push_back(row.data());
      std::vector<std::uint16_t> plain(count + kSlack / 2), ours(plain.size());
      for (int output = 0; output < outputs; ++output) {
        kScalarKernels.vertical(pointers.data(), weights.taps, output, count, plain.data());
        kernel.vertical(pointers.data(), weights.taps, output, count, ours.data());
        CHECK(std::equal(plain.begin(), plain.begin() + count, ours.begin()));
      }
    }
  });
}

TEST(transposed_lines_are_the_columns_of_the_plain_ones) {
  Chance chance(7);
  for_each_twin([&](const Kernels& kernel) {
    for (int count = 1; count <= 90; ++count) {
      const std::size_t stride = std::size_t(count) + kSlack / 2;
      const auto lines = random_words<std::uint16_t>(chance, kMostRows * stride);
      std::vector<std::uint16_t> ours((std::size_t(count) + 7) / 8 * 8 * kernel.rows);
      kernel.transpose(lines.data(), stride, count, ours.data());
      for (int row = 0; row < kernel.rows; ++row) {
        for (int i = 0; i < count; ++i) CHECK(ours[at(row, i, kernel.rows)] == lines[row * stride + i]);
      }
    }
  });
}

TEST(weighted_sums_along_rows_equal_the_plain_ones_for_1_to_40_taps) {
  Chance chance(8);
  for_each_twin([&](const Kernels& kernel) {
    for (int round = 0; round < 400; ++round) {
      const int taps = round % 40 + 1, source = chance.within(1, 60), outputs = chance.within(1, 40);
      const bool flip = chance.within(0, 1) != 0;
      const Weights weights(chance, outputs, taps, source, round % 2 == 1);
      const int columns = source + taps;
      const auto lines = random_words<std::uint16_t>(chance, std::size_t(3) * kMostRows * columns);
      // The same pixels, a table's own number of rows at a time.
      const auto run = [&](const Kernels& table, int top) {
        const std::size_t plane = std::size_t(columns) * table.rows + 32;
        std::vector<std::uint16_t> in(3 * plane);
        std::vector<std::uint16_t> out(std::size_t(3) * outputs * table.rows);
        for (int c = 0; c < 3; ++c) {
          for (int row = 0; row < table.rows; ++row) {
            for (int i = 0; i < columns; ++i) {
              in[c * plane + at(row, i, table.rows)] =
                  lines[(std::size_t(c) * kMostRows + top + row) * columns + i];
            }
          }
        }
        table.horizontal(in.data(), plane, weights.taps, flip, out.data());
        return out;
      };
      const auto ours = run(kernel, 0);
      for (int top = 0; top < kernel.rows; top += kScalarKernels.rows) {
        const auto plain = run(kScalarKernels, top);
        for (int row = 0; row < std::min(kernel.rows, kScalarKernels.rows); ++row) {
          for (int o = 0; o < 3 * outputs; ++o) {
            CHECK(ours[at(top + row, o, kernel.rows)] == plain[at(row, o, kScalarKernels.rows)]);
          }
        }
      }
    }
  });
}

namespace {

// Stores through both tables into memory with a guard on either side, `offset` values into it.
template <class Value, class Store>
void check_store(const Kernels& kernel, Chance& chance, int outputs, int rows, int offset, Store store) {
  constexpr int kGuard = 64;
  const std::size_t size = std::size_t(outputs) * rows;
  std::vector<std::uint16_t> finished(std::size_t(outputs) * kernel.rows);
  for (auto& level : finished) level = chance.level();
  const auto make = [&] { return std::vector<Value>(size + 2 * kGuard + 16, Value{77}); };
  auto plain = make(), ours = make();
  const auto aligned = [&](std::vector<Value>& values) {  // on a cache line, then `offset` off it
    const auto address = reinterpret_cast<std::uintptr_t>(values.data() + kGuard);
    return kGuard + (64 - address % 64) % 64 / sizeof(Value) % 16 + offset;
  };
  const std::size_t to = aligned(ours);
  for (int row = 0; row < rows; ++row) {  // row by row: the tables group rows in different ways
    std::vector<std::uint16_t> line(std::size_t(outputs) * kScalarKernels.rows);
    for (int o = 0; o < outputs; ++o) line[at(0, o, kScalarKernels.rows)] = finished[at(row, o, kernel.rows)];
    store(kScalarKernels, line.data(), 1, plain.data() + to + std::size_t(row) * outputs);
  }
  store(kernel, finished.data(), rows, ours.data() + to);
  kernel.drain();
  CHECK(std::memcmp(plain.data(), ours.data(), plain.size() * sizeof(Value)) == 0);
}

}  // namespace

TEST(stored_floats_equal_the_plain_ones_and_nothing_else_is_written) {
  Chance chance(9);
  for_each_twin([&](const Kernels& kernel) {
    for (int outputs = 1; outputs <= 80; ++outputs) {
      for (int round = 0; round < 12; ++round) {
        const int rows = round == 0 ? kernel.rows : chance.within(1, kernel.rows);
        const float scale = 1.0f / static_cast<float>(chance.within(1, 300));
        const float bias = static_cast<float>(chance.within(-300, 300)) / 7;
        check_store<float>(kernel, chance, outputs, rows, round % 2 == 0 ? 0 : chance.within(0, 15),
                           [&](const Kernels& table, const std::uint16_t* from, int count, float* to) {
                             table.store_float(from, outputs, count, scale, bias, to);
                           });
      }
    }
  });
}

TEST(stored_bytes_equal_the_plain_ones_and_nothing_else_is_written) {
  Chance chance(10);
  for_each_twin([&](const Kernels& kernel) {
    for (int outputs = 1; outputs <= 80; ++outputs) {
      for (int round = 0; round < 12; ++round) {
        const int rows = round == 0 ? kernel.rows : chance.within(1, kernel.rows);
        check_store<std::uint8_t>(
            kernel, chance, outputs, rows, chance.within(0, 15),
            [&](const Kernels& table, const std::uint16_t* from, int count, std::uint8_t* to) {
              table.store_bytes(from, outputs, count, to);
            });
      }
    }
  });
}
