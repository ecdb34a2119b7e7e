// One pass of one job over a group's ring: turns ranges of the epoch's order into minibatches.
//
//   put -> for each run the range touches:  staged by anyone      -> held, or copied out of the slot
//                                           free                  -> claimed, prepared into the slot, staged
//                                           another's to prepare  -> waited for, at most `patience`
//                                           no slot to be had     -> prepared here, for this job alone
//
// One thread of its own does all of that, in the order of put(); prep and fetch are done by Workers.
// A holder that gives no sign of life (a sample prepared, a run claimed) for `patience` is not waited
// for again until it gives one: its runs are prepared here, for this job alone.
//
// A minibatch whose samples are all staged, one after the other, is a view of the ring (RingView): what
// is held of it is not copied. It is copied where that cannot be (the ring's end lies in it, a sample is
// not there or made here, a buffer was given), and where it would hold up others: many views live, or
// a slot it holds is wanted for a later run.
//
// Claims are made as prep threads can take them, two at least: what is not claimed yet, the other
// jobs may. So the work spreads over all of them, and no more of their prep threads work in all than
// there are cores: each member takes its share of them among those that are in a pass.
//
// Thread safety: put() and wait() from any thread of the process that made the Feed; a Portion may be
// looked at once wait() returned true. In a forked child put() and wait() throw, close() and the
// destructor do nothing.
#pragma once
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "prep/buffers.hpp"
#include "prep/workers.hpp"
#include "staging/ring.hpp"

namespace coordl {

// One minibatch: consecutive samples of the epoch's order.
class Portion : public std::enable_shared_from_this<Portion> {
 public:
  std::size_t size() const noexcept { return count_; }
  // Rows that were prepared here for this job alone: row `row` of the minibatch is the ticket's first.
  struct Own {
    std::size_t row;
    std::shared_ptr<Ticket> ticket;
  };
  const std::vector<Own>& own() const noexcept { return own_; }
  // Its samples, where put() was given no buffer for them.
  const std::shared_ptr<Buffer>& memory() const noexcept { return memory_; }

 private:
  friend class Feed;
  struct Held {
    std::uint64_t run, from, count;
    std::size_t row;
  };
  std::shared_ptr<Buffer> buffer_;  // where samples are copied to; null while it may become a view
  std::shared_ptr<Buffer> memory_;
  std::uint64_t first_ = 0;  // position of its first sample in the epoch
  std::size_t count_ = 0;
  std::vector<Held> held_;   // of the feed's thread alone
  bool may_view_ = false;    // it has no buffer yet; of put(), then of the feed's thread
  std::vector<Own> own_;     // guarded by the feed's mutex, as is:
  std::size_t pieces_ = 0;   // not ready yet
};

// Samples of one pass that came from where.
struct FeedCounts {
  std::uint64_t prepared = 0;  // here, for the group
  std::uint64_t alone = 0;     // here, for this job alone
  std::uint64_t staged = 0;    // out of slots another job had filled
  std::uint64_t viewed = 0;    // of all, yielded where they lie in the ring
  std::uint64_t waits = 0;     // times a holder was given up on
  std::uint64_t taken = 0;     // runs taken over from the dead
};

struct FeedOptions {
  std::uint64_t epoch = 0;
  DrawKey key;
  int prep_threads = 1;  // of the workers
  int cores = 1;         // that this process may use; what all members may is shared among them
  std::shared_ptr<BufferPool> pool;  // for minibatches that are no views; null: all are given buffers
  std::chrono::nanoseconds patience = std::chrono::seconds(2);
};

class Feed {
 public:
  // `items` and `indices`: of every sample of the epoch in its order, as Workers::ticket() has them.
  // Throws std::invalid_argument unless they are as many as the ring's epoch has, and as large.
  Feed(std::shared_ptr<Ring> ring, std::shared_ptr<Workers> workers, std::vector<std::int64_t> items,
       std::vector<std::int64_t> indices, FeedOptions options);
  ~Feed();
  Feed(const Feed&) = delete;
  Feed& operator=(const Feed&) = delete;

  // Samples [first, first + count) of the epoch, into the buffer, or without one where they lie (see
  // Portion::memory()); after its last comes its first, for a job that began in its middle. Throws
  // std::invalid_argument.
  std::shared_ptr<Portion> put(std::uint64_t first, std::size_t count, std::shared_ptr<Buffer> buffer);
  // True when all of it is there within `timeout`; throws when the feed was closed before.
  bool wait(const Portion& portion, std::chrono::nanoseconds timeout);
  FeedCounts counts() const;
  // Ends its thread and the workers, gives up what is claimed. Idempotent.
  void close() noexcept;

 private:
  struct State;
  void check_process() const;
  std::unique_ptr<State> state_;  // leaked on purpose in a forked child
};

}  // namespace coordl
