#include "prep/workers.hpp"

#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <new>
#include <stdexcept>
#include <system_error>
#include <thread>

#include "os/signals_blocked.hpp"
#include "prep/keep.hpp"

namespace coordl {

namespace {

constexpr std::size_t kUnknownBytes = std::size_t(128) << 10;  // of an item, while none was read

}  // namespace

struct Workers::State {
  struct Job {
    std::shared_ptr<Ticket> ticket;
    std::size_t row = 0;
  };
  // For a heap whose front is the job that comes first in epoch order.
  struct Later {
    bool operator()(const Job& a, const Job& b) const {
      return a.ticket->order_ != b.ticket->order_ ? a.ticket->order_ > b.ticket->order_
                                                  : a.row > b.row;
    }
  };

  State(const ItemTable& table, const Pass& what, Tiers* cache, Counters& count,
        const WorkersOptions& with)
      : items(table), pass(what), counters(count), options(with), forms(with.form, with.prep_threads),
        handover(with.handover_bytes),
        steps(table, what, cache, count, forms, handover, with.servers) {}

  void start_thread(void (State::*loop)(std::size_t), std::size_t number, const char* name);
  void start_fetch_threads(std::size_t wanted);  // REQUIRES mutex
  void prep_loop(std::size_t number);
  void fetch_loop(std::size_t number);
  std::size_t needs(const Job& job) const;                      // REQUIRES mutex
  bool fits(const Job& job) const;                              // REQUIRES mutex
  void finish(Ticket& ticket);                                  // REQUIRES mutex
  void give_back(std::vector<std::byte>&& bytes) noexcept;      // REQUIRES mutex
  void announce(const std::shared_ptr<Ticket>& ticket,
                std::span<const std::int64_t> asked);           // REQUIRES mutex
  void make_ready(const std::shared_ptr<Ticket>& ticket, std::size_t row) noexcept;  // REQUIRES mutex
  void charge(Row& row, std::size_t bytes) noexcept;            // REQUIRES mutex

  const pid_t pid = getpid();
  const ItemTable& items;
  const Pass& pass;
  Counters& counters;
  const WorkersOptions options;
  FormChooser forms;
  Handover handover;
  RowSteps steps;

  std::mutex mutex;  // guards everything below
  std::condition_variable fetch_wake, prep_wake, ticket_done;
  std::deque<Job> missing;            // in epoch order
  std::vector<Job> ready;             // a heap by Later
  std::vector<std::vector<std::byte>> spare;  // read buffers to use again
  std::size_t pending_rows = 0;       // rows announced and not finished
  std::size_t fetched_bytes = 0;      // read or being read, not yet prepared, not in the cache
  std::size_t largest = kUnknownBytes;  // item so far
  std::uint64_t announced = 0;
  std::size_t preparing = 0, prep_limit = 0;  // threads at work, and how many may be
  bool stop = false;
  std::size_t fetch_threads = 0;
  std::vector<std::thread> threads;
  std::vector<std::unique_ptr<PrepThread>> prep_threads;
};

void Workers::State::start_thread(void (State::*loop)(std::size_t), std::size_t number,
                                  const char* name) {
  SignalsBlocked blocked;
  threads.reserve(threads.size() + 1);
  threads.emplace_back(loop, this, number);
  pthread_setname_np(threads.back().native_handle(), name);
}

void Workers::State::start_fetch_threads(std::size_t wanted) {
  wanted = std::min(wanted, static_cast<std::size_t>(options.fetch_threads));
  while (fetch_threads < wanted) {
    try {
      start_thread(&State::fetch_loop, fetch_threads, "coordl-fetch");
    } catch (const std::system_error&) {
      if (fetch_threads == 0) throw;
      return;  // the machine grants no more: fewer do the same work
    }
    ++fetch_threads;
  }
}

// What reading the job's item will take, before it is read: a file nobody has looked at is taken for
// the largest so far.
std::size_t Workers::State::needs(const Job& job) const {
  const std::uint64_t known = items.bytes(job.ticket->rows_[job.row].item);
  return std::max<std::size_t>(known > 0 ? known : largest, spare.empty() ? 0 : spare.back().capacity());
}

// One item always passes, however large it is. So do those that were asked of other servers first: they
// come late, when later minibatches may have filled the bound, and the consumer waits for them.
bool Workers::State::fits(const Job& job) const {
  return job.ticket->rows_[job.row].uncounted || fetched_bytes == 0 || fetched_bytes + needs(job) <= options.read_ahead_bytes;
}

void Workers::State::charge(Row& row, std::size_t bytes) noexcept {
  if (row.uncounted) return;
  fetched_bytes += bytes - row.charged;
  row.charged = bytes;
  if (fetched_bytes > counters.read_ahead_bytes.load(std::memory_order_relaxed)) {
    counters.read_ahead_bytes.store(fetched_bytes, std::memory_order_relaxed);
  }
}

// announce() reserved the room.
void Workers::State::make_ready(const std::shared_ptr<Ticket>& ticket, std::size_t row) noexcept {
  ready.push_back({ticket, row});
  std::push_heap(ready.begin(), ready.end(), Later{});
}

void Workers::State::finish(Ticket& ticket) {
  counters.samples.fetch_add(1, std::memory_order_relaxed);
  --pending_rows;
  const std::size_t left = --ticket.unfinished_;
  if (ticket.place_.ended) ticket.place_.ended(left);
  if (left > 0) return;
  // Now, not when the last thread lets go of the ticket: the consumer may drop the minibatch at
  // once and ask the pool for the next.
  ticket.place_ = {};
  ticket_done.notify_all();
}

void Workers::State::give_back(std::vector<std::byte>&& bytes) noexcept {
  trim(bytes);  // `spare` was reserved for one buffer per fetch thread; more are not worth keeping
  if (spare.size() < spare.capacity()) spare.push_back(std::move(bytes));
}

void Workers::State::fetch_loop(std::size_t) {
  for (;;) {
    Job job;
    std::vector<std::byte> bytes;
    {
      std::unique_lock lock(mutex);
      fetch_wake.wait(lock, [&] { return stop || (!missing.empty() && fits(missing.front())); });
      if (stop) return;
      job = std::move(missing.front());
      missing.pop_front();
      Row& row = job.ticket->rows_[job.row];
      charge(row, needs(job));
      if (!spare.empty()) {
        bytes = std::move(spare.back());
        spare.pop_back();
      }
      if (!missing.empty()) fetch_wake.notify_one();  // the next may fit as well
    }
    Row& row = job.ticket->rows_[job.row];
    steps.fetch(row, bytes);
    std::lock_guard lock(mutex);
    row.fetching = false;
    if (row.view.data() == bytes.data() && !row.view.empty()) {
      largest = std::max(largest, bytes.size());
      charge(row, bytes.capacity());    // the table may not know sizes, or old ones
      row.owned = std::move(bytes);     // a moved vector keeps its storage: the view stays right
    } else {  // in the cache, or failed: nothing waits in memory of ours
      charge(row, 0);
      give_back(std::move(bytes));
      fetch_wake.notify_one();
    }
    if (row.status != RowStatus::pending) {
      charge(row, 0);  // it does not wait for prep
      finish(*job.ticket);
    } else if (job.ticket->stage_ == Ticket::Stage::submitted) {
      make_ready(job.ticket, job.row);
      prep_wake.notify_one();
    }
  }
}

void Workers::State::prep_loop(std::size_t number) {
  Job job;
  for (;;) {
    {
      std::unique_lock lock(mutex);
      prep_wake.wait(lock, [&] { return stop || (!ready.empty() && preparing < prep_limit); });
      if (stop) return;
      ++preparing;
      std::pop_heap(ready.begin(), ready.end(), Later{});
      job = std::move(ready.back());
      ready.pop_back();
    }
    Row& row = job.ticket->rows_[job.row];
    const std::size_t bytes = pass.sample_bytes();
    steps.prepare(row, job.ticket->key_,
                  job.ticket->place_.memory.subspan(job.row * bytes, bytes), *prep_threads[number]);
    {
      std::lock_guard lock(mutex);
      if (row.charged > 0) {
        charge(row, 0);
        if (!missing.empty()) fetch_wake.notify_one();
      }
      if (row.status == RowStatus::done) {  // what is not ours keeps its bytes for the user's loader
        row.view = {};
        if (row.owned.capacity() > 0) give_back(std::move(row.owned));
      }
      --preparing;  // this thread itself takes the next: nobody whom the limit held back is needed
      finish(*job.ticket);
    }
    job.ticket.reset();  // outside the lock: the last owner may unmap a buffer
  }
}

Workers::Workers(std::shared_ptr<const ItemTable> items, Pass pass, std::shared_ptr<Tiers> cache,
                 WorkersOptions options)
    : items_(std::move(items)),
      pass_(pass),
      cache_(std::move(cache)),
      counters_(std::make_shared<Counters>()) {
  if (options.prep_threads < 1 || options.fetch_threads < 1) {
    throw std::invalid_argument("workers need at least one prep and one fetch thread");
  }
  state_ = std::make_unique<State>(*items_, pass_, cache_.get(), *counters_, options);
  state_->spare.reserve(static_cast<std::size_t>(options.fetch_threads));
  for (int i = 0; i < options.prep_threads; ++i) {
    state_->prep_threads.push_back(std::make_unique<PrepThread>());
  }
  state_->prep_limit = state_->prep_threads.size();
  try {
    std::lock_guard lock(state_->mutex);
    for (int i = 0; i < options.prep_threads; ++i) {
      state_->start_thread(&State::prep_loop, static_cast<std::size_t>(i), "coordl-prep");
    }
  } catch (...) {
    close();
    throw;
  }
}

Workers::~Workers() {
  close();
  // The threads were not copied into a forked child; destroying what they wait on would hang.
  if (state_ && state_->pid != getpid()) static_cast<void>(state_.release());
}

void Workers::check_process() const {
  if (state_->pid != getpid()) {
    throw std::runtime_error("this iterator's threads live in process " +
                             std::to_string(state_->pid) + ", this is process " +
                             std::to_string(getpid()) +
                             ", forked from it. Call iter() on the loader again in this process.");
  }
}

std::shared_ptr<Ticket> Workers::ticket(std::span<const std::int64_t> items,
                                        std::span<const std::int64_t> indices, DrawKey key) const {
  if (items.size() != indices.size()) {
    throw std::invalid_argument("items and indices differ in length");
  }
  auto made = std::make_shared<Ticket>();
  made->cache_ = cache_;
  made->key_ = key;
  made->rows_.resize(items.size());
  for (std::size_t i = 0; i < items.size(); ++i) {
    Row& row = made->rows_[i];
    if (items[i] < 0 || static_cast<std::size_t>(items[i]) >= items_->size()) {
      throw std::out_of_range("item " + std::to_string(items[i]) + " of " +
                              std::to_string(items_->size()));
    }
    row.item = static_cast<std::size_t>(items[i]);
    row.index = static_cast<std::uint64_t>(indices[i]);
    const ItemKey item = items_->key(row.item);
    if (const auto held = cache_ ? cache_->find_in_memory(item) : std::nullopt) {
      row.view = *held;
      continue;
    }
    row.fetching = true;
    if (!cache_ || !cache_->seems_on_disk(item)) made->missing_.push_back(i);
  }
  return made;
}

void Workers::State::announce(const std::shared_ptr<Ticket>& ticket,
                              std::span<const std::int64_t> asked) {
  if (stop) throw std::logic_error("a ticket after close()");
  if (ticket->stage_ != Ticket::Stage::made) throw std::logic_error("a ticket is used once");
  std::vector<Row>& rows = ticket->rows_;
  for (const std::int64_t row : asked) {
    Row& here = rows.at(static_cast<std::size_t>(row));
    if (!here.fetching) throw std::invalid_argument("a row that lacks nothing was asked for");
    here.asked = true;
  }
  ready.reserve(pending_rows + rows.size());  // so that no thread ever allocates to queue
  const auto wanted = static_cast<std::size_t>(
      std::count_if(rows.begin(), rows.end(), [](const Row& row) { return row.fetching; }));
  if (wanted > asked.size()) start_fetch_threads(missing.size() + wanted - asked.size());
  for (std::size_t row = 0; row < rows.size(); ++row) {
    if (rows[row].fetching && !rows[row].asked) missing.push_back({ticket, row});
  }
  ticket->stage_ = Ticket::Stage::announced;
  ticket->order_ = announced++;
  ticket->unfinished_ = rows.size();
  pending_rows += rows.size();
  counters.hits.fetch_add(rows.size() - wanted, std::memory_order_relaxed);
  if (wanted > 0) fetch_wake.notify_all();
}

void Workers::announce(const std::shared_ptr<Ticket>& ticket, std::span<const std::int64_t> asked) {
  check_process();
  std::lock_guard lock(state_->mutex);
  state_->announce(ticket, asked);
}

bool Workers::provide(const std::shared_ptr<Ticket>& ticket, std::size_t number,
                      std::span<const std::byte> bytes, std::uint64_t sum) {
  check_process();
  State& state = *state_;
  std::vector<std::byte> own;
  {
    std::lock_guard lock(state.mutex);
    if (state.stop || !ticket->rows_.at(number).asked) return true;
    if (!state.spare.empty()) {
      own = std::move(state.spare.back());
      state.spare.pop_back();
    }
  }
  Row& row = ticket->rows_[number];  // ours until `asked` is cleared
  const bool right = state.steps.take(row, bytes, sum, own);
  std::lock_guard lock(state.mutex);
  if (!right) {
    state.give_back(std::move(own));
    return false;
  }
  counters_->remote_hits.fetch_add(1, std::memory_order_relaxed);
  counters_->remote_bytes.fetch_add(own.size(), std::memory_order_relaxed);
  row.owned = std::move(own);
  row.view = row.owned;
  row.asked = row.fetching = false;
  if (!state.stop && ticket->stage_ == Ticket::Stage::submitted) {
    state.make_ready(ticket, number);
    state.prep_wake.notify_one();
  }
  return true;
}

void Workers::read(const std::shared_ptr<Ticket>& ticket, std::span<const std::int64_t> rows,
                   Keeper keeper) {
  check_process();
  State& state = *state_;
  std::lock_guard lock(state.mutex);
  if (state.stop) return;
  const auto earlier = [](const State::Job& a, const State::Job& b) { return State::Later{}(b, a); };
  for (const std::int64_t number : rows) {
    const auto at = static_cast<std::size_t>(number);
    Row& row = ticket->rows_.at(at);
    if (!row.asked) continue;
    row.asked = false;
    row.uncounted = true;
    row.keeper = keeper;
    const State::Job job{ticket, at};
    state.missing.insert(
        std::upper_bound(state.missing.begin(), state.missing.end(), job, earlier), job);
  }
  state.start_fetch_threads(state.missing.size());
  state.fetch_wake.notify_all();
}

std::vector<FreshItem> Workers::handed_over(std::chrono::nanoseconds timeout) {
  check_process();
  return state_->handover.take(timeout);
}

void Workers::submit(const std::shared_ptr<Ticket>& ticket, Place place) {
  check_process();
  if (place.memory.size() < ticket->rows_.size() * pass_.sample_bytes()) {
    throw std::invalid_argument("the buffer is smaller than the minibatch");
  }
  State& state = *state_;
  std::lock_guard lock(state.mutex);
  if (state.stop) throw std::logic_error("submit() after close()");
  if (ticket->stage_ == Ticket::Stage::submitted) throw std::logic_error("a ticket is submitted once");
  if (ticket->stage_ == Ticket::Stage::made) state.announce(ticket, {});
  ticket->stage_ = Ticket::Stage::submitted;
  if (ticket->unfinished_ == 0) {  // nothing could be read
    if (place.ended) place.ended(0);
    return;
  }
  ticket->place_ = std::move(place);
  for (std::size_t row = 0; row < ticket->rows_.size(); ++row) {
    const Row& here = ticket->rows_[row];
    if (!here.fetching && here.status == RowStatus::pending) state.make_ready(ticket, row);
  }
  state.prep_wake.notify_all();
}

void Workers::limit_prep(int threads) {
  check_process();
  std::lock_guard lock(state_->mutex);
  state_->prep_limit = std::clamp<std::size_t>(static_cast<std::size_t>(std::max(threads, 1)), 1,
                                               state_->prep_threads.size());
  state_->prep_wake.notify_all();
}

std::size_t Workers::waiting_for_prep() const {
  check_process();
  std::lock_guard lock(state_->mutex);
  return state_->ready.size();
}

bool Workers::wait(const Ticket& ticket, std::chrono::nanoseconds timeout) {
  check_process();
  std::unique_lock lock(state_->mutex);
  const auto ended = [&] { return ticket.unfinished_ == 0; };
  state_->ticket_done.wait_for(lock, timeout, [&] { return ended() || state_->stop; });
  if (!ended() && state_->stop) throw std::logic_error("wait() after close()");
  return ended();
}

void Workers::close() noexcept {
  if (!state_ || state_->pid != getpid()) return;
  std::vector<std::thread> threads;
  {
    std::lock_guard lock(state_->mutex);
    state_->stop = true;
    threads.swap(state_->threads);
  }
  state_->handover.close();
  state_->fetch_wake.notify_all();
  state_->prep_wake.notify_all();
  state_->ticket_done.notify_all();
  for (std::thread& thread : threads) thread.join();
  std::deque<State::Job> missing;
  std::vector<State::Job> ready;
  std::lock_guard lock(state_->mutex);
  missing.swap(state_->missing);  // let go of the tickets nobody will finish
  ready.swap(state_->ready);
  state_->spare.clear();
}

FormRates Workers::form_rates() const { return state_->forms.rates(); }

}  // namespace coordl
