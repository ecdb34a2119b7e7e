// What is inside a ring's mapping, seen by one process: slots, members, the protocol between them.
// Knows nothing of names. See ring.hpp for the invariants.
//
// Another process of this user can write what it likes into the mapping. So geometry is a checked
// copy, and what else comes from it only says where within that to look.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "os/lock_file.hpp"
#include "os/shared_file.hpp"
#include "staging/ring.hpp"
#include "staging/ring_layout.hpp"

namespace coordl {

class RingMemory {
 public:
  // Lays out an empty ring in a new file, all of its memory set aside; magic comes last.
  // Throws std::system_error when that may not be had.
  static RingMemory create(SharedFile file, const ring_layout::Plan& plan, const RingShape& shape);
  // Takes what is there. Throws std::system_error EPROTO when it is another version's or damaged.
  static RingMemory attach(SharedFile file);
  RingMemory(RingMemory&& other) noexcept = default;

  const RingShape& shape() const noexcept { return shape_; }
  const ring_layout::Plan& plan() const noexcept { return plan_; }

  // This process becomes `member`; what the last one of that number left is ended, unless that was
  // this process (`same`).
  void enter(std::uint32_t member, bool same) noexcept;
  std::uint32_t self() const noexcept { return self_; }

  ring_layout::Member& member(std::uint32_t i) const noexcept {
    return reinterpret_cast<ring_layout::Member*>(file_.data() + ring_layout::kPage)[i];
  }
  ring_layout::Slot& slot_of(std::uint64_t run) const noexcept {
    return reinterpret_cast<ring_layout::Slot*>(file_.data() +
                                                plan_.slots_offset)[run % plan_.slots];
  }
  std::span<std::byte> data_of(std::uint64_t run) const noexcept {
    return {file_.data() + plan_.data_offset + run % plan_.slots * plan_.slot_bytes,
            shape_.sample_bytes * shape_.run_samples};
  }

  bool agree(std::uint64_t epoch, std::uint64_t digest) noexcept;
  Run look(std::uint64_t run, const LockFile& lives, std::uint32_t& holder) const noexcept;
  bool claim(std::uint64_t run, const LockFile& lives) noexcept;
  void publish(std::uint64_t run, std::span<const std::uint64_t> done) noexcept;
  void release(std::uint64_t run) noexcept;
  // Sets this member's bit; false, with the bit cleared again, when the run is not staged.
  bool enter_reading(std::uint64_t run) noexcept;
  void leave_reading(std::uint64_t run) noexcept;
  // Whether the run's slot is wanted for a later one.
  bool wanted(std::uint64_t run) const noexcept {
    return ring_layout::atomic(slot_of(run).wanted).load() > run;
  }
  // `count` samples from sample `from` of `run` on, as this process's own memory; data() is null unless
  // they lie one after the other.
  OwnPages own_pages(std::uint64_t run, std::uint64_t from, std::uint64_t count) const noexcept;
  void forget_readers();  // in a forked child
  void listen(std::uint64_t run) noexcept;
  void tell(std::uint64_t run) noexcept;  // rings who listens
  void ring_bell(std::uint32_t member) const noexcept;
  RingInfo info(const LockFile* lives) const;
  // Gives the samples' memory back. Whoever still maps it must not look at it.
  void give_back() noexcept { file_.give_back(plan_.data_offset, plan_.file_bytes - plan_.data_offset); }

 private:
  RingMemory(SharedFile file, const ring_layout::Plan& plan, RingShape shape);
  ring_layout::Header& header() const noexcept {
    return *reinterpret_cast<ring_layout::Header*>(file_.data());
  }
  std::uint64_t own_word(ring_layout::Stage stage, std::uint64_t run) const noexcept {
    return ring_layout::make_word(stage, run, self_, incarnation_);
  }
  // Whether nobody is near a published run: it is left from members that were far ahead, and have gone.
  bool is_left_over(std::uint64_t word, const LockFile& lives) const noexcept;
  // Live members that read a slot, a bit each.
  std::uint64_t readers_of(ring_layout::Slot& slot, const LockFile& lives) noexcept;

  // Threads of this process that read a slot share their member's bit.
  struct Readers {
    std::mutex mutex;
    std::vector<std::uint32_t> in_slot;  // guarded by mutex
  };

  SharedFile file_;
  ring_layout::Plan plan_;
  std::shared_ptr<OwnWindow> window_;  // of the slots' samples
  RingShape shape_;
  std::unique_ptr<Readers> readers_;
  std::uint32_t self_ = 0;  // written under the gate, before the lease is visible
  std::uint64_t incarnation_ = 0;
};

}  // namespace coordl
