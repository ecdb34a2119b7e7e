// When each member of a ring gave its last sign of life, as this process saw it. It outlives passes: who
// was given up on in one is not waited for in the next, until it gives another.
//
// Thread safety: all of it from any thread; where two look at a member at once, either's look counts.
#pragma once
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>

#include "staging/ring_layout.hpp"

namespace coordl {

class Signs {
 public:
  using Clock = std::chrono::steady_clock;

  // How long a member has been silent whose beat is `beat`.
  Clock::duration silence(std::uint32_t member, std::uint64_t beat, Clock::time_point now) noexcept {
    Sign& sign = signs_[member];
    if (!sign.seen.load() || sign.beat.load() != beat) {
      sign.beat.store(beat);
      sign.since.store(now.time_since_epoch().count());
      sign.given_up.store(false);
      sign.seen.store(true);
    }
    return now - Clock::time_point(Clock::duration(sign.since.load()));
  }
  bool given_up(std::uint32_t member) const noexcept { return signs_[member].given_up.load(); }
  // True when it was not yet.
  bool give_up(std::uint32_t member) noexcept { return !signs_[member].given_up.exchange(true); }

 private:
  struct Sign {
    std::atomic<std::uint64_t> beat{0};
    std::atomic<Clock::rep> since{0};
    std::atomic<bool> seen{false}, given_up{false};
  };
  std::array<Sign, ring_layout::kMembers> signs_;
};

}  // namespace coordl
