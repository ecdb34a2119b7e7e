#include "fetch/arena_memory.hpp"

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include "os/limits.hpp"
#include "os/numa.hpp"
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

std::uint64_t load(std::uint64_t& word) { return atomic(word).load(std::memory_order_relaxed); }

// The geometry, each word read once: what is checked is what is used. Nullopt when it contradicts
// itself or the file: damaged or foreign numbers must not become wild pointers.
std::optional<layout::Plan> geometry(layout::Header& h, std::uint64_t file_bytes) {
  const layout::Plan plan{load(h.slots), load(h.index_offset), load(h.log_offset), load(h.log_bytes),
                          load(h.file_bytes)};
  // The tail first: both only grow, the tail never past what is set aside.
  const std::uint64_t tail = atomic(h.tail).load(std::memory_order_acquire);
  const std::uint64_t set_aside = atomic(h.set_aside).load(std::memory_order_acquire);
  const bool sound =
      load(h.members_offset) == kPage && std::has_single_bit(plan.slots) &&
      plan.index_offset == kPage + layout::kMembers * sizeof(layout::Member) &&
      plan.file_bytes == file_bytes && plan.slots <= file_bytes / 8 &&
      plan.log_offset >= plan.index_offset + 8 * plan.slots && plan.log_offset % kPage == 0 &&
      plan.log_offset <= file_bytes && plan.log_bytes == file_bytes - plan.log_offset &&
      plan.log_bytes % kPage == 0 && set_aside <= plan.log_bytes && tail % kLine == 0 &&
      tail + kLine <= set_aside;
  if (!sound) return std::nullopt;
  return plan;
}

}  // namespace

ArenaMemory::ArenaMemory(SharedFile file, const layout::Plan& plan, std::string directory,
                         ItemCheck check)
    : file_(std::move(file)),
      directory_(std::move(directory)),
      log_(file_.data() + plan.log_offset),
      index_(reinterpret_cast<std::uint64_t*>(file_.data() + plan.index_offset)),
      slot_mask_(plan.slots - 1),
      probes_(std::min(plan.slots, layout::kMaxProbes)),
      log_offset_(plan.log_offset),
      log_bytes_(plan.log_bytes) {
  look_up_promised();
  if (check == nullptr) return;
  vetting_ = std::make_unique<Vetting>(check, plan.slots, std::span(log_, log_bytes_));
  read_in({file_.data(), log_offset_});  // lookups should not wait for the disk
}

ArenaMemory::ArenaMemory(ArenaMemory&& other) noexcept
    : file_(std::move(other.file_)),
      directory_(std::move(other.directory_)),
      log_(other.log_),
      index_(other.index_),
      slot_mask_(other.slot_mask_),
      probes_(other.probes_),
      log_offset_(other.log_offset_),
      log_bytes_(other.log_bytes_),
      promised_(other.promised_.load()),
      vetting_(std::move(other.vetting_)) {}

ArenaMemory ArenaMemory::create(SharedFile file, const layout::Plan& plan,
                                std::uint64_t budget_bytes, std::uint64_t asked_bytes, bool persist,
                                std::string directory, ItemCheck check) {
  interleave_on_nodes(file.data(), file.size());
  const std::uint64_t first = std::min(layout::growth_step(budget_bytes), plan.log_bytes);
  if (const int error = file.set_aside(0, plan.log_offset + first)) {
    throw std::system_error(error, std::generic_category(),
                            "cannot set aside " + std::to_string(plan.log_offset + first) +
                                " bytes in " + directory);
  }
  at_step("open:set_aside");
  auto& h = *reinterpret_cast<layout::Header*>(file.data());
  h.version = layout::kVersion;
  h.persist = persist ? 1 : 0;
  h.file_bytes = file.size();
  h.slots = plan.slots;
  h.members_offset = kPage;
  h.index_offset = plan.index_offset;
  h.log_offset = plan.log_offset;
  h.log_bytes = plan.log_bytes;
  h.budget_bytes = budget_bytes;
  h.asked_bytes = asked_bytes;
  atomic(h.set_aside).store(first, std::memory_order_relaxed);
  at_step("open:described");
  atomic(h.magic).store(layout::kMagic, std::memory_order_release);
  at_step("open:magic");
  return ArenaMemory(std::move(file), plan, std::move(directory), check);
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
  const auto plan = geometry(h, file.size());
  if (!plan) fail(EPROTO, "the arena's header contradicts itself");
  return ArenaMemory(std::move(file), *plan, std::move(directory), check);
}

std::uint64_t ArenaMemory::look_up_promised() const noexcept {
  const std::uint64_t now = atomic(header().set_aside).load(std::memory_order_acquire);
  promised_.store(std::min(now, log_bytes_), std::memory_order_relaxed);
  return std::min(now, log_bytes_);
}

std::optional<std::span<std::byte>> ArenaMemory::payload(std::uint64_t offset) const noexcept {
  const std::uint64_t claim = atomic(record(offset).claim).load(std::memory_order_relaxed);
  const std::uint64_t bytes = layout::claim_payload(claim);
  if (!within(offset, sizeof(layout::Record) + bytes)) [[unlikely]] return std::nullopt;
  return std::span(log_ + offset + sizeof(layout::Record), bytes);
}

template <class Found>
bool ArenaMemory::probe(ItemKey key, const Found& found) const noexcept {
  const std::uint64_t hash = layout::hash_key(key);
  for (std::uint64_t i = 0; i < probes_; ++i) {
    const std::uint64_t number = (hash + i) & slot_mask_;
    const std::uint64_t slot = atomic(index_[number]).load(std::memory_order_acquire);
    if (slot == 0) return false;
    if (layout::slot_tag(slot) != hash >> layout::kOffsetBits) continue;
    const std::uint64_t offset = layout::slot_offset(slot);
    if (!within(offset, sizeof(layout::Record))) [[unlikely]] continue;
    if (found(number, offset)) return true;
  }
  return false;
}

std::optional<std::uint64_t> ArenaMemory::find_offset(ItemKey key, bool any) const noexcept {
  std::uint64_t at = 0;
  const bool found = probe(key, [&](std::uint64_t number, std::uint64_t offset) {
    if (!any && !passes(number, offset)) return false;
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
  if (vetting_ && bytes && !read_in(*bytes)) return std::nullopt;
  return bytes;
}

bool ArenaMemory::seems_held(ItemKey key) const noexcept {
  if (!vetting_) return find_offset(key).has_value();
  return probe(key, [&](std::uint64_t number, std::uint64_t) { return !vetting_->failed(number); });
}

std::uint32_t ArenaMemory::members() const noexcept {
  return static_cast<std::uint32_t>(
      std::min<std::uint64_t>(load(header().members), layout::kMembers));
}

std::uint64_t ArenaMemory::sum(std::uint64_t layout::Member::* count) const noexcept {
  std::uint64_t total = 0;
  for (std::uint32_t i = 0; i < members(); ++i) total += load(member(i).*count);
  return total;
}

std::uint64_t ArenaMemory::used_bytes() const noexcept {
  std::uint64_t total = 0;
  for (std::uint32_t i = 0; i < members(); ++i) {
    for (std::uint64_t& bytes : member(i).kind_bytes) total += load(bytes);
  }
  return total;
}

std::uint64_t ArenaMemory::claimed_bytes() const noexcept {
  const std::uint64_t tail = atomic(header().tail).load(std::memory_order_acquire);
  return within(tail, kLine) ? load(record(tail / kLine * kLine).before) : log_bytes_;
}

std::uint64_t ArenaMemory::held_bytes() const noexcept {
  // In this order: what happens in between can only make the difference smaller, never above budget.
  const std::uint64_t claimed = claimed_bytes();
  const std::uint64_t abandoned = sum(&layout::Member::abandoned_bytes);
  return claimed > abandoned ? claimed - abandoned : 0;
}

std::uint64_t ArenaMemory::budget_bytes() const noexcept { return load(header().budget_bytes); }

bool ArenaMemory::persists() const noexcept {
  return std::atomic_ref(header().persist).load(std::memory_order_relaxed) == 1;
}

std::uint64_t ArenaMemory::room_bytes() const noexcept {
  const std::uint64_t held = held_bytes(), budget = budget_bytes();
  return load(header().stopped) != 0 || held > budget ? 0 : budget - held;
}

ArenaStats ArenaMemory::stats() const noexcept {
  layout::Header& h = header();
  ArenaStats stats;
  stats.budget_bytes = budget_bytes();
  stats.asked_bytes = load(h.asked_bytes);
  stats.most_bytes = layout::budget_of(log_bytes_, slot_mask_ + 1);
  stats.index_slots = slot_mask_ + 1;
  stats.persist = persists();
  stats.held_bytes = held_bytes();
  stats.abandoned_bytes = sum(&layout::Member::abandoned_bytes);
  for (std::uint32_t i = 0; i < members(); ++i) {
    for (std::uint32_t kind = 0; kind < layout::kKinds; ++kind) {
      stats.kind_items[kind] += load(member(i).kind_items[kind]);
      stats.kind_bytes[kind] += load(member(i).kind_bytes[kind]);
    }
  }
  for (const std::uint64_t items : stats.kind_items) stats.items += items;
  for (const std::uint64_t bytes : stats.kind_bytes) stats.used_bytes += bytes;
  stats.damaged = vetting_ ? vetting_->failures() : 0;
  stats.stopped = static_cast<int>(load(h.stopped));
  stats.reserved_bytes =
      log_offset_ + look_up_promised() - sum(&layout::Member::returned_bytes);
  return stats;
}

void ArenaMemory::raise(std::uint64_t asked_bytes) {
  layout::Header& h = header();
  if (asked_bytes > load(h.asked_bytes)) atomic(h.asked_bytes).store(asked_bytes);
  at_step("raise:asked");
  const std::uint64_t now = budget_bytes();
  if (asked_bytes > now) {
    const std::uint64_t slots = slot_mask_ + 1;
    const std::uint64_t records = kLine * slots;  // their headers and padding, the index half full
    const std::uint64_t free = memory_allowance(read_memory_limits(directory_)).bytes;
    const std::uint64_t have =
        look_up_promised() - std::min(look_up_promised(), sum(&layout::Member::returned_bytes));
    const std::uint64_t memory = free >= kUnlimited - have ? kUnlimited : have + free;
    const std::uint64_t next = std::min({asked_bytes, layout::budget_of(log_bytes_, slots),
                                         memory > records ? memory - records : 0});
    if (next > now) atomic(h.budget_bytes).store(next, std::memory_order_relaxed);
    at_step("raise:budget");
  }
  atomic(h.stopped).store(0, std::memory_order_relaxed);
  stuck_at_.store(0, std::memory_order_relaxed);
  at_step("raise:resumed");
}

void ArenaMemory::keep() noexcept {
  std::atomic_ref(header().persist).store(1, std::memory_order_relaxed);
}

void ArenaMemory::enlist(std::uint32_t who) noexcept {
  auto members = atomic(header().members);
  if (members.load() <= who) members.store(who + 1);
}

bool ArenaMemory::needs_repair(std::uint32_t who) const noexcept {
  return atomic(member(who).in_flight).load(std::memory_order_acquire) != 0;
}

}  // namespace coordl
