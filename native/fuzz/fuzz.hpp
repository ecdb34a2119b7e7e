// What a fuzzer is: where it starts, how it changes an input with sense, and what must hold for every
// input. One source file each, linked with driver.cpp (any compiler) or with libFuzzer (clang).
//
// A crash file becomes a test: run the fuzzer with the file as its argument, mend, and keep the input
// in native/tests or tests/coordl/prep.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "prep/kernels.hpp"
#include "prep/pixels.hpp"

namespace coordl::fuzz {

using Bytes = std::vector<std::uint8_t>;

// xorshift64*: the same numbers everywhere, seeds side by side differ.
class Chance {
 public:
  explicit Chance(std::uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15u | 1) { next(); }
  std::uint64_t next() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 0x2545F4914F6CDD1Du;
  }
  int below(std::size_t limit) { return limit == 0 ? 0 : static_cast<int>((next() >> 20) % limit); }
  int within(int low, int high) { return low + below(std::size_t(high - low) + 1); }
  bool one_in(int n) { return below(std::size_t(n)) == 0; }
  std::uint8_t byte() {
    constexpr std::uint8_t edges[] = {0, 1, 0x7F, 0x80, 0xFE, 0xFF};
    return one_in(3) ? edges[below(6)] : static_cast<std::uint8_t>(next() >> 32);
  }

 private:
  std::uint64_t state_;
};

// -- what each fuzzer defines

std::vector<Bytes> seeds();
void mutate(Bytes& input, Chance& chance);
// Throws std::runtime_error when a rule is broken.
void check(std::span<const std::uint8_t> input);

// -- what they share

#define HOLDS(condition)                                                                            \
  do {                                                                                              \
    if (!(condition))                                                                               \
      throw std::runtime_error(std::string(__FILE__ ":") + std::to_string(__LINE__) + ": " #condition); \
  } while (false)

inline std::span<const std::byte> as_item(std::span<const std::uint8_t> input) {
  return std::as_bytes(input);
}

// Bits of the whole input: what a check draws from, so that an input alone says what happens.
std::uint64_t hash_of(std::span<const std::uint8_t> input);

// Changes bytes anywhere, without sense.
void mutate_anywhere(Bytes& bytes, Chance& chance);

inline constexpr std::int64_t kMostPixels = 1 << 19;  // of what is decoded: more takes too long

// Reads a region's rows into RGB, 3 bytes a pixel; nothing when they end early or `rows` is null. The
// memory it hands out ends where the contract of PixelRows does.
std::optional<Bytes> pixels_of(PixelRows* rows, const Region& region);

Region random_region(Chance& chance, const ImageSize& size);
// That part of an image of that width.
Bytes part_of(const Bytes& image, int width, const Region& region);

// Runs with every table of kernels in turn, the plain one first.
void for_each_table(const std::function<void()>& run);

}  // namespace coordl::fuzz
