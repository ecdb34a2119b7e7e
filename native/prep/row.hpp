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
#include "prep/handover.hpp"
#include "prep/item.hpp"
#include "prep/pass.hpp"

namespace coordl {

// What the threads did so far. Relaxed atomics: each is exact, together they may be mid-update.
struct Counters {
  std::atomic<std::uint64_t> samples{0};         // rows finished, errors included
  std::atomic<std::uint64_t> hits{0};            // items found in the cache
  std::atomic<std::uint64_t> disk_hits{0};       // of those, in its tier on a disk
  std::atomic<std::uint64_t> remote_hits{0};     // items other servers gave
  std::atomic<std::uint64_t> remote_bytes{0};    // bytes of those
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

// Whose cache an item that storage gives is for.
enum class Keeper : std::uint8_t { here, owner, nobody };

struct Row {
  std::size_t item = 0;
  std::uint64_t index = 0;
  std::span<const std::byte> view;  // into the cache, or into `owned`
  std::vector<std::byte> owned;
  bool fetching = false;    // waits for a fetch thread, or is with one
  bool asked = false;       // of another server: nobody here reads it
  bool uncounted = false;   // was asked of one: whoever asks bounds what waits
  Keeper keeper = Keeper::here;
  bool fresh = false;       // just read, as the table says it is: its keeper may have it
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
  // `servers`: how many share the data set, each with a budget like this one's.
  RowSteps(const ItemTable& items, const Pass& pass, Tiers* cache, Counters& counters,
           FormChooser& forms, Handover& handover, int servers)
      : items_(items),
        pass_(pass),
        cache_(cache),
        counters_(counters),
        forms_(forms),
        handover_(handover),
        servers_(servers) {}

  // Work of a fetch thread: from the cache's disk or from storage, into `bytes`. Waits, hardly computes.
  void fetch(Row& row, std::vector<std::byte>& bytes) noexcept;
  // Work of a prep thread: admits what is fresh, then prepares the sample into `out`.
  void prepare(Row& row, DrawKey key, std::span<std::byte> out, PrepThread& thread) noexcept;
  // What another server gave, copied into `bytes`: false, and the row as it was, unless it is the row's
  // item by checksum, length and structure.
  bool take(Row& row, std::span<const std::byte> given, std::uint64_t sum,
            std::vector<std::byte>& bytes) const;

 private:
  bool find(Row& row) noexcept;
  void read(Row& row, std::vector<std::byte>& bytes);
  bool has_room(const Row& row, std::size_t bytes) const;
  void admit(Row& row, PrepThread& thread) noexcept;

  const ItemTable& items_;
  const Pass& pass_;
  Tiers* const cache_;
  Counters& counters_;
  FormChooser& forms_;
  Handover& handover_;
  const int servers_;
};

}  // namespace coordl
