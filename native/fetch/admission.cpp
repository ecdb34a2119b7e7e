// ArenaMemory: how an item gets in, and what is done for those who died over it.
#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <memory>
#include <new>

#include "fetch/arena_memory.hpp"
#include "fetch/checksum.hpp"
#include "os/limits.hpp"
#include "os/steps.hpp"

namespace coordl {

using layout::atomic;
using layout::kLine;
using layout::kPage;

// Many may grow at once: they ask the kernel for the same range, which is idempotent.
bool ArenaMemory::grow(std::uint64_t need) noexcept {
  layout::Header& h = header();
  if (need > log_bytes_) return false;
  for (;;) {
    std::uint64_t now = atomic(h.set_aside).load(std::memory_order_acquire);
    if (need <= now) return true;
    if (atomic(h.stopped).load(std::memory_order_relaxed) != 0) return false;
    const std::uint64_t step = layout::growth_step(budget_bytes());
    const std::uint64_t next =
        std::min(log_bytes_, layout::round_up(std::max(need, now + step), kPage));
    int error = ENOMEM;
    try {
      const Allowance allowance = memory_allowance(read_memory_limits(directory_), 0.5);
      at_step("grow:allowed");
      error = next - now <= allowance.bytes ? file_.set_aside(log_offset_ + now, next - now)
                                            : allowance.error();
    } catch (...) {  // out of heap memory while reading the limits: then this is no time to grow
    }
    if (error != 0) {
      // Perhaps another was first and the limits counted its chunk against ours.
      if (atomic(h.set_aside).load(std::memory_order_acquire) != now) continue;
      atomic(h.stopped).store(static_cast<std::uint64_t>(error), std::memory_order_relaxed);
      return false;
    }
    at_step("grow:set_aside");
    atomic(h.set_aside).compare_exchange_strong(now, next, std::memory_order_acq_rel);
    at_step("grow:counted");
  }
}

// Moves the tail past the claim at `at`, whoever's it is, so that its writer may die. Everyone
// writes the same sum. False when the claim leads out of the log: the arena is damaged.
bool ArenaMemory::pass(std::uint64_t at, std::uint64_t claim) noexcept {
  const std::uint64_t payload = layout::claim_payload(claim);
  std::uint64_t end = at + layout::record_bytes(payload);
  if (!within(end, kLine)) return false;
  const std::uint64_t before = atomic(record(at).before).load(std::memory_order_relaxed);
  atomic(record(end).before).store(before + payload, std::memory_order_relaxed);
  at_step("reserve:chained");
  std::uint64_t tail = at;
  atomic(header().tail).compare_exchange_strong(tail, end, std::memory_order_acq_rel);
  return true;
}

// Is it worth another look whether `bytes` fit beside what is held?
// What the loser of a race holds comes back within one copy: worth a short wait, or the last items
// of a budget would be refused by chance. Not for the dead or stopped: a wait that saw nothing move
// is not repeated until something does.
bool ArenaMemory::may_fit(std::uint64_t held, std::uint64_t bytes,
                          std::optional<Clock::time_point>& since) noexcept {
  constexpr auto longest = std::chrono::milliseconds(20);
  const std::uint64_t budget = budget_bytes();
  if (bytes > budget || used_bytes() > budget - bytes) return false;
  if (stuck_at_.load(std::memory_order_relaxed) == held + 1) return false;
  const auto time = Clock::now();
  if (!since) since = time;
  if (time - *since > longest) {
    stuck_at_.store(held + 1, std::memory_order_relaxed);
    return false;
  }
  ::sched_yield();
  return true;
}

std::optional<std::uint64_t> ArenaMemory::reserve(std::uint64_t bytes, std::uint32_t who) noexcept {
  const std::uint64_t size = layout::record_bytes(bytes);
  std::optional<Clock::time_point> since;
  for (;;) {
    const std::uint64_t at = atomic(header().tail).load(std::memory_order_acquire);
    if (at % kLine != 0 || !within(at, kLine)) return std::nullopt;  // damaged
    const std::uint64_t abandoned = sum(&layout::Member::abandoned_bytes);
    const std::uint64_t before = atomic(record(at).before).load(std::memory_order_relaxed);
    const std::uint64_t held = before - std::min(before, abandoned);
    const std::uint64_t budget = budget_bytes();
    if (held > budget || bytes > budget - held) {
      if (!may_fit(held, bytes, since)) return std::nullopt;
      continue;
    }
    if (!grow(at + size + kLine)) return std::nullopt;
    std::uint64_t claim = 0;
    const std::uint64_t ours = layout::make_claim(bytes, who);
    const bool mine = atomic(record(at).claim)
                          .compare_exchange_strong(claim, ours, std::memory_order_acq_rel);
    if (mine) at_step("reserve:claimed");
    if (!pass(at, mine ? ours : claim)) return std::nullopt;
    if (mine) return at;
  }
}

ArenaMemory::Inserted ArenaMemory::insert(ItemKey key, std::uint64_t offset) noexcept {
  const std::uint64_t hash = layout::hash_key(key);
  const std::uint64_t mine = layout::make_slot(hash, offset);
  for (std::uint64_t i = 0; i < probes_; ++i) {
    std::uint64_t slot = 0;
    if (atomic(index_[(hash + i) & slot_mask_])
            .compare_exchange_strong(slot, mine, std::memory_order_acq_rel)) {
      return Inserted::here;
    }
    if (layout::slot_tag(slot) != layout::slot_tag(mine)) continue;
    if (!within(layout::slot_offset(slot), sizeof(layout::Record))) continue;
    // A damaged one is never found again: its item may come in anew.
    if (!passes((hash + i) & slot_mask_, layout::slot_offset(slot))) continue;
    const layout::Record& r = record(layout::slot_offset(slot));
    if (r.key_hi == key.hi && r.key_lo == key.lo) return Inserted::other;
  }
  return Inserted::full;
}

// The whole pages inside an abandoned record go back to the kernel; the record stays for walkers.
// Bytes given back.
std::uint64_t ArenaMemory::give_back_pages(std::uint64_t offset) noexcept {
  const auto bytes = payload(offset);
  if (!bytes) return 0;
  const std::uint64_t begin = log_offset_ + offset + sizeof(layout::Record);
  const std::uint64_t first = layout::round_up(begin, kPage);
  const std::uint64_t end = (begin + bytes->size()) / kPage * kPage;
  return end > first && file_.give_back(first, end - first) ? end - first : 0;
}

void ArenaMemory::abandon(std::uint64_t offset, std::uint32_t who) noexcept {
  atomic(record(offset).stage).store(layout::abandoned, std::memory_order_release);
  at_step("abandon:staged");
  const std::uint64_t claim = atomic(record(offset).claim).load(std::memory_order_relaxed);
  atomic(member(who).abandoned_bytes)
      .fetch_add(layout::claim_payload(claim), std::memory_order_acq_rel);
  at_step("abandon:counted");
  const std::uint64_t returned = give_back_pages(offset);
  at_step("abandon:given_back");
  atomic(member(who).returned_bytes).fetch_add(returned, std::memory_order_relaxed);
}

bool ArenaMemory::admit(ItemKey key, std::span<const std::byte> bytes, int kind,
                        std::uint32_t who) noexcept {
  if (find_offset(key)) return true;
  auto in_flight = atomic(member(who).in_flight);
  in_flight.fetch_add(1, std::memory_order_acq_rel);
  at_step("reserve:begun");
  const bool done = admit_new(key, bytes, kind, who);
  in_flight.fetch_sub(1, std::memory_order_acq_rel);
  if (done) at_step("count:ended");
  return done;
}

bool ArenaMemory::admit_new(ItemKey key, std::span<const std::byte> bytes, int kind,
                            std::uint32_t who) noexcept {
  const auto offset = reserve(bytes.size(), who);
  if (!offset) return find_offset(key).has_value();
  at_step("reserve:passed");
  layout::Record& r = record(*offset);
  r.key_hi = key.hi;
  r.key_lo = key.lo;
  r.kind = static_cast<std::uint64_t>(kind) % layout::kKinds;
  r.checksum = checksum(key, bytes);
  at_step("write:described");
  file_.write(log_offset_ + *offset + sizeof(layout::Record), bytes);
  at_step("write:copied");
  const Inserted inserted = insert(key, *offset);
  if (inserted != Inserted::here) {
    abandon(*offset, who);
    return inserted == Inserted::other;
  }
  at_step("publish:indexed");
  atomic(r.stage).store(layout::published, std::memory_order_release);
  at_step("publish:staged");
  layout::Member& m = member(who);
  const auto counted = static_cast<std::uint64_t>(kind) % layout::kKinds;
  atomic(m.kind_items[counted]).fetch_add(1, std::memory_order_relaxed);
  atomic(m.kind_bytes[counted]).fetch_add(bytes.size(), std::memory_order_relaxed);
  at_step("count:counted");
  return true;
}

void ArenaMemory::repair(const Members& dead) noexcept {
  at_step("repair:found");
  const std::unique_ptr<layout::Member[]> counts(new (std::nothrow)
                                                     layout::Member[layout::kMembers]());
  if (!counts) return;  // the next to join tries again
  // The dead may have claimed at the tail and not moved it.
  const std::uint64_t tail = atomic(header().tail).load(std::memory_order_acquire);
  if (tail % kLine == 0 && within(tail, kLine)) {
    const std::uint64_t claim = atomic(record(tail).claim).load(std::memory_order_acquire);
    if (claim != 0) pass(tail, claim);
  }
  walk([&](std::uint64_t at, std::uint64_t claim) {
    const std::uint32_t who = layout::claim_member(claim);
    if (who >= layout::kMembers || !dead[who]) return;
    layout::Record& r = record(at);
    const std::uint64_t bytes = layout::claim_payload(claim);
    auto stage = atomic(r.stage);
    if (stage.load(std::memory_order_acquire) == layout::reserved) {
      const bool indexed = find_offset({r.key_hi, r.key_lo}) == at;
      stage.store(indexed ? layout::published : layout::abandoned, std::memory_order_release);
    }
    if (stage.load(std::memory_order_relaxed) == layout::published) {
      const std::uint64_t kind = r.kind % layout::kKinds;
      counts[who].kind_items[kind] += 1;
      counts[who].kind_bytes[kind] += bytes;
    } else {
      counts[who].abandoned_bytes += bytes;
      counts[who].returned_bytes += give_back_pages(at);
    }
  });
  at_step("repair:walked");
  const auto put = [](std::uint64_t& word, std::uint64_t value) {
    atomic(word).store(value, std::memory_order_release);
  };
  for (std::uint32_t who = 0; who < layout::kMembers; ++who) {
    if (!dead[who]) continue;
    layout::Member& m = member(who);
    put(m.abandoned_bytes, counts[who].abandoned_bytes);
    put(m.returned_bytes, counts[who].returned_bytes);
    for (std::uint32_t kind = 0; kind < layout::kKinds; ++kind) {
      put(m.kind_items[kind], counts[who].kind_items[kind]);
      put(m.kind_bytes[kind], counts[who].kind_bytes[kind]);
    }
    at_step("repair:counted");
    put(m.in_flight, 0);
  }
}

}  // namespace coordl
