// The threads that turn item numbers into rows of a minibatch, in two stages:
//
//   announce -> [in memory: view into the cache] --------------------------------> ready at submit
//            -> [asked of another server] -> provide() -------------------------^
//            |                            -> read(): it has none --v            |
//            -> [else] -> queue -> fetch threads (cache's disk, storage) --------^
//   submit   -> ready -> prep threads (rewrite, admit, prepare) -> row of the minibatch
//
// Both stages work in the order of announcement (epoch order), sample by sample, so one huge image
// delays its own minibatch only. A ticket may be announced long before it is submitted: what it lacks
// is read ahead, so that the storage always has a deep queue, however few minibatches prep has in
// hand. Fetched bytes that wait for prep are bounded, and reads stop at that bound; since both stages
// keep the same order, what fills it is what prep takes next.
//
// What other servers were asked for is not counted against that bound, as it comes in any order. Who
// asks bounds it.
//
// Thread safety: ticket(), announce(), submit(), provide(), read(), handed_over() and wait() may be called from any thread of the process
// that made the Workers; a Ticket's results may be read once wait() returned true. One mutex guards
// all queues. In a forked child every call throws, close() and the destructor do nothing (the threads
// were not copied, their locks may be held for ever).
#pragma once
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "fetch/item_table.hpp"
#include "fetch/tiers.hpp"
#include "prep/buffers.hpp"
#include "prep/forms.hpp"
#include "prep/pass.hpp"
#include "prep/row.hpp"

namespace coordl {

// Where a ticket's samples go, one after the other.
struct Place {
  std::span<std::byte> memory;
  std::shared_ptr<const void> owner;  // held until the last row ended
  // Called as each row ends, with the number of rows left: in one of the threads, with the workers'
  // mutex held. It must not call them nor throw.
  std::function<void(std::size_t left)> ended;
};

// One minibatch on its way: which items, into which buffer, and how each row ended. Shared from this
// as Buffer is: the last to let go is often a thread of ours.
class Ticket : public std::enable_shared_from_this<Ticket> {
 public:
  std::size_t size() const noexcept { return rows_.size(); }
  // Rows that were in no tier of the cache when the ticket was made: storage will be read.
  const std::vector<std::size_t>& missing() const noexcept { return missing_; }
  RowStatus status(std::size_t row) const { return rows_[row].status; }
  int error(std::size_t row) const { return rows_[row].error; }
  // The encoded bytes of a row that is not ours; valid while the ticket lives.
  std::span<const std::byte> item(std::size_t row) const { return rows_[row].view; }

 private:
  friend class Workers;
  enum class Stage : std::uint8_t { made, announced, submitted };
  std::shared_ptr<Tiers> cache_;  // keeps the views valid
  Place place_;
  std::vector<Row> rows_;
  std::vector<std::size_t> missing_;
  DrawKey key_;
  // Guarded by the workers' mutex:
  Stage stage_ = Stage::made;
  std::uint64_t order_ = 0;  // position among the announced
  std::size_t unfinished_ = 0;
};

struct WorkersOptions {
  int prep_threads = 1;
  int fetch_threads = 16;  // at most; started as items are missing
  std::size_t read_ahead_bytes = std::size_t(256) << 20;  // most that is fetched and waits for prep
  FormPolicy form = FormPolicy::automatic;  // of what is admitted
  int servers = 1;                          // that share the data set, this one included
  std::size_t handover_bytes = 0;           // most that waits to be sent to owners
};

class Workers {
 public:
  // `cache` may be null: then every item is read from storage. Throws std::system_error when
  // threads cannot be had.
  Workers(std::shared_ptr<const ItemTable> items, Pass pass, std::shared_ptr<Tiers> cache,
          WorkersOptions options);
  ~Workers();
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  // A minibatch of items[i] drawn with the key (seed, epoch, indices[i]). Nothing is read yet.
  // Throws std::invalid_argument on sizes, std::out_of_range on an item.
  std::shared_ptr<Ticket> ticket(std::span<const std::int64_t> items,
                                 std::span<const std::int64_t> indices, DrawKey key) const;
  // Fetches what it lacks. Once per ticket, in the order in which the tickets will be submitted.
  // `asked`: rows that another server was or will be asked for. Each must be ended by provide() or read().
  // Throws std::out_of_range on a row beyond the ticket, std::invalid_argument on one that lacks nothing.
  void announce(const std::shared_ptr<Ticket>& ticket, std::span<const std::int64_t> asked = {});
  // What another server gave for an asked row, with the checksum it came with. False when it is not the
  // row's item, which then is asked as before; true also when nobody wants it any more.
  bool provide(const std::shared_ptr<Ticket>& ticket, std::size_t row,
               std::span<const std::byte> bytes, std::uint64_t sum);
  // Asked rows that no server gives: they are read, in their turn. `keeper`: who is to hold them.
  void read(const std::shared_ptr<Ticket>& ticket, std::span<const std::int64_t> rows, Keeper keeper);
  // What was read for other servers' caches; waits for the first up to `timeout`.
  std::vector<FreshItem> handed_over(std::chrono::nanoseconds timeout);
  // Prepares row i of the place from items[i]; announces first what was not. Once per ticket. Throws
  // std::invalid_argument unless the place holds size() * pass.sample_bytes() bytes.
  void submit(const std::shared_ptr<Ticket>& ticket, Place place);
  void submit(const std::shared_ptr<Ticket>& ticket, const std::shared_ptr<Buffer>& buffer) {
    submit(ticket, Place{buffer->bytes(), buffer, {}});
  }
  // From now on at most so many prep threads work at a time (1 to all of them).
  void limit_prep(int threads);
  // Samples that wait for a prep thread now: submitted, and their bytes are here.
  std::size_t waiting_for_prep() const;
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
  const std::shared_ptr<Tiers> cache_;
  const std::shared_ptr<Counters> counters_;
  std::unique_ptr<State> state_;  // leaked on purpose in a forked child
};

}  // namespace coordl
