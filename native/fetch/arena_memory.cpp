#include "fetch/arena_memory.hpp"

#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <system_error>
#include <utility>

#include "fetch/checksum.hpp"
#include "os/limits.hpp"
#include "os/refusal.hpp"
#include "os/steps.hpp"

namespace coordl {

using layout::atomic;
using layout::kLine;
using layout::kPage;

namespace {

[[noreturn]] void fail(int error, const std::string& what) {
  throw Refusal(error, what);
}

// Damaged or foreign numbers must not become wild pointers.
bool is_sound(layout::Header& h, std::uint64_t file_bytes) {
  // The tail first: both only grow, the tail never past what is set aside.
  const std::uint64_t tail = atomic(h.tail).load(std::memory_order_acquire);
  const std::uint64_t set_aside = atomic(h.set_aside).load(std::memory_order_acquire);
  return h.header_bytes == sizeof(layout::Header) && h.file_bytes == file_bytes &&
         h.members_offset == kPage && std::has_single_bit(h.slots) &&
         h.index_offset == kPage + layout::kMembers * sizeof(layout::Member) &&
         h.slots <= file_bytes / 8 && h.log_offset >= h.index_offset + 8 * h.slots &&
         h.log_offset % kPage == 0 && h.log_offset <= file_bytes &&
         h.log_bytes == file_bytes - h.log_offset && set_aside <= h.log_bytes &&
         tail <= set_aside && h.chunk_bytes > 0;
}

}  // namespace

ArenaMemory::ArenaMemory(SharedFile file, std::string directory, ItemCheck check)
    : file_(std::move(file)), directory_(std::move(directory)) {
  log_ = file_.data() + header().log_offset;
  index_ = reinterpret_cast<std::uint64_t*>(file_.data() + header().index_offset);
  slot_mask_ = header().slots - 1;
  probes_ = std::min(header().slots, layout::kMaxProbes);
  if (check == nullptr) return;
  vetting_ = std::make_unique<Vetting>(check, header().slots, std::span(log_, header().log_bytes));
  read_in({file_.data(), header().log_offset});  // lookups should not wait for the disk
}

ArenaMemory::ArenaMemory(ArenaMemory&& other) noexcept
    : file_(std::move(other.file_)),
      directory_(std::move(other.directory_)),
      log_(other.log_),
      index_(other.index_),
      slot_mask_(other.slot_mask_),
      probes_(other.probes_),
      vetting_(std::move(other.vetting_)) {}

ArenaMemory ArenaMemory::create(SharedFile file, const layout::Plan& plan,
                                std::uint64_t budget_bytes, std::uint64_t asked_bytes,
                                std::string directory, ItemCheck check) {
  const std::uint64_t first = std::min(plan.chunk_bytes, plan.log_bytes);
  if (const int error = file.set_aside(0, plan.log_offset + first)) {
    throw std::system_error(error, std::generic_category(),
                            "cannot set aside " + std::to_string(plan.log_offset + first) +
                                " bytes in " + directory);
  }
  at_step("open:set_aside");
  auto& h = *reinterpret_cast<layout::Header*>(file.data());
  h.version = layout::kVersion;
  h.header_bytes = sizeof(layout::Header);
  h.file_bytes = file.size();
  h.budget_bytes = budget_bytes;
  h.asked_bytes = asked_bytes;
  h.slots = plan.slots;
  h.members_offset = plan.members_offset;
  h.index_offset = plan.index_offset;
  h.log_offset = plan.log_offset;
  h.log_bytes = plan.log_bytes;
  h.chunk_bytes = plan.chunk_bytes;
  atomic(h.set_aside).store(first, std::memory_order_relaxed);
  at_step("open:described");
  atomic(h.magic).store(layout::kMagic, std::memory_order_release);
  at_step("open:magic");
  return ArenaMemory(std::move(file), std::move(directory), check);
}

ArenaMemory ArenaMemory::attach(SharedFile file, std::string directory, ItemCheck check) {
  if (file.size() < kPage) fail(EPROTO, "the arena is shorter than its header");
  auto& h = *reinterpret_cast<layout::Header*>(file.data());
  if (atomic(h.magic).load(std::memory_order_acquire) != layout::kMagic) {
    fail(EPROTO, "the arena was never finished, or is no arena");
  }
  if (h.version != layout::kVersion) {
    fail(EPROTO, "the arena has layout version " + std::to_string(h.version) +
                     ", this coordl reads version " + std::to_string(layout::kVersion));
  }
  if (!is_sound(h, file.size())) fail(EPROTO, "the arena's header contradicts itself");
  return ArenaMemory(std::move(file), std::move(directory), check);
}

template <class Found>
bool ArenaMemory::probe(ItemKey key, const Found& found) const noexcept {
  const std::uint64_t hash = layout::hash_key(key);
  for (std::uint64_t i = 0; i < probes_; ++i) {
    const std::uint64_t number = (hash + i) & slot_mask_;
    const std::uint64_t slot = atomic(index_[number]).load(std::memory_order_acquire);
    if (slot == 0) return false;
    if (layout::slot_tag(slot) != hash >> layout::kOffsetBits) continue;
    if (found(number, layout::slot_offset(slot))) return true;
  }
  return false;
}

std::optional<std::uint64_t> ArenaMemory::find_offset(ItemKey key) const noexcept {
  std::uint64_t at = 0;
  const bool found = probe(key, [&](std::uint64_t number, std::uint64_t offset) {
    if (vetting_ && !vetting_->passes(number, offset)) return false;
    const layout::Record& r = record(offset);
    at = offset;
    return r.key_hi == key.hi && r.key_lo == key.lo;
  });
  return found ? std::optional(at) : std::nullopt;
}

std::optional<std::span<const std::byte>> ArenaMemory::find(ItemKey key) const noexcept {
  const auto offset = find_offset(key);
  if (!offset) return std::nullopt;
  const auto bytes = payload(*offset);
  // From the disk now, by who asked, instead of page by page by who decodes.
  if (vetting_ && !read_in(bytes)) return std::nullopt;
  return bytes;
}

bool ArenaMemory::seems_held(ItemKey key) const noexcept {
  if (!vetting_) return find_offset(key).has_value();
  return probe(key, [&](std::uint64_t number, std::uint64_t) { return !vetting_->failed(number); });
}

bool ArenaMemory::hold(std::uint64_t bytes) noexcept {
  const std::uint64_t budget = header().budget_bytes;
  if (bytes > budget) return false;
  auto held = atomic(header().held_bytes);
  // What the loser of a race holds comes back within one copy: worth a short wait, or the last
  // items of a budget would be refused by chance. Not for the dead or stopped: a wait that saw
  // nothing move is not repeated until something does.
  constexpr auto longest = std::chrono::milliseconds(20);
  std::optional<std::chrono::steady_clock::time_point> since;
  for (;;) {
    std::uint64_t now = held.load(std::memory_order_relaxed);
    if (now <= budget - bytes) {
      if (held.compare_exchange_weak(now, now + bytes, std::memory_order_acq_rel)) return true;
      continue;
    }
    auto used = atomic(header().used_bytes).load(std::memory_order_relaxed);
    if (used > budget - bytes || stuck_at_.load(std::memory_order_relaxed) == now) return false;
    const auto time = std::chrono::steady_clock::now();
    if (!since) since = time;
    if (time - *since > longest) {
      stuck_at_.store(now, std::memory_order_relaxed);
      return false;
    }
    ::sched_yield();
  }
}

void ArenaMemory::unhold(std::uint64_t bytes) noexcept {
  atomic(header().held_bytes).fetch_sub(bytes, std::memory_order_acq_rel);
}

// Many may grow at once: they ask the kernel for the same range, which is idempotent.
bool ArenaMemory::grow(std::uint64_t need) noexcept {
  layout::Header& h = header();
  for (;;) {
    std::uint64_t now = atomic(h.set_aside).load(std::memory_order_acquire);
    if (need <= now) return true;
    if (need > h.log_bytes || atomic(h.stopped).load(std::memory_order_relaxed) != 0) return false;
    const std::uint64_t next =
        std::min(h.log_bytes, layout::round_up(std::max(need, now + h.chunk_bytes), kPage));
    int error = ENOMEM;
    try {
      const Allowance allowance = memory_allowance(read_memory_limits(directory_), 0.5);
      error = next - now <= allowance.bytes ? file_.set_aside(h.log_offset + now, next - now)
                                            : allowance.error();
    } catch (...) {  // out of heap memory while reading the limits: then this is no time to grow
    }
    if (error != 0) {
      // Perhaps another was first and the limits counted its chunk against ours.
      if (atomic(h.set_aside).load(std::memory_order_acquire) != now) continue;
      atomic(h.stopped).store(static_cast<std::uint64_t>(error), std::memory_order_relaxed);
      return false;
    }
    atomic(h.set_aside).compare_exchange_strong(now, next, std::memory_order_acq_rel);
  }
}

void ArenaMemory::pass(std::uint64_t at, std::uint64_t claim) noexcept {
  const std::uint64_t end = at + layout::record_bytes(layout::claim_payload(claim));
  atomic(header().tail).compare_exchange_strong(at, end, std::memory_order_acq_rel);
}

std::optional<std::uint64_t> ArenaMemory::reserve(std::uint64_t bytes,
                                                  std::uint32_t member) noexcept {
  const std::uint64_t size = layout::record_bytes(bytes);
  auto tail = atomic(header().tail);
  for (;;) {
    std::uint64_t at = tail.load(std::memory_order_acquire);
    if (!grow(at + size)) return std::nullopt;
    std::uint64_t claim = 0;
    const bool mine = atomic(record(at).claim)
                          .compare_exchange_strong(claim, layout::make_claim(bytes, member),
                                                   std::memory_order_acq_rel);
    if (mine) at_step("admit:claimed");
    // Whoever's record it is: move the tail past it, so that its writer may die here.
    pass(at, mine ? layout::make_claim(bytes, member) : claim);
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
    // A damaged one is never found again: its item may come in anew.
    if (vetting_ && !vetting_->passes((hash + i) & slot_mask_, layout::slot_offset(slot))) continue;
    const layout::Record& r = record(layout::slot_offset(slot));
    if (r.key_hi == key.hi && r.key_lo == key.lo) return Inserted::other;
  }
  return Inserted::full;
}

void ArenaMemory::abandon(std::uint64_t offset) noexcept {
  atomic(record(offset).stage).store(layout::abandoned, std::memory_order_release);
  const std::span<std::byte> bytes = payload(offset);
  unhold(bytes.size());
  // The whole pages inside go back to the kernel; the record itself stays for walkers.
  const std::uint64_t begin = header().log_offset + offset + sizeof(layout::Record);
  const std::uint64_t first = layout::round_up(begin, kPage);
  const std::uint64_t end = (begin + bytes.size()) / kPage * kPage;
  if (end > first && file_.give_back(first, end - first)) {
    atomic(header().returned_bytes).fetch_add(end - first, std::memory_order_relaxed);
  }
}

std::uint64_t ArenaMemory::room_bytes() const noexcept {
  layout::Header& h = header();
  const std::uint64_t held = atomic(h.held_bytes).load(std::memory_order_relaxed);
  const bool stopped = atomic(h.stopped).load(std::memory_order_relaxed) != 0;
  return stopped || held > h.budget_bytes ? 0 : h.budget_bytes - held;
}

void ArenaMemory::count(layout::Record& r) noexcept {
  layout::Header& h = header();
  const std::uint64_t bytes = layout::claim_payload(atomic(r.claim).load(std::memory_order_relaxed));
  const std::uint64_t kind = r.kind % layout::kKinds;
  atomic(h.used_bytes).fetch_add(bytes, std::memory_order_relaxed);
  atomic(h.items).fetch_add(1, std::memory_order_relaxed);
  atomic(h.kind_items[kind]).fetch_add(1, std::memory_order_relaxed);
  atomic(h.kind_bytes[kind]).fetch_add(bytes, std::memory_order_relaxed);
}

bool ArenaMemory::admit(ItemKey key, std::span<const std::byte> bytes, int kind,
                        std::uint32_t who) noexcept {
  if (find_offset(key)) return true;
  auto in_flight = atomic(member(who).in_flight);
  in_flight.fetch_add(1, std::memory_order_acq_rel);
  at_step("admit:begun");
  const bool done = admit_new(key, bytes, kind, who);
  in_flight.fetch_sub(1, std::memory_order_acq_rel);
  return done;
}

bool ArenaMemory::admit_new(ItemKey key, std::span<const std::byte> bytes, int kind,
                            std::uint32_t who) noexcept {
  if (!hold(bytes.size())) return find_offset(key).has_value();
  at_step("admit:held");
  const auto offset = reserve(bytes.size(), who);
  if (!offset) {
    unhold(bytes.size());
    return find_offset(key).has_value();
  }
  at_step("admit:reserved");
  layout::Record& r = record(*offset);
  r.key_hi = key.hi;
  r.key_lo = key.lo;
  r.kind = static_cast<std::uint64_t>(kind);
  r.checksum = checksum(key, bytes);
  file_.write(header().log_offset + *offset + sizeof(layout::Record), bytes);
  at_step("admit:copied");
  const Inserted inserted = insert(key, *offset);
  at_step("admit:indexed");
  if (inserted != Inserted::here) {
    abandon(*offset);
    return inserted == Inserted::other;
  }
  atomic(r.stage).store(layout::published, std::memory_order_release);
  at_step("admit:staged");
  count(r);
  at_step("admit:counted");
  return true;
}

ArenaStats ArenaMemory::stats() const noexcept {
  layout::Header& h = header();
  const auto load = [](std::uint64_t& word) { return atomic(word).load(std::memory_order_relaxed); };
  ArenaStats stats;
  stats.budget_bytes = h.budget_bytes;
  stats.asked_bytes = h.asked_bytes;
  stats.used_bytes = load(h.used_bytes);
  stats.items = load(h.items);
  for (std::uint32_t kind = 0; kind < layout::kKinds; ++kind) {
    stats.kind_items[kind] = load(h.kind_items[kind]);
    stats.kind_bytes[kind] = load(h.kind_bytes[kind]);
  }
  stats.stopped = static_cast<int>(load(h.stopped));
  stats.reserved_bytes = h.log_offset + load(h.set_aside) - load(h.returned_bytes);
  return stats;
}

bool ArenaMemory::needs_repair(std::uint32_t who) const noexcept {
  return atomic(member(who).in_flight).load(std::memory_order_acquire) != 0;
}

void ArenaMemory::repair(std::uint32_t who) noexcept {
  // The dead may have claimed at the tail and not moved it.
  std::uint64_t tail = atomic(header().tail).load(std::memory_order_acquire);
  if (tail + sizeof(layout::Record) <= atomic(header().set_aside).load(std::memory_order_acquire)) {
    const std::uint64_t claim = atomic(record(tail).claim).load(std::memory_order_acquire);
    if (claim != 0) pass(tail, claim);
    tail = atomic(header().tail).load(std::memory_order_acquire);
  }
  for (std::uint64_t at = 0; at < tail;) {
    layout::Record& r = record(at);
    const std::uint64_t claim = atomic(r.claim).load(std::memory_order_acquire);
    const std::uint64_t bytes = layout::claim_payload(claim);
    if (bytes > tail - at) break;  // of a file that a power failure left torn: no walking beyond
    if (layout::claim_member(claim) == who &&
        atomic(r.stage).load(std::memory_order_acquire) == layout::reserved) {
      if (find_offset({r.key_hi, r.key_lo}) == at) {
        atomic(r.stage).store(layout::published, std::memory_order_release);
        count(r);
      } else {
        abandon(at);
      }
    }
    at += layout::record_bytes(bytes);
  }
  atomic(member(who).in_flight).store(0, std::memory_order_release);
}

}  // namespace coordl
