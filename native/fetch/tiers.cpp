#include "fetch/tiers.hpp"

#include <utility>

namespace coordl {

// The finisher of splitmix64, once for each half of the key.
std::uint64_t admission_number(std::uint64_t seed, ItemKey key) noexcept {
  const auto mix = [](std::uint64_t h) {
    h = (h ^ h >> 30) * 0xbf58476d1ce4e5b9ull;
    h = (h ^ h >> 27) * 0x94d049bb133111ebull;
    return h ^ h >> 31;
  };
  return mix(mix(seed + 0x9e3779b97f4a7c15ull + key.hi) + key.lo);
}

Tiers::Tiers(std::shared_ptr<Arena> memory, std::shared_ptr<Arena> disk)
    : memory_(std::move(memory)), disk_(std::move(disk)) {}

std::optional<Held> Tiers::find(ItemKey key) const noexcept {
  if (const auto bytes = find_in_memory(key)) return Held{*bytes, false};
  if (!disk_) return std::nullopt;
  if (const auto bytes = disk_->find(key)) return Held{*bytes, true};
  return std::nullopt;
}

void Tiers::choose(std::uint64_t seed, std::uint64_t limit) noexcept {
  seed_.store(seed, std::memory_order_relaxed);
  limit_.store(limit, std::memory_order_relaxed);
}

bool Tiers::chosen(ItemKey key) const noexcept {
  const std::uint64_t limit = limit_.load(std::memory_order_relaxed);
  return limit == ~std::uint64_t(0) ||
         admission_number(seed_.load(std::memory_order_relaxed), key) <= limit;
}

bool Tiers::takes(ItemKey key, std::uint64_t bytes) const noexcept {
  const auto fits = [&](const auto& arena) { return arena && bytes <= arena->room_bytes(); };
  return chosen(key) && (fits(memory_) || fits(disk_));
}

bool Tiers::admit(ItemKey key, std::span<const std::byte> bytes, int kind) noexcept {
  if (find(key)) return true;
  if (!chosen(key)) return false;
  return (memory_ && memory_->admit(key, bytes, kind)) || (disk_ && disk_->admit(key, bytes, kind));
}

std::uint64_t Tiers::budget_bytes() const noexcept {
  return (memory_ ? memory_->budget_bytes() : 0) + (disk_ ? disk_->budget_bytes() : 0);
}

}  // namespace coordl
