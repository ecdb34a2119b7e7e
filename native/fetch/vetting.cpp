#include "fetch/vetting.hpp"

#include <sys/mman.h>

#include <cerrno>

#include "fetch/checksum.hpp"
#include "fetch/layout.hpp"

namespace coordl {

bool read_in(std::span<const std::byte> mapped) noexcept {
#ifdef MADV_POPULATE_READ
  constexpr int populate = MADV_POPULATE_READ;
#else
  constexpr int populate = 22;  // the kernel may know what its headers here do not
#endif
  const auto begin = reinterpret_cast<std::uintptr_t>(mapped.data()) / layout::kPage * layout::kPage;
  const auto end = reinterpret_cast<std::uintptr_t>(mapped.data()) + mapped.size();
  if (end == begin) return true;
  for (;;) {
    if (::madvise(reinterpret_cast<void*>(begin), end - begin, populate) == 0) return true;
    if (errno == EINVAL) return true;  // an older kernel: page faults read it
    if (errno != EINTR && errno != EAGAIN) return false;
  }
}

bool Vetting::passes(std::uint64_t slot, std::uint64_t offset, std::uint64_t set_aside) noexcept {
  std::uint8_t known = found_[slot].load(std::memory_order_relaxed);
  if (known == kUnknown) {
    known = is_sound(offset, log_.first(set_aside)) ? kGood : kBad;
    if (found_[slot].exchange(known) == kUnknown && known == kBad) failures_.fetch_add(1);
  }
  return known == kGood;
}

bool Vetting::is_sound(std::uint64_t offset, std::span<const std::byte> log) const noexcept {
  constexpr std::uint64_t head = sizeof(layout::Record);
  if (log.size() < head || offset > log.size() - head) return false;
  if (!read_in(log.subspan(offset, head))) return false;
  // Field by field: those not read here may be written meanwhile by who admits the record.
  auto& record = *reinterpret_cast<layout::Record*>(const_cast<std::byte*>(log.data()) + offset);
  const ItemKey key{record.key_hi, record.key_lo};
  const std::uint64_t expected = record.checksum;
  const std::uint64_t bytes =
      layout::claim_payload(layout::atomic(record.claim).load(std::memory_order_relaxed));
  if (bytes > log.size() - head - offset) return false;
  const auto payload = log.subspan(offset + head, bytes);
  if (!read_in(payload)) return false;
  return checksum(key, payload) == expected && check_(payload);
}

}  // namespace coordl
