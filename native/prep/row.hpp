// One sample on its way through the workers, and the steps it takes: fetch, admit, prepare. Queues and
// threads are workers.cpp's.
//
// Thread safety: a Row belongs to one thread at a time; RowSteps may be used by any, each with a
// PrepThread of its own.
#pragma once
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "fetch/item_table.hpp"
#include "fetch/tiers.hpp"
#include "prep/forms.hpp"
#include "prep/item.hpp"
#include "prep/pass.hpp"

namespace coordl {

// What the threads did so far. Relaxed atomics: each is exact, together they may be mid-update.
struct Counters {
  std::atomic<std::uint64_t> samples{0};         // rows finished, errors included
  std::atomic<std::uint64_t> hits{0};            // items found in the cache
  std::atomic<std::uint64_t> disk_hits{0};       // of those, in its tier on a disk
  std::atomic<std::uint64_t> misses{0};          // items read (or tried) from storage
  std::atomic<std::uint64_t> storage_bytes{0};   // bytes read from files
  std::atomic<std::uint64_t> admitted_bytes{0};  // of those, bytes the cache took
  std::atomic<std::uint64_t> read_ahead_bytes{0};  // most that waited for prep at any one time
  std::atomic<std::uint64_t> fetch_ns{0};        // summed over fetch threads
  std::atomic<std::uint64_t> prep_ns{0};         // summed over prep threads
  std::atomic<std::uint64_t> admit_ns{0};        // rewriting and admitting, by prep threads
  std::array<std::atomic<std::uint64_t>, kForms> prepared{};  // samples by the form they came from
};

enum class RowStatus : std::uint8_t {
  pending,
  done,
  not_ours,   // the user's own loader decides; the row has the bytes
  io_error,   // the row has the errno
  truncated,  // the file ended early or changed while it was read
  damaged,    // a shard's bytes are not those its index speaks of
  changed,    // a shard of the user's is another file than the one that was indexed
};

struct Row {
  std::size_t item = 0;
  std::uint64_t index = 0;
  std::span<const std::byte> view;  // into the cache, or into `owned`
  std::vector<std::byte> owned;
  bool fetching = false;    // waits for a fetch thread, or is with one
  bool fresh = false;       // just read, as the table says it is: the cache may have it
  std::size_t charged = 0;  // bytes counted against the bound on fetched bytes
  RowStatus status = RowStatus::pending;
  int error = 0;
};

// What a prep thread reuses from sample to sample.
struct PrepThread {
  Scratch scratch;
  ItemDecoder decoder;
  std::vector<std::byte> rewritten;
};

struct DrawKey {
  std::uint64_t seed = 0, epoch = 0;
};

class RowSteps {
 public:
  RowSteps(const ItemTable& items, const Pass& pass, Tiers* cache, Counters& counters,
           FormChooser& forms)
      : items_(items), pass_(pass), cache_(cache), counters_(counters), forms_(forms) {}

  // Work of a fetch thread: from the cache's disk or from storage, into `bytes`. Waits, hardly computes.
  void fetch(Row& row, std::vector<std::byte>& bytes) noexcept;
  // Work of a prep thread: admits what is fresh, then prepares the sample into `out`.
  void prepare(Row& row, DrawKey key, std::span<std::byte> out, PrepThread& thread) noexcept;

 private:
  bool find(Row& row) noexcept;
  void read(Row& row, std::vector<std::byte>& bytes);
  void admit(Row& row, PrepThread& thread) noexcept;

  const ItemTable& items_;
  const Pass& pass_;
  Tiers* const cache_;
  Counters& counters_;
  FormChooser& forms_;
};

}  // namespace coordl
