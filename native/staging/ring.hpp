// The staging ring of a group: samples prepared by one job for all of its jobs on a server.
//
// A slot holds a run: `run_samples` consecutive samples of an epoch's order, one fixed-size record
// each. Runs are numbered through all epochs, epoch × runs + position / run_samples, and run r can
// only be in slot r mod slots. So there is one place to look, one word to compare and swap, and no
// two members ever prepare the same run for the group. The slots are the window: who is further
// behind than that finds a later run there, and prepares its samples for itself.
//
//   free -> claimed (by a member) -> published -> clearing (for a later run) -> claimed -> ...
//
// Nothing here waits and nothing here is needed: a sample's bits follow from (seed, epoch, index),
// so whoever is told "no" prepares it itself.
//   - A claim is its holder's while that lives. A dead holder's run is taken over; a stopped one's slot
//     stays its own (quarantined) until it goes on or dies: others are told `others`.
//   - A reader sets its member's bit, then looks whether the slot still holds the run; who clears a
//     slot marks it first and looks for bits afterwards. So one of the two always sees the other,
//     and a slot that somebody reads is not written to. Bits of the dead do not count.
//   - A word names member and incarnation: who takes over from the dead can tell a successor of the
//     same number.
//
// Thread safety: all methods from any thread of any process. A forked child may go on using the
// Ring: it becomes a member of its own on first use.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "os/own_pages.hpp"
#include "staging/ring_layout.hpp"
#include "staging/signs.hpp"

namespace coordl {

// What the first to open a ring says of it. All but `bytes` must be the same for all members.
struct RingShape {
  std::uint64_t sample_bytes = 0;   // of one prepared sample
  std::uint64_t epoch_samples = 0;  // samples in an epoch of the order
  std::uint64_t run_samples = 0;    // of a slot: 1 to 512
  std::uint64_t bytes = 0;          // memory for slots
  std::string record;               // what members must agree on, at most 2048 bytes; not looked at
};

// What is known of a run.
enum class Run : std::uint8_t {
  staged,  // published
  mine,    // this process prepares it
  others,  // a live process holds the slot, for this run or for another
  open,    // may be claimed
  gone,    // the slot holds a later run
};

struct RingMember {
  std::uint32_t number = 0;
  std::uint64_t pid = 0, passes = 0, position = 0, prepared = 0, alone = 0, staged = 0, began_s = 0;
};

struct RingInfo {
  std::string name;
  bool readable = false;  // false: another version's, or damaged; then only `users` is known
  std::uint64_t users = 0, slots = 0, slot_bytes = 0, file_bytes = 0;
  std::uint64_t sample_bytes = 0, run_samples = 0, epoch_samples = 0;
  std::uint64_t claimed = 0, published = 0;  // slots
  std::string record;
  std::vector<RingMember> members;
};

class Ring {
 public:
  // Opens the ring `name` of this user, or makes it so. Whoever comes later takes what is there:
  // shape() says what that is. Throws std::system_error (errno kept): EINVAL for a bad name or shape,
  // ENOSPC or ENOMEM when the memory for two slots may not be had, EPROTO when what is there is
  // another version's or damaged.
  static std::shared_ptr<Ring> open(const std::string& name, const RingShape& shape);
  virtual ~Ring() = default;

  Signs& signs() noexcept { return signs_; }
  virtual const RingShape& shape() const noexcept = 0;
  virtual std::uint64_t slots() const noexcept = 0;
  // Runs in an epoch; its last may be short.
  std::uint64_t epoch_runs() const noexcept {
    return (shape().epoch_samples + shape().run_samples - 1) / shape().run_samples;
  }

  // Takes this process's lease now instead of on first use. False when the ring was cleared meanwhile.
  virtual bool ensure_lease() noexcept = 0;
  // Says that the order of that epoch has this digest (40 bits of it count). False when another
  // member said otherwise.
  virtual bool agree(std::uint64_t epoch, std::uint64_t digest) noexcept = 0;

  // `holder`: who is waited for, when others.
  virtual Run look(std::uint64_t run, std::uint32_t& holder) noexcept = 0;
  // Makes an open run this process's to prepare. False when somebody was faster, or reads the slot.
  virtual bool claim(std::uint64_t run) noexcept = 0;
  // Memory of a run of ours.
  virtual std::span<std::byte> memory(std::uint64_t run) const noexcept = 0;
  // A sign of life of who prepares.
  virtual void beat() noexcept = 0;
  // Samples whose bit is set are there. REQUIRES a claim of ours.
  virtual void publish(std::uint64_t run, std::span<const std::uint64_t> done) noexcept = 0;
  // Gives a claim up.
  virtual void release(std::uint64_t run) noexcept = 0;

  // Copies samples [first, first + count) of a staged run; `done` tells of each whether it was there.
  // False when the run is staged no more: nothing was copied.
  virtual bool read(std::uint64_t run, std::uint64_t first, std::uint64_t count,
                    std::span<std::byte> out, std::vector<bool>& done) noexcept = 0;

  // Shows a staged run to `see`, which may not keep what it is shown. False when it is staged no more.
  virtual bool show(std::uint64_t run, const std::function<void(std::span<const std::byte> memory,
                                                                const std::uint64_t* done)>& see) = 0;

  // Keeps a staged run from being cleared until let_go() of it. False when it is staged no more. A pass
  // lets go of all it holds before it ends: see RingView.
  virtual bool hold(std::uint64_t run) noexcept = 0;
  virtual void let_go(std::uint64_t run) noexcept = 0;
  // Whether those samples of a held run are all there.
  virtual bool whole(std::uint64_t run, std::uint64_t first, std::uint64_t count) const noexcept = 0;
  // Whether a held run's slot is wanted for a later one.
  virtual bool wanted(std::uint64_t run) const noexcept = 0;
  // Members besides this process that read the run's slot, a bit each.
  virtual std::uint64_t readers(std::uint64_t run) const noexcept = 0;
  // Samples of held runs as memory of this process alone; data() is null unless they lie one after the
  // other, from sample `from` of `run` on.
  virtual OwnPages own_pages(std::uint64_t run, std::uint64_t from,
                             std::uint64_t count) const noexcept = 0;

  // The bell of this process: wait() returns when it rang since bell() said `seen`, or after a while.
  virtual std::uint32_t bell() const noexcept = 0;
  virtual void wait(std::uint32_t seen, int most_ms) const noexcept = 0;
  virtual void ring() noexcept = 0;  // wakes this process's own
  // Has the bell rung when the run's slot changes; look at the slot after this.
  virtual void listen(std::uint64_t run) noexcept = 0;

  // Of a member: its beat, and whether it lives.
  virtual std::uint64_t beat_of(std::uint32_t member) const noexcept = 0;
  // A pass of this process begins (+1) or ends (-1).
  virtual void count_pass(int change) noexcept = 0;
  // Cores that live processes in a pass may run on, all together; 0 where none is.
  virtual std::uint32_t cores() const noexcept = 0;
  // Live processes that are in so many passes or more. (Worker processes are in one while they live,
  // and in one more while they prepare a sample.)
  virtual std::uint32_t active(std::uint64_t passes) const noexcept = 0;
  virtual void at(std::uint64_t run) noexcept = 0;  // its position
  virtual void count(std::uint64_t prepared, std::uint64_t alone, std::uint64_t staged) noexcept = 0;
  virtual RingInfo info() const = 0;

  // Ends this object's use; the last of the last process unlinks the ring.
  virtual void close() noexcept = 0;

 private:
  Signs signs_;
};

// Rings of this user that live, sorted by name.
std::vector<RingInfo> list_rings();
// Unlinks those that have no live user; returns their names.
std::vector<std::string> reap_rings();
// Unlinks one. EBUSY when it has live users and not `force` (they keep what they mapped); ENOENT when
// there is none.
void clear_ring(const std::string& name, bool force);

}  // namespace coordl
