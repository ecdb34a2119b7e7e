// The file of a staging ring, byte by byte (docs/shared-memory.md says the same in words).
//
//   [0, 4096)                       Header
//   [4096, +64*256)                 Member[64]
//   [slots_offset, +slots*128)      Slot: who has it, who reads it, which of its samples are there
//   [data_offset, +slots*slot_bytes) the samples of slot i, one after the other
//
// All fields are fixed-width, native byte order, and shared fields are only touched through
// std::atomic_ref. Changing anything here means a new kVersion.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace coordl::ring_layout {

inline constexpr std::uint64_t kMagic = 0x31'47'4c'44'52'4f'4f'43;  // "COORDLG1", written last
inline constexpr std::uint32_t kVersion = 2;
inline constexpr std::uint64_t kPage = 4096;
inline constexpr std::uint32_t kMembers = 64;  // as many as a word has bits
inline constexpr std::uint64_t kMostRunSamples = 512;
inline constexpr std::uint64_t kRecordBytes = 2048;
inline constexpr std::uint32_t kOrders = 64;
inline constexpr std::uint32_t kCoreWords = 7;

struct Header {
  std::uint64_t magic;            // 0
  std::uint32_t version;          // 8
  std::uint32_t unused_0;         // 12
  std::uint64_t file_bytes;       // 16
  std::uint64_t slots;            // 24
  std::uint64_t slot_bytes;       // 32  a multiple of 4096
  std::uint64_t sample_bytes;     // 40
  std::uint64_t run_samples;      // 48  consecutive samples of the order that share a slot
  std::uint64_t epoch_samples;    // 56  in one epoch of the order
  std::uint64_t slots_offset;     // 64
  std::uint64_t data_offset;      // 72
  std::uint64_t record_bytes;     // 80  of `record`
  std::uint64_t unused_1[53];     // 88
  std::uint64_t orders[kOrders];  // 512 digest of the order of epoch e, at e mod 64
  std::uint64_t unused_2[128];    // 1024
  char record[kRecordBytes];      // 2048 what members must agree on, as text
};
static_assert(sizeof(Header) == kPage && std::is_trivially_copyable_v<Header>);
static_assert(offsetof(Header, orders) == 512 && offsetof(Header, record) == 2048);

// One per process that has the ring open; it alone writes its own, but for `bell`.
struct Member {
  std::uint64_t incarnation;  // 0    grows with each process that becomes this member
  std::uint64_t pid;          // 8
  std::uint64_t passes;       // 16   passes over the data it is in now
  std::uint64_t position;     // 24   run it needs next, of all epochs
  std::uint64_t beat;         // 32   grows with each sample it prepares and each claim
  std::uint64_t prepared;     // 40   samples it prepared into slots
  std::uint64_t alone;        // 48   for itself
  std::uint64_t staged;       // 56   and those it copied out of slots others had filled
  std::uint64_t began_s;      // 64   when it opened the ring, seconds since 1970
  std::uint64_t cores[kCoreWords];  // 72  bit i: it may run on core i, of the first 448
  std::uint32_t bell;         // 128  rung by whoever changes what it waits for
  std::uint32_t unused_1[31];
};
static_assert(sizeof(Member) == 256 && offsetof(Member, bell) == 128);

struct Slot {
  std::uint64_t word;     // 0   see make_word()
  std::uint64_t readers;  // 8   bit m: member m reads it
  std::uint64_t waiters;  // 16  bit m: member m waits for it to change
  std::uint64_t wanted;   // 24  the latest run that somebody wants it for while it is read
  std::uint64_t unused[4];
  std::uint64_t done[kMostRunSamples / 64];  // 64  bit i: sample i of the run is there
};
static_assert(sizeof(Slot) == 128);
static_assert(std::atomic_ref<std::uint64_t>::is_always_lock_free);

enum Stage : std::uint64_t {
  free_ = 0,
  claimed = 1,    // its member prepares the run
  published = 2,  // all of the run that can be had is there
  clearing = 3,   // its member wants it for another run; the run is still there
};

// A slot's word: run of all epochs (40 bits), incarnation mod 65536 and number of the member that
// claimed it (16 and 6 bits), stage (2). 0 is a free slot.
constexpr std::uint64_t make_word(Stage stage, std::uint64_t run, std::uint32_t member,
                                  std::uint64_t incarnation) {
  return run << 24 | (incarnation & 0xffff) << 8 | std::uint64_t(member) << 2 | stage;
}
constexpr Stage stage_of(std::uint64_t word) { return static_cast<Stage>(word & 3); }
constexpr std::uint32_t member_of(std::uint64_t word) { return std::uint32_t(word >> 2 & 63); }
constexpr std::uint64_t run_of(std::uint64_t word) { return word >> 24; }
constexpr std::uint64_t with_stage(std::uint64_t word, Stage stage) {
  return (word & ~std::uint64_t(3)) | stage;
}
inline constexpr std::uint64_t kMostRuns = std::uint64_t(1) << 40;

// orders[e mod 64]: epoch + 1 (24 bits), digest (40 bits); 0: nobody said yet.
constexpr std::uint64_t make_order(std::uint64_t epoch, std::uint64_t digest) {
  return (epoch + 1) << 40 | (digest & ((std::uint64_t(1) << 40) - 1));
}
constexpr std::uint64_t order_epoch(std::uint64_t order) { return (order >> 40) - 1; }

inline std::atomic_ref<std::uint64_t> atomic(std::uint64_t& word) {
  return std::atomic_ref<std::uint64_t>(word);
}

struct Plan {
  std::uint64_t slots = 0, slot_bytes = 0, slots_offset = 0, data_offset = 0, file_bytes = 0;
};

constexpr std::uint64_t round_up(std::uint64_t n, std::uint64_t step) {
  return (n + step - 1) / step * step;
}

constexpr Plan make_plan(std::uint64_t sample_bytes, std::uint64_t run_samples, std::uint64_t slots) {
  Plan plan;
  plan.slots = slots;
  plan.slot_bytes = round_up(sample_bytes * run_samples, kPage);
  plan.slots_offset = kPage + kMembers * sizeof(Member);
  plan.data_offset = round_up(plan.slots_offset + slots * sizeof(Slot), kPage);
  plan.file_bytes = plan.data_offset + slots * plan.slot_bytes;
  return plan;
}

}  // namespace coordl::ring_layout
