// Staged samples as a minibatch, without a copy of them.
//
// A view holds its slots against reuse, and is private all the same: its pages are the process's own
// as soon as somebody writes to them. Who keeps one must not hold up the group: when a slot is
// wanted for a later run, the pass that made the view has it settle, which copies the pages that
// are still the ring's and lets the slots go. So it does when the pass ends, and before a fork, whose
// child would see later runs in it.
//
// Thread safety: all of it from any thread.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>

#include "os/own_pages.hpp"
#include "staging/ring.hpp"

namespace coordl {

class RingView {
 public:
  // Samples [from, from + count) counted from the first of `run`, and on through the runs after it. The
  // caller holds all of these (Ring::hold) and hands them over. Null, and they are still the caller's,
  // when the samples do not lie one after the other or cannot be mapped.
  static std::shared_ptr<RingView> of(std::shared_ptr<Ring> ring, std::uint64_t run,
                                      std::uint64_t from, std::uint64_t count);
  ~RingView();
  RingView(const RingView&) = delete;
  RingView& operator=(const RingView&) = delete;

  std::span<std::byte> bytes() const noexcept { return {pages_.data(), bytes_}; }
  bool wanted() const noexcept;
  // Takes a copy of what is still the ring's and lets go of it; also of the ring itself, whose memory
  // and membership nobody should keep with a minibatch, unless a fork is under way.
  void settle(bool keeps_ring = false) noexcept;

  struct Key;  // only of() makes them
  RingView(Key, std::shared_ptr<Ring> ring, std::uint64_t run, std::uint64_t runs, OwnPages pages,
           std::size_t bytes);

 private:
  void let_go() noexcept;

  std::shared_ptr<Ring> ring_;  // guarded by mutex_; null once it settled, but for a fork
  const std::uint64_t run_, runs_;
  OwnPages pages_;
  const std::size_t bytes_;
  const std::uint64_t generation_;
  mutable std::mutex mutex_;
  bool settled_ = false;  // guarded by mutex_
};

}  // namespace coordl
