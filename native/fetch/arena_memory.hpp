// What is inside an arena's mapping: log, index, counters. Knows nothing of names and leases.
//
// Invariants, which hold at every instruction, so that a kill anywhere leaves a sound arena:
//   - A slot goes from 0 to one record's reference, once. That compare-and-swap publishes: release
//     here, acquire in find(). There is no claimed-but-unpublished slot to get stuck.
//   - Same key, same probe sequence, and slots never empty again: so of two writers of one key one
//     meets the other's slot, and only one record is ever indexed.
//   - The claim word at the tail is written (from 0) before the tail moves past it, by whoever sees
//     it: below the tail a walker always finds a length.
//   - held_bytes is raised before a record is claimed and never exceeds budget_bytes; used_bytes
//     is raised after publication, so used <= held <= budget.
//
// Concurrency: all methods from any thread of any process, except repair(): one at a time per
// member, whose process is dead.
#pragma once
#include <atomic>
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

class ArenaMemory {
 public:
  // Lays out an empty arena in a new file and sets its first memory aside; magic comes last.
  // Throws std::system_error when not even that may be had.
  static ArenaMemory create(SharedFile file, const layout::Plan& plan, std::uint64_t budget_bytes,
                            std::uint64_t asked_bytes, std::string directory, ItemCheck check);
  // Takes what is there. Throws std::system_error EPROTO when it is another version's or damaged.
  static ArenaMemory attach(SharedFile file, std::string directory, ItemCheck check);
  ArenaMemory(ArenaMemory&& other) noexcept;

  std::optional<std::span<const std::byte>> find(ItemKey key) const noexcept;
  bool seems_held(ItemKey key) const noexcept;
  bool admit(ItemKey key, std::span<const std::byte> bytes, int kind, std::uint32_t member) noexcept;
  std::uint64_t room_bytes() const noexcept;
  std::uint64_t budget_bytes() const noexcept { return header().budget_bytes; }
  ArenaStats stats() const noexcept;  // users stays 0
  std::vector<std::string> verify() const;

  bool needs_repair(std::uint32_t member) const noexcept;
  // Gives back what a dead member's unfinished admissions held.
  void repair(std::uint32_t member) noexcept;

  std::uint64_t inode() const noexcept { return file_.inode(); }

 private:
  enum class Inserted { here, other, full };
  ArenaMemory(SharedFile file, std::string directory, ItemCheck check);
  layout::Header& header() const noexcept {
    return *reinterpret_cast<layout::Header*>(file_.data());
  }
  layout::Member& member(std::uint32_t i) const noexcept {
    return reinterpret_cast<layout::Member*>(file_.data() + layout::kPage)[i];
  }
  layout::Record& record(std::uint64_t offset) const noexcept {
    return *reinterpret_cast<layout::Record*>(log_ + offset);
  }
  std::span<std::byte> payload(std::uint64_t offset) const noexcept {
    const std::uint64_t claim = layout::atomic(record(offset).claim).load(std::memory_order_relaxed);
    return {log_ + offset + sizeof(layout::Record), layout::claim_payload(claim)};
  }

  // Calls found(slot's number, offset) for records whose slot has the key's tag, until it is true.
  template <class Found>
  bool probe(ItemKey key, const Found& found) const noexcept;
  std::optional<std::uint64_t> find_offset(ItemKey key) const noexcept;
  bool hold(std::uint64_t bytes) noexcept;
  void unhold(std::uint64_t bytes) noexcept;
  bool grow(std::uint64_t need) noexcept;
  void pass(std::uint64_t at, std::uint64_t claim) noexcept;  // moves the tail, if it is at `at`
  std::optional<std::uint64_t> reserve(std::uint64_t bytes, std::uint32_t member) noexcept;
  Inserted insert(ItemKey key, std::uint64_t offset) noexcept;
  void abandon(std::uint64_t offset) noexcept;
  bool admit_new(ItemKey key, std::span<const std::byte> bytes, int kind,
                 std::uint32_t member) noexcept;
  void count(layout::Record& record) noexcept;

  SharedFile file_;
  std::atomic<std::uint64_t> stuck_at_{0};  // held_bytes when waiting for it to fall was in vain
  std::string directory_;
  // Constant for the arena's life; kept here so that find() touches neither header nor Plan.
  std::byte* log_ = nullptr;
  std::uint64_t* index_ = nullptr;
  std::uint64_t slot_mask_ = 0;
  std::uint64_t probes_ = 0;
  std::unique_ptr<Vetting> vetting_;  // of an arena whose bytes come from outside
};

}  // namespace coordl
