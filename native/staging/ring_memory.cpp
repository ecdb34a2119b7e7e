#include "staging/ring_memory.hpp"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <ctime>
#include <new>
#include <system_error>
#include <utility>

#include "os/numa.hpp"
#include "os/refusal.hpp"
#include "os/steps.hpp"

namespace coordl {

using ring_layout::atomic;
using ring_layout::make_word;
using ring_layout::member_of;
using ring_layout::run_of;
using ring_layout::Slot;
using ring_layout::stage_of;
using ring_layout::with_stage;

namespace {

[[noreturn]] void fail(int error, const std::string& what) { throw Refusal(error, what); }

constexpr std::uint64_t bit_of(std::uint32_t member) { return std::uint64_t(1) << member; }

std::uint64_t load(std::uint64_t& word) { return atomic(word).load(std::memory_order_relaxed); }

// On which cores this process may run.
void note_cores(ring_layout::Member& me) noexcept {
  for (std::uint64_t& word : me.cores) atomic(word).store(0);
  cpu_set_t allowed;
  if (::sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  for (std::size_t core = 0; core < 64 * std::size(me.cores); ++core) {
    if (CPU_ISSET(core, &allowed)) atomic(me.cores[core / 64]).fetch_or(std::uint64_t(1) << core % 64);
  }
}

// Every comparison of words is with one that was read before; a failure means that somebody was
// faster, which is for the caller to find out.
bool swap(std::uint64_t& word, std::uint64_t from, std::uint64_t to) {
  return atomic(word).compare_exchange_strong(from, to);
}

}  // namespace

RingMemory::RingMemory(SharedFile file, const ring_layout::Plan& plan, RingShape shape)
    : file_(std::move(file)),
      plan_(plan),
      window_(file_.own_window(plan_.data_offset, plan_.slot_bytes, plan_.slots)),
      shape_(std::move(shape)),
      readers_(std::make_unique<Readers>()) {
  readers_->in_slot.resize(plan_.slots);
}

RingMemory RingMemory::create(SharedFile file, const ring_layout::Plan& plan,
                              const RingShape& shape) {
  interleave_on_nodes(file.data(), file.size());
  if (const int error = file.set_aside(0, plan.file_bytes)) {
    throw std::system_error(error, std::generic_category(),
                            "cannot set aside " + std::to_string(plan.file_bytes) + " bytes");
  }
  at_step("ring:set_aside");
  auto& h = *reinterpret_cast<ring_layout::Header*>(file.data());
  h.version = ring_layout::kVersion;
  h.file_bytes = plan.file_bytes;
  h.slots = plan.slots;
  h.slot_bytes = plan.slot_bytes;
  h.sample_bytes = shape.sample_bytes;
  h.run_samples = shape.run_samples;
  h.epoch_samples = shape.epoch_samples;
  h.slots_offset = plan.slots_offset;
  h.data_offset = plan.data_offset;
  h.record_bytes = shape.record.size();
  std::memcpy(h.record, shape.record.data(), shape.record.size());
  at_step("ring:described");
  atomic(h.magic).store(ring_layout::kMagic, std::memory_order_release);
  at_step("ring:magic");
  return RingMemory(std::move(file), plan, shape);
}

RingMemory RingMemory::attach(SharedFile file) {
  if (file.size() < ring_layout::kPage) fail(EPROTO, "it is shorter than its header");
  auto& h = *reinterpret_cast<ring_layout::Header*>(file.data());
  if (atomic(h.magic).load(std::memory_order_acquire) != ring_layout::kMagic) {
    fail(EPROTO, "it was never finished, or is no staging ring");
  }
  if (h.version != ring_layout::kVersion) {
    fail(EPROTO, "it has layout version " + std::to_string(h.version) +
                     ", this coordl reads version " + std::to_string(ring_layout::kVersion));
  }
  // Each word read once: what is checked is what is used.
  RingShape shape;
  shape.sample_bytes = load(h.sample_bytes);
  shape.run_samples = load(h.run_samples);
  shape.epoch_samples = load(h.epoch_samples);
  const std::uint64_t slots = load(h.slots), record = load(h.record_bytes);
  const bool sane = shape.sample_bytes > 0 && shape.run_samples > 0 && shape.epoch_samples > 0 &&
                    shape.run_samples <= ring_layout::kMostRunSamples && slots > 0 &&
                    shape.sample_bytes <= file.size() && slots <= file.size() / sizeof(Slot) &&
                    record <= ring_layout::kRecordBytes;
  const ring_layout::Plan plan =
      sane ? ring_layout::make_plan(shape.sample_bytes, shape.run_samples, slots)
           : ring_layout::Plan{};
  if (!sane || plan.file_bytes != file.size() || load(h.file_bytes) != plan.file_bytes ||
      plan.slot_bytes > file.size() || load(h.slot_bytes) != plan.slot_bytes ||
      load(h.slots_offset) != plan.slots_offset || load(h.data_offset) != plan.data_offset) {
    fail(EPROTO, "its header contradicts itself");
  }
  shape.bytes = slots * plan.slot_bytes;
  shape.record.assign(h.record, record);
  return RingMemory(std::move(file), plan, std::move(shape));
}

void RingMemory::enter(std::uint32_t who, bool same) noexcept {
  self_ = who;
  if (same) return;
  ring_layout::Member& me = member(who);
  for (std::uint64_t run = 0; run < plan_.slots; ++run) {
    Slot& slot = slot_of(run);
    const std::uint64_t word = atomic(slot.word).load();
    if (word != 0 && member_of(word) == who) {
      if (stage_of(word) == ring_layout::claimed) swap(slot.word, word, 0);
      // Its run is still there, and may be being read.
      if (stage_of(word) == ring_layout::clearing) {
        swap(slot.word, word, with_stage(word, ring_layout::published));
      }
    }
    atomic(slot.readers).fetch_and(~bit_of(who));
    atomic(slot.waiters).fetch_and(~bit_of(who));
  }
  incarnation_ = atomic(me.incarnation).fetch_add(1) + 1;
  for (std::uint64_t* word : {&me.passes, &me.position, &me.beat, &me.prepared, &me.alone, &me.staged}) {
    atomic(*word).store(0);
  }
  note_cores(me);
  atomic(me.pid).store(static_cast<std::uint64_t>(::getpid()));
  atomic(me.began_s).store(static_cast<std::uint64_t>(::time(nullptr)));
}

bool RingMemory::agree(std::uint64_t epoch, std::uint64_t digest) noexcept {
  std::uint64_t& place = header().orders[epoch % ring_layout::kOrders];
  const std::uint64_t said = ring_layout::make_order(epoch, digest);
  for (;;) {
    std::uint64_t known = atomic(place).load();
    if (known == said) return true;
    if (known != 0 && ring_layout::order_epoch(known) == epoch) return false;
    // One that is 64 epochs ahead of us has nothing to share with us.
    if (known != 0 && ring_layout::order_epoch(known) > epoch) return true;
    if (swap(place, known, said)) return true;
  }
}

bool RingMemory::is_left_over(std::uint64_t word, const LockFile& lives) const noexcept {
  if (stage_of(word) != ring_layout::published) return false;
  for (std::uint32_t who = 0; who < ring_layout::kMembers; ++who) {
    const std::uint64_t at = load(member(who).position);
    // A member stages ahead of where it is, and what it staged serves who comes a window later.
    const bool near = at + plan_.slots >= run_of(word) && at <= run_of(word) + plan_.slots;
    if (near && (who == self_ || lives.held_by_other(who))) return false;
  }
  return true;
}

Run RingMemory::look(std::uint64_t run, const LockFile& lives, std::uint32_t& holder) const noexcept {
  const std::uint64_t word = atomic(slot_of(run).word).load();
  if (word == 0) return Run::open;
  if (run_of(word) > run) return is_left_over(word, lives) ? Run::open : Run::gone;
  const bool same = run_of(word) == run;
  if (stage_of(word) == ring_layout::published) return same ? Run::staged : Run::open;
  holder = member_of(word);
  return same && word == own_word(ring_layout::claimed, run) ? Run::mine : Run::others;
}

// Of a slot that is being cleared: nobody begins to read it.
std::uint64_t RingMemory::readers_of(Slot& slot, const LockFile& lives) noexcept {
  std::uint64_t readers = 0;
  for (std::uint32_t who = 0; who < ring_layout::kMembers; ++who) {
    if ((atomic(slot.readers).load() & bit_of(who)) == 0) continue;
    if (who == self_ || lives.held_by_other(who)) {
      readers |= bit_of(who);
    } else {
      atomic(slot.readers).fetch_and(~bit_of(who));
    }
  }
  return readers;
}

OwnPages RingMemory::own_pages(std::uint64_t run, std::uint64_t from,
                               std::uint64_t count) const noexcept {
  const std::uint64_t bytes = shape_.sample_bytes, first = run % plan_.slots * shape_.run_samples + from;
  const bool gapless = plan_.slot_bytes == bytes * shape_.run_samples && bytes % 16 == 0;
  if (!gapless || first + count > plan_.slots * shape_.run_samples) return {};
  OwnPages pages(window_, first * bytes, count * bytes, run);
  if (pages.data() != nullptr) return pages;
  return file_.own_pages(plan_.data_offset + first * bytes, count * bytes);
}

bool RingMemory::claim(std::uint64_t run, const LockFile& lives) noexcept {
  Slot& slot = slot_of(run);
  const std::uint64_t word = atomic(slot.word).load();
  const std::uint64_t ours = own_word(ring_layout::claimed, run);
  const auto taken = [&](const char* step) {
    atomic(slot.wanted).store(0);
    atomic(member(self_).beat).fetch_add(1);
    at_step(step);
    return true;
  };
  if (word == 0) return swap(slot.word, 0, ours) && taken("claim:claimed");
  const bool held = stage_of(word) != ring_layout::published;
  if (run_of(word) == run && !held) return false;
  if (run_of(word) > run && !is_left_over(word, lives)) return false;
  if (held && (member_of(word) == self_ || lives.held_by_other(member_of(word)))) return false;
  if (stage_of(word) == ring_layout::claimed) return swap(slot.word, word, ours) && taken("claim:taken");
  if (run_of(word) == run) {  // its clearer is dead, and the run is there
    swap(slot.word, word, with_stage(word, ring_layout::published));
    return false;
  }
  const std::uint64_t marked = own_word(ring_layout::clearing, run_of(word));
  if (!swap(slot.word, word, marked)) return false;
  at_step("claim:cleared");
  if (const std::uint64_t readers = readers_of(slot, lives)) {
    swap(slot.word, marked, with_stage(marked, ring_layout::published));
    std::uint64_t known = atomic(slot.wanted).load();
    while (known < run && !swap(slot.wanted, known, run)) known = atomic(slot.wanted).load();
    for (std::uint32_t who = 0; who < ring_layout::kMembers; ++who) {
      if (readers & bit_of(who)) ring_bell(who);  // whoever keeps it as a view lets go
    }
    return false;
  }
  return swap(slot.word, marked, ours) && taken("claim:claimed");
}

void RingMemory::publish(std::uint64_t run, std::span<const std::uint64_t> done) noexcept {
  Slot& slot = slot_of(run);
  for (std::size_t i = 0; i < std::size(slot.done); ++i) {
    atomic(slot.done[i]).store(i < done.size() ? done[i] : 0, std::memory_order_relaxed);
  }
  at_step("publish:noted");
  swap(slot.word, own_word(ring_layout::claimed, run), own_word(ring_layout::published, run));
  at_step("publish:staged");
  tell(run);
  at_step("publish:told");
}

void RingMemory::release(std::uint64_t run) noexcept {
  swap(slot_of(run).word, own_word(ring_layout::claimed, run), 0);
  at_step("release:freed");
  tell(run);
}

bool RingMemory::enter_reading(std::uint64_t run) noexcept {
  Slot& slot = slot_of(run);
  {
    const std::lock_guard lock(readers_->mutex);
    if (readers_->in_slot[run % plan_.slots]++ == 0) atomic(slot.readers).fetch_or(bit_of(self_));
  }
  // After the bit: who clears the slot now sees it, or we see the clearing.
  const std::uint64_t word = atomic(slot.word).load();
  if (word != 0 && run_of(word) == run && stage_of(word) == ring_layout::published) return true;
  leave_reading(run);
  return false;
}

void RingMemory::leave_reading(std::uint64_t run) noexcept {
  {
    const std::lock_guard lock(readers_->mutex);
    if (--readers_->in_slot[run % plan_.slots] == 0) {
      atomic(slot_of(run).readers).fetch_and(~bit_of(self_));
    }
  }
  tell(run);
}

void RingMemory::forget_readers() {
  // A mutex locked by a thread that was not copied would stay so: a new one, the old one leaks.
  static_cast<void>(readers_.release());
  readers_ = std::make_unique<Readers>();
  readers_->in_slot.resize(plan_.slots);
}

void RingMemory::listen(std::uint64_t run) noexcept {
  atomic(slot_of(run).waiters).fetch_or(bit_of(self_));
}

void RingMemory::tell(std::uint64_t run) noexcept {
  if (atomic(slot_of(run).waiters).load() == 0) return;
  const std::uint64_t waiters = atomic(slot_of(run).waiters).exchange(0);
  for (std::uint32_t who = 0; who < ring_layout::kMembers; ++who) {
    if (waiters & bit_of(who)) ring_bell(who);
  }
}

void RingMemory::ring_bell(std::uint32_t who) const noexcept {
  std::uint32_t& bell = member(who).bell;
  std::atomic_ref(bell).fetch_add(1);
  ::syscall(SYS_futex, &bell, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

RingInfo RingMemory::info(const LockFile* lives) const {
  RingInfo info;
  info.readable = true;
  info.slots = plan_.slots;
  info.slot_bytes = plan_.slot_bytes;
  info.file_bytes = plan_.file_bytes;
  info.sample_bytes = shape_.sample_bytes;
  info.run_samples = shape_.run_samples;
  info.epoch_samples = shape_.epoch_samples;
  info.record = shape_.record;
  for (std::uint64_t run = 0; run < plan_.slots; ++run) {
    const std::uint64_t word = atomic(slot_of(run).word).load();
    info.claimed += stage_of(word) == ring_layout::claimed;
    info.published += stage_of(word) == ring_layout::published;
  }
  for (std::uint32_t who = 0; who < ring_layout::kMembers; ++who) {
    ring_layout::Member& m = member(who);
    const std::uint64_t pid = load(m.pid);
    const bool ours = pid == static_cast<std::uint64_t>(::getpid()) && who == self_;
    if (pid == 0 || !(ours || (lives != nullptr && lives->held_by_other(who)))) continue;
    info.members.push_back({who, pid, load(m.passes), load(m.position), load(m.prepared),
                            load(m.alone), load(m.staged), load(m.began_s)});
  }
  return info;
}

}  // namespace coordl
