// The arena file, byte by byte (docs/shared-memory.md says the same in words).
//
//   [0, 4096)                      Header
//   [members_offset, +65536)       Member[1024]
//   [index_offset, +8*slots)       one 64-bit word per slot: tag, and where the record is; 0 = free
//   [log_offset, +log_bytes)       records, each 64-byte aligned: Record, payload, padding
//
// All fields are fixed-width, native byte order, and shared fields are only touched through
// std::atomic_ref. Changing anything here means a new kVersion.
#pragma once
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "fetch/item_key.hpp"

namespace coordl::layout {

inline constexpr std::uint64_t kMagic = 0x31'41'4c'44'52'4f'4f'43;  // "COORDLA1", written last
inline constexpr std::uint32_t kVersion = 2;
inline constexpr std::uint64_t kLine = 64;
inline constexpr std::uint64_t kPage = 4096;
inline constexpr std::uint32_t kMembers = 1024;
inline constexpr std::uint64_t kMaxProbes = 512;
inline constexpr std::uint32_t kKinds = 4;  // what admit() calls them is its caller's business

struct Header {
  std::uint64_t magic;           // 0
  std::uint32_t version;         // 8
  std::uint32_t header_bytes;    // 12
  std::uint64_t file_bytes;      // 16  length of the file and of every mapping
  std::uint64_t budget_bytes;    // 24  payload the arena may hold
  std::uint64_t asked_bytes;     // 32  payload its creator asked for
  std::uint64_t slots;           // 40  a power of two
  std::uint64_t members_offset;  // 48
  std::uint64_t index_offset;    // 56
  std::uint64_t log_offset;      // 64
  std::uint64_t log_bytes;       // 72  address space of the log; memory is set aside as it grows
  std::uint64_t chunk_bytes;     // 80  growth step
  std::uint64_t unused_0[5];     // 88
  std::uint64_t tail;            // 128 log bytes claimed; only grows
  std::uint64_t unused_1[7];
  std::uint64_t set_aside;       // 192 log bytes the kernel has promised (fallocate); only grows
  std::uint64_t stopped;         // 200 errno that ended growth, 0 while it may go on
  std::uint64_t unused_2[6];
  std::uint64_t held_bytes;      // 256 payload published or being copied; never above budget_bytes
  std::uint64_t unused_3[7];
  std::uint64_t used_bytes;      // 320 payload published
  std::uint64_t items;           // 328 items published
  std::uint64_t returned_bytes;  // 336 log bytes given back to the kernel (lost races, dead writers)
  std::uint64_t unused_4[5];
  std::uint64_t kind_items[kKinds];  // 384 of the items published, those of each kind
  std::uint64_t kind_bytes[kKinds];  // 416 and their payload
  std::uint8_t unused_5[kPage - 448];
};
static_assert(sizeof(Header) == kPage && std::is_trivially_copyable_v<Header>);
static_assert(offsetof(Header, tail) == 128 && offsetof(Header, set_aside) == 192);
static_assert(offsetof(Header, held_bytes) == 256 && offsetof(Header, used_bytes) == 320);
static_assert(offsetof(Header, kind_items) == 384);

// One per process that holds a lease; which one is which byte of the lock file it has locked.
struct Member {
  std::uint64_t in_flight;  // admissions begun and not ended; not 0 after death: repair its records
  std::uint64_t unused[7];
};
static_assert(sizeof(Member) == kLine && std::is_trivially_copyable_v<Member>);

enum Stage : std::uint64_t {
  reserved = 0,   // being written, or its writer died
  published = 1,  // in the index
  abandoned = 2,  // lost a race, or repaired after its writer's death: dead space
};

struct Record {
  std::uint64_t claim;     // 0   (payload length << 16) | (member + 1); 0 = nothing here yet
  std::uint64_t stage;     // 8
  std::uint64_t key_hi;    // 16
  std::uint64_t key_lo;    // 24
  std::uint64_t checksum;  // 32  of key, length and payload
  std::uint64_t kind;      // 40
  std::uint64_t unused[2];
};
static_assert(sizeof(Record) == kLine && std::is_trivially_copyable_v<Record>);
static_assert(std::atomic_ref<std::uint64_t>::is_always_lock_free);

inline std::atomic_ref<std::uint64_t> atomic(std::uint64_t& word) {
  return std::atomic_ref<std::uint64_t>(word);
}

constexpr std::uint64_t round_up(std::uint64_t n, std::uint64_t step) {
  return (n + step - 1) / step * step;
}
constexpr std::uint64_t record_bytes(std::uint64_t payload) {
  return sizeof(Record) + round_up(payload, kLine);
}
constexpr std::uint64_t make_claim(std::uint64_t payload, std::uint32_t member) {
  return payload << 16 | (member + 1);
}
constexpr std::uint64_t claim_payload(std::uint64_t claim) { return claim >> 16; }
constexpr std::uint32_t claim_member(std::uint64_t claim) {
  return static_cast<std::uint32_t>(claim & 0xffff) - 1;
}

// A slot: high 24 bits of the key's hash, then (record offset / 64 + 1) in 40 bits (64 TiB of log).
constexpr std::uint64_t kOffsetBits = 40;
constexpr std::uint64_t kOffsetMask = (1ull << kOffsetBits) - 1;
constexpr std::uint64_t slot_offset(std::uint64_t slot) { return ((slot & kOffsetMask) - 1) * kLine; }
constexpr std::uint64_t slot_tag(std::uint64_t slot) { return slot >> kOffsetBits; }
constexpr std::uint64_t make_slot(std::uint64_t hash, std::uint64_t offset) {
  return (hash >> kOffsetBits) << kOffsetBits | (offset / kLine + 1);
}
// Keys are hashes already; mixed once more so that keys made by hand spread as well.
constexpr std::uint64_t hash_key(ItemKey key) {
  std::uint64_t h = (key.hi ^ std::rotl(key.lo, 32)) * 0x9e3779b97f4a7c15ull;
  h = (h ^ h >> 31 ^ key.lo) * 0xd6e8feb86659fd93ull;
  return h ^ h >> 32;
}

// Where everything is in an arena of that budget, before it is created.
struct Plan {
  std::uint64_t slots = 0;
  std::uint64_t members_offset = 0, index_offset = 0, log_offset = 0, log_bytes = 0;
  std::uint64_t file_bytes = 0, chunk_bytes = 0;
};

constexpr Plan make_plan(std::uint64_t budget, std::uint64_t expected_items) {
  Plan plan;
  plan.slots = std::bit_ceil(expected_items < 512 ? 1024 : 2 * expected_items);
  plan.members_offset = kPage;
  plan.index_offset = plan.members_offset + kMembers * sizeof(Member);
  plan.log_offset = round_up(plan.index_offset + 8 * plan.slots, kPage);
  // Address space, not memory: twice the payload and some, as a lost race or a dead writer leaves a
  // hole of no memory behind.
  constexpr std::uint64_t some = std::uint64_t(64) << 20;
  plan.log_bytes = round_up(2 * budget + 2 * kLine * plan.slots + some, kPage);
  plan.file_bytes = plan.log_offset + plan.log_bytes;
  const std::uint64_t chunk = round_up(budget / 16, std::uint64_t(64) << 10);
  constexpr std::uint64_t least = std::uint64_t(256) << 10, most = std::uint64_t(64) << 20;
  plan.chunk_bytes = chunk < least ? least : chunk > most ? most : chunk;
  return plan;
}

}  // namespace coordl::layout
