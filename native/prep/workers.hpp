// The threads that turn item numbers into rows of a minibatch, in two stages:
//
//   submit -> [hit: view into the arena] -----------------> ready -> prep threads -> row
//          -> [miss] -> missing -> fetch threads (read) --^         (rewrite, admit)
//
// Both stages work in the order of submission (epoch order), sample by sample, so one huge image
// delays its own minibatch only. Fetched bytes that wait for prep are bounded; minibatches in
// flight are bounded by whoever submits.
//
// Thread safety: ticket(), submit() and wait() may be called from any thread of the process that
// made the Workers; a Ticket's results may be read once wait() returned true. One mutex guards all
// queues. In a forked child every call throws, close() and the destructor do nothing (the threads
// were not copied, their locks may be held for ever).
#pragma once
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "fetch/arena.hpp"
#include "fetch/item_table.hpp"
#include "prep/buffers.hpp"
#include "prep/forms.hpp"
#include "prep/pass.hpp"

namespace coordl {

// What the threads did so far. Relaxed atomics: each is exact, together they may be mid-update.
struct Counters {
  std::atomic<std::uint64_t> samples{0};         // rows finished, errors included
  std::atomic<std::uint64_t> hits{0};            // items found in the arena
  std::atomic<std::uint64_t> misses{0};          // items read (or tried) from storage
  std::atomic<std::uint64_t> storage_bytes{0};   // bytes read from files
  std::atomic<std::uint64_t> admitted_bytes{0};  // of those, bytes the arena took
  std::atomic<std::uint64_t> fetch_ns{0};        // summed over fetch threads
  std::atomic<std::uint64_t> prep_ns{0};         // summed over prep threads
  std::atomic<std::uint64_t> admit_ns{0};        // rewriting and admitting, by prep threads
  std::array<std::atomic<std::uint64_t>, kForms> prepared{};  // samples by the form they came from
};

enum class RowStatus : std::uint8_t {
  pending,
  done,
  not_ours,   // the user's own loader decides; item() has the bytes
  io_error,   // error() has the errno
  truncated,  // the file ended early or changed while it was read
  damaged,    // a shard's bytes are not those its index speaks of
};

// One minibatch on its way: which items, into which buffer, and how each row ended.
class Ticket {
 public:
  std::size_t size() const noexcept { return rows_.size(); }
  const std::vector<std::size_t>& missing() const noexcept { return missing_; }
  RowStatus status(std::size_t row) const { return rows_[row].status; }
  int error(std::size_t row) const { return rows_[row].error; }
  // The encoded bytes of a row that is not ours; valid while the ticket lives.
  std::span<const std::byte> item(std::size_t row) const { return rows_[row].view; }

 private:
  friend class Workers;
  struct Row {
    std::size_t item = 0;
    std::uint64_t index = 0;
    std::span<const std::byte> view;  // into the arena, or into `owned`
    std::vector<std::byte> owned;
    bool fresh = false;  // just read, as the table says it is: the arena may have it
    std::size_t charged = 0;  // bytes counted against the bound on fetched bytes
    RowStatus status = RowStatus::pending;
    int error = 0;
  };
  std::shared_ptr<Arena> arena_;  // keeps the views valid
  std::shared_ptr<Buffer> buffer_;
  std::vector<Row> rows_;
  std::vector<std::size_t> missing_;  // rows not in the arena when the ticket was made
  std::uint64_t seed_ = 0, epoch_ = 0;
  std::uint64_t order_ = 0;    // position among the submitted; guarded by the workers' mutex
  std::size_t unfinished_ = 0;  // guarded by the workers' mutex
};

struct WorkersOptions {
  int prep_threads = 1;
  int fetch_threads = 16;  // started when the first item is missing
  std::size_t fetched_limit_bytes = std::size_t(256) << 20;  // fetched, waiting for prep
  FormPolicy form = FormPolicy::automatic;  // of what is admitted
};

class Workers {
 public:
  // `arena` may be null: then every item is read from storage. Throws std::system_error when
  // threads cannot be had.
  Workers(std::shared_ptr<const ItemTable> items, Pass pass, std::shared_ptr<Arena> arena,
          WorkersOptions options);
  ~Workers();
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  // A minibatch of items[i] drawn with the key (seed, epoch, indices[i]) into row i of `buffer`,
  // which must hold items.size() * pass.sample_bytes() bytes. Nothing is read yet.
  // Throws std::invalid_argument on sizes, std::out_of_range on an item.
  std::shared_ptr<Ticket> ticket(std::shared_ptr<Buffer> buffer,
                                 std::span<const std::int64_t> items,
                                 std::span<const std::int64_t> indices, std::uint64_t seed,
                                 std::uint64_t epoch) const;
  // Starts it. Once per ticket.
  void submit(const std::shared_ptr<Ticket>& ticket);
  // True when every row ended within `timeout`; throws when the workers were closed before.
  bool wait(const Ticket& ticket, std::chrono::nanoseconds timeout);
  // Stops after the samples in hand and joins. Idempotent.
  void close() noexcept;

  const std::shared_ptr<Counters>& counters() const noexcept { return counters_; }
  const Pass& pass() const noexcept { return pass_; }
  // Rates measured so far, by which forms are chosen.
  FormRates form_rates() const;

 private:
  struct State;
  void check_process() const;

  const std::shared_ptr<const ItemTable> items_;
  const Pass pass_;
  const std::shared_ptr<Arena> arena_;
  const std::shared_ptr<Counters> counters_;
  std::unique_ptr<State> state_;  // leaked on purpose in a forked child
};

}  // namespace coordl
