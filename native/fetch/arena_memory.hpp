// What is inside an arena's mapping: log, index, counters. Knows nothing of names and leases.
//
// Invariants, which hold at every instruction, so that a kill anywhere leaves a sound arena:
//   - A slot goes from 0 to one record's reference, once. That compare-and-swap publishes: release
//     here, acquire in find(). There is no claimed-but-unpublished slot to get stuck.
//   - Same key, same probe sequence, and slots never empty again: so of two writers of one key one
//     meets the other's slot, and only one record is ever indexed.
//   - The claim word at the tail is written (from 0) before the tail moves past it, by whoever sees
//     it: below the tail a walker always finds a length.
//   - A claim is what holds budget. `before` of the record at the tail, written before the tail
//     reaches it, is the payload of all claims: whoever claims there has compared exactly that sum,
//     less what was abandoned, with the budget. There is no other account that could disagree.
//   - Counts are a member's own, and follow from its records: repair() has them exact again.
//
// Another process of this user can write what it likes into the mapping. So geometry is a checked
// copy, and every offset and length that comes from the mapping is compared with it before use.
//
// Concurrency: all methods from any thread of any process, except raise(), enlist() and repair():
// one at a time, and the members repaired are dead.
#pragma once
#include <algorithm>
#include <atomic>
#include <bitset>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "fetch/arena.hpp"
#include "fetch/item_key.hpp"
#include "fetch/layout.hpp"
#include "fetch/vetting.hpp"
#include "os/shared_file.hpp"

namespace coordl {

// Members of an arena, by number.
using Members = std::bitset<layout::kMembers>;

class ArenaMemory {
 public:
  // Lays out an empty arena in a new file and sets its first memory aside; magic comes last.
  // Throws std::system_error when not even that may be had.
  static ArenaMemory create(SharedFile file, const layout::Plan& plan, std::uint64_t budget_bytes,
                            std::uint64_t asked_bytes, bool persist, std::string directory,
                            ItemCheck check);
  // Takes what is there. Throws std::system_error EPROTO when it is another version's or damaged.
  static ArenaMemory attach(SharedFile file, std::string directory, ItemCheck check);
  ArenaMemory(ArenaMemory&& other) noexcept;

  std::optional<std::span<const std::byte>> find(ItemKey key) const noexcept;
  bool seems_held(ItemKey key) const noexcept;
  // `member`: the caller's own. Every process that admits has one, and repair() waits for its death.
  bool admit(ItemKey key, std::span<const std::byte> bytes, int kind, std::uint32_t member) noexcept;
  std::uint64_t room_bytes() const noexcept;
  std::uint64_t budget_bytes() const noexcept;
  bool persists() const noexcept;
  ArenaStats stats() const noexcept;  // users stays 0
  Verified verify() const;

  // Raises the budget towards `asked_bytes`, as far as memory and the log's address space allow, and
  // lets growth that stopped go on. Never lowers it.
  void raise(std::uint64_t asked_bytes);
  void keep() noexcept;  // from now on it outlives its last user
  void enlist(std::uint32_t member) noexcept;  // before its first admission

  bool needs_repair(std::uint32_t member) const noexcept;
  // Ends what dead members began: their records are published or abandoned, their counts exact.
  void repair(const Members& dead) noexcept;

 private:
  enum class Inserted { here, other, full };
  using Clock = std::chrono::steady_clock;
  ArenaMemory(SharedFile file, const layout::Plan& plan, std::string directory, ItemCheck check);
  layout::Header& header() const noexcept {
    return *reinterpret_cast<layout::Header*>(file_.data());
  }
  layout::Member& member(std::uint32_t i) const noexcept {
    return reinterpret_cast<layout::Member*>(file_.data() + layout::kPage)[i];
  }
  layout::Record& record(std::uint64_t offset) const noexcept {
    return *reinterpret_cast<layout::Record*>(log_ + offset);
  }

  // Are these log bytes inside the memory that is set aside?
  bool within(std::uint64_t offset, std::uint64_t bytes) const noexcept {
    return inside(offset, bytes, promised_.load(std::memory_order_relaxed)) ||
           inside(offset, bytes, look_up_promised());
  }
  static bool inside(std::uint64_t offset, std::uint64_t bytes, std::uint64_t end) noexcept {
    return bytes <= end && offset <= end - bytes;
  }
  std::uint64_t look_up_promised() const noexcept;
  // The payload; nullopt when its length leads out of the log. REQUIRES within(offset, kLine).
  std::optional<std::span<std::byte>> payload(std::uint64_t offset) const noexcept;
  // May the record that the slot of that number names be used?
  bool passes(std::uint64_t slot, std::uint64_t offset) const noexcept {
    return !vetting_ || vetting_->passes(slot, offset, look_up_promised());
  }
  // Calls found(slot's number, offset) for records whose slot has the key's tag, until it is true.
  template <class Found>
  bool probe(ItemKey key, const Found& found) const noexcept;
  // With `any`, also a record that failed vetting.
  std::optional<std::uint64_t> find_offset(ItemKey key, bool any = false) const noexcept;
  // Calls see(offset, claim) for every record below the tail; returns where it could not go on, or
  // the tail.
  template <class See>
  std::uint64_t walk(See see) const {
    const std::uint64_t tail = layout::atomic(header().tail).load(std::memory_order_acquire);
    const std::uint64_t end = std::min(tail, look_up_promised());
    std::uint64_t at = 0;
    while (at < end) {
      const auto claim = layout::atomic(record(at).claim).load(std::memory_order_acquire);
      const std::uint64_t size = layout::record_bytes(layout::claim_payload(claim));
      if (claim == 0 || size > end - at) break;
      see(at, claim);
      at += size;
    }
    return at;
  }

  std::uint32_t members() const noexcept;
  std::uint64_t sum(std::uint64_t layout::Member::* count) const noexcept;
  std::uint64_t used_bytes() const noexcept;
  std::uint64_t claimed_bytes() const noexcept;  // payload of all claims
  std::uint64_t held_bytes() const noexcept;     // of those not abandoned

  bool grow(std::uint64_t need) noexcept;
  bool pass(std::uint64_t at, std::uint64_t claim) noexcept;
  bool may_fit(std::uint64_t held, std::uint64_t bytes,
               std::optional<Clock::time_point>& since) noexcept;
  std::optional<std::uint64_t> reserve(std::uint64_t bytes, std::uint32_t member) noexcept;
  Inserted insert(ItemKey key, std::uint64_t offset) noexcept;
  std::uint64_t give_back_pages(std::uint64_t offset) noexcept;
  void abandon(std::uint64_t offset, std::uint32_t member) noexcept;
  bool admit_new(ItemKey key, std::span<const std::byte> bytes, int kind,
                 std::uint32_t member) noexcept;

  SharedFile file_;
  std::atomic<std::uint64_t> stuck_at_{0};  // held bytes when waiting for them to fall was in vain
  std::string directory_;
  // Constant for the arena's life; kept here so that find() touches neither header nor Plan.
  std::byte* log_ = nullptr;
  std::uint64_t* index_ = nullptr;
  std::uint64_t slot_mask_ = 0;
  std::uint64_t probes_ = 0;
  std::uint64_t log_offset_ = 0;
  std::uint64_t log_bytes_ = 0;
  mutable std::atomic<std::uint64_t> promised_{0};  // set_aside as last seen, never above log_bytes_
  std::unique_ptr<Vetting> vetting_;  // of an arena whose bytes come from outside
};

}  // namespace coordl
