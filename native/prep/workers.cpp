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

#include "fetch/checksum.hpp"
#include "os/signals_blocked.hpp"
#include "prep/item.hpp"
#include "prep/keep.hpp"

namespace coordl {
namespace {

using Clock = std::chrono::steady_clock;

std::uint64_t since_ns(Clock::time_point start) {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start).count());
}

void add(std::atomic<std::uint64_t>& counter, std::uint64_t amount) {
  counter.fetch_add(amount, std::memory_order_relaxed);
}

FileRead read_item(const std::string& path, const Part* part, std::vector<std::byte>& bytes,
                   StorageRate& rate) {
  StorageRate::Reading reading(rate);
  const FileRead read = part != nullptr ? read_part(path, part->offset, part->length, bytes)
                                        : read_file(path, bytes);
  if (read.error == 0) reading.got(bytes.size());
  return read;
}

// What was read comes from outside: whatever calls itself an item of ours is decoded without further
// checks. Pending: go on. Our form in a file of the user's is his loader's affair.
RowStatus vet(const Part* part, std::span<const std::byte> bytes) {
  if (part == nullptr) return form_of(bytes) == Form::original ? RowStatus::pending : RowStatus::not_ours;
  const bool whole = checksum({part->offset, part->length}, bytes) == part->checksum;
  return whole && check_item(bytes) ? RowStatus::pending : RowStatus::damaged;
}

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

  State(const ItemTable& table, const Pass& what, Arena* cache, Counters& count,
        const WorkersOptions& with)
      : items(table), pass(what), arena(cache), counters(count), options(with),
        forms(with.form, with.prep_threads) {}

  void start_thread(void (State::*loop)(std::size_t), std::size_t number, const char* name);
  void start_fetch_threads(std::size_t wanted);  // REQUIRES mutex
  void prep_loop(std::size_t number);
  void fetch_loop(std::size_t number);
  bool fits(const Job& job) const;                              // REQUIRES mutex
  void finish(Ticket& ticket);                                  // REQUIRES mutex
  void give_back(std::vector<std::byte>&& bytes) noexcept;      // REQUIRES mutex
  void fetch_row(Ticket::Row& row, std::vector<std::byte>& bytes) noexcept;
  void admit_row(Ticket::Row& row, std::size_t number) noexcept;
  void prep_row(Ticket& ticket, std::size_t number, std::size_t thread) noexcept;
  void drop_read(std::size_t item);

  const pid_t pid = getpid();
  const ItemTable& items;
  const Pass& pass;
  Arena* const arena;
  Counters& counters;
  const WorkersOptions options;
  FormChooser forms;

  std::mutex mutex;  // guards everything below
  std::condition_variable fetch_wake, prep_wake, ticket_done;
  std::deque<Job> missing;            // in epoch order
  std::vector<Job> ready;             // a heap by Later
  std::vector<std::vector<std::byte>> spare;  // read buffers to use again
  std::size_t pending_rows = 0;       // rows submitted and not finished
  std::size_t fetched_bytes = 0;      // read or being read, not yet prepared, not in the arena
  std::uint64_t submitted = 0;
  bool stop = false;
  std::size_t fetch_threads = 0;
  std::vector<std::thread> threads;
  struct PrepThread {  // what one reuses from sample to sample
    Scratch scratch;
    ItemDecoder decoder;
    std::vector<std::byte> rewritten;
  };
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

// Bytes are counted before they are read; one item always passes, however large it is.
bool Workers::State::fits(const Job& job) const {
  return fetched_bytes == 0 ||
         fetched_bytes + items.bytes(job.ticket->rows_[job.row].item) <=
             options.fetched_limit_bytes;
}

void Workers::State::finish(Ticket& ticket) {
  add(counters.samples, 1);
  --pending_rows;
  if (--ticket.unfinished_ > 0) return;
  // Now, not when the last thread lets go of the ticket: the consumer may drop the minibatch at
  // once and ask the pool for the next.
  ticket.buffer_.reset();
  ticket_done.notify_all();
}

void Workers::State::give_back(std::vector<std::byte>&& bytes) noexcept {
  trim(bytes);  // `spare` was reserved for one buffer per fetch thread; more are not worth keeping
  if (spare.size() < spare.capacity()) spare.push_back(std::move(bytes));
}

void Workers::State::fetch_row(Ticket::Row& row, std::vector<std::byte>& bytes) noexcept {
  const ItemKey key = items.key(row.item);
  try {
    if (arena != nullptr) {  // another process may have brought it since the ticket was made
      if (const auto held = arena->find(key)) {
        add(counters.hits, 1);
        row.view = *held;
        return;
      }
    }
    add(counters.misses, 1);
    const std::string path = items.path(row.item);
    const auto start = Clock::now();
    const Part* const part = items.part(row.item);
    const FileRead read = read_item(path, part, bytes, forms.storage());
    if (read.error != 0 || read.truncated) {
      row.status = read.error != 0 ? RowStatus::io_error : RowStatus::truncated;
      row.error = read.error;
    } else {
      add(counters.storage_bytes, bytes.size());
      row.view = bytes;
      row.status = vet(part, bytes);
      if (row.status == RowStatus::damaged) row.view = {};
      // An identity other than the table's is a changed file: good to train on, as any reader
      // would, but its key names the old one.
      row.fresh = arena != nullptr && read.identity == items.identity(row.item);
    }
    add(counters.fetch_ns, since_ns(start));
  } catch (...) {  // bad_alloc
    row.status = RowStatus::io_error;
    row.error = ENOMEM;
  }
}

void Workers::State::drop_read(std::size_t item) {
  const Part whole;
  const Part& part = items.part(item) != nullptr ? *items.part(item) : whole;
  drop_from_page_cache(items.path(item), part.offset, part.length);
}

// Rewrites a fresh item into the form that serves best and admits it; the row then reads what is
// held. Work of a prep thread: it computes.
void Workers::State::admit_row(Ticket::Row& row, std::size_t thread) noexcept {
  PrepThread& mine = *prep_threads[thread];
  const auto start = Clock::now();
  const std::uint64_t room = arena->room_bytes();
  if (room < row.view.size()) return;
  try {
    const DataSetSize size{double(items.size()), double(items.total_bytes()),
                           double(arena->budget_bytes())};
    std::span<const std::byte> bytes = row.view;
    Form form = form_of(bytes);  // a shard's items are in theirs already
    const Form wanted = form == Form::original ? forms.choose(items.key(row.item), size) : form;
    if (wanted != form && mine.decoder.recode(bytes, wanted, true, mine.rewritten) &&
        mine.rewritten.size() <= room) {
      forms.rewritten(wanted, bytes.size(), mine.rewritten.size());
      form = wanted;
      bytes = mine.rewritten;
    }
    if (arena->admit(items.key(row.item), bytes, static_cast<int>(form))) {
      add(counters.admitted_bytes, bytes.size());
      drop_read(row.item);  // held once, in the arena
      if (const auto held = arena->find(items.key(row.item))) row.view = *held;
    }
  } catch (const std::exception&) {  // no memory: the row has its bytes
  }
  trim(mine.rewritten);
  add(counters.admit_ns, since_ns(start));
}

void Workers::State::prep_row(Ticket& ticket, std::size_t number, std::size_t thread) noexcept {
  Ticket::Row& row = ticket.rows_[number];
  if (row.fresh) admit_row(row, thread);
  const auto start = Clock::now();
  const std::size_t bytes = pass.sample_bytes();
  const Form form = form_of(row.view);
  const Prepared result =
      prepare(row.view, pass, ticket.seed_, ticket.epoch_, row.index,
              ticket.buffer_->bytes().subspan(number * bytes, bytes), prep_threads[thread]->scratch);
  row.status = result == Prepared::done ? RowStatus::done : RowStatus::not_ours;
  const std::uint64_t ns = since_ns(start);
  if (result == Prepared::done) {
    forms.prepared(form, ns, items.bytes(row.item));
    add(counters.prepared[static_cast<std::size_t>(form)], 1);
  }
  add(counters.prep_ns, ns);
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
      Ticket::Row& row = job.ticket->rows_[job.row];
      row.charged = items.bytes(row.item);
      fetched_bytes += row.charged;
      if (!spare.empty()) {
        bytes = std::move(spare.back());
        spare.pop_back();
      }
      if (!missing.empty()) fetch_wake.notify_one();  // the next may fit as well
    }
    Ticket::Row& row = job.ticket->rows_[job.row];
    fetch_row(row, bytes);
    std::lock_guard lock(mutex);
    if (row.view.data() == bytes.data() && !row.view.empty()) {
      fetched_bytes += bytes.size() - row.charged;  // the table may not know sizes, or old ones
      row.charged = bytes.size();
      row.owned = std::move(bytes);  // a moved vector keeps its storage: the view stays right
    } else {  // in the arena, or failed: nothing waits in memory of ours
      fetched_bytes -= row.charged;
      row.charged = 0;
      give_back(std::move(bytes));
      fetch_wake.notify_one();
    }
    if (row.status == RowStatus::pending) {
      ready.push_back(std::move(job));  // submit() reserved the room
      std::push_heap(ready.begin(), ready.end(), Later{});
      prep_wake.notify_one();
    } else {
      fetched_bytes -= row.charged;  // it does not wait for prep
      row.charged = 0;
      finish(*job.ticket);
    }
  }
}

void Workers::State::prep_loop(std::size_t number) {
  Job job;
  for (;;) {
    {
      std::unique_lock lock(mutex);
      prep_wake.wait(lock, [&] { return stop || !ready.empty(); });
      if (stop) return;
      std::pop_heap(ready.begin(), ready.end(), Later{});
      job = std::move(ready.back());
      ready.pop_back();
    }
    prep_row(*job.ticket, job.row, number);
    {
      std::lock_guard lock(mutex);
      Ticket::Row& row = job.ticket->rows_[job.row];
      if (row.charged > 0) {
        fetched_bytes -= row.charged;
        row.charged = 0;
        if (!missing.empty()) fetch_wake.notify_one();
      }
      if (row.status == RowStatus::done) {  // what is not ours keeps its bytes for the user's loader
        row.view = {};
        if (row.owned.capacity() > 0) give_back(std::move(row.owned));
      }
      finish(*job.ticket);
    }
    job.ticket.reset();  // outside the lock: the last owner may unmap a buffer
  }
}

Workers::Workers(std::shared_ptr<const ItemTable> items, Pass pass, std::shared_ptr<Arena> arena,
                 WorkersOptions options)
    : items_(std::move(items)),
      pass_(pass),
      arena_(std::move(arena)),
      counters_(std::make_shared<Counters>()) {
  if (options.prep_threads < 1 || options.fetch_threads < 1) {
    throw std::invalid_argument("workers need at least one prep and one fetch thread");
  }
  state_ = std::make_unique<State>(*items_, pass_, arena_.get(), *counters_, options);
  state_->spare.reserve(static_cast<std::size_t>(options.fetch_threads));
  for (int i = 0; i < options.prep_threads; ++i) {
    state_->prep_threads.push_back(std::make_unique<State::PrepThread>());
  }
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

std::shared_ptr<Ticket> Workers::ticket(std::shared_ptr<Buffer> buffer,
                                        std::span<const std::int64_t> items,
                                        std::span<const std::int64_t> indices, std::uint64_t seed,
                                        std::uint64_t epoch) const {
  if (items.size() != indices.size()) {
    throw std::invalid_argument("items and indices differ in length");
  }
  if (buffer->bytes().size() < items.size() * pass_.sample_bytes()) {
    throw std::invalid_argument("the buffer is smaller than the minibatch");
  }
  auto made = std::make_shared<Ticket>();
  made->arena_ = arena_;
  made->buffer_ = std::move(buffer);
  made->seed_ = seed;
  made->epoch_ = epoch;
  made->rows_.resize(items.size());
  for (std::size_t i = 0; i < items.size(); ++i) {
    Ticket::Row& row = made->rows_[i];
    if (items[i] < 0 || static_cast<std::size_t>(items[i]) >= items_->size()) {
      throw std::out_of_range("item " + std::to_string(items[i]) + " of " +
                              std::to_string(items_->size()));
    }
    row.item = static_cast<std::size_t>(items[i]);
    row.index = static_cast<std::uint64_t>(indices[i]);
    const auto held = arena_ ? arena_->find(items_->key(row.item)) : std::nullopt;
    if (held) {
      row.view = *held;
    } else {
      made->missing_.push_back(i);
    }
  }
  return made;
}

void Workers::submit(const std::shared_ptr<Ticket>& ticket) {
  check_process();
  State& state = *state_;
  std::lock_guard lock(state.mutex);
  if (state.stop) throw std::logic_error("submit() after close()");
  if (ticket->unfinished_ != 0) throw std::logic_error("a ticket is submitted once");
  const std::size_t rows = ticket->rows_.size();
  state.ready.reserve(state.pending_rows + rows);  // so that no thread ever allocates to queue
  if (!ticket->missing_.empty()) {
    state.start_fetch_threads(state.missing.size() + ticket->missing_.size());
  }
  ticket->order_ = state.submitted++;
  ticket->unfinished_ = rows;
  state.pending_rows += rows;
  auto next_missing = ticket->missing_.begin();
  for (std::size_t row = 0; row < rows; ++row) {
    if (next_missing != ticket->missing_.end() && *next_missing == row) {
      state.missing.push_back({ticket, row});
      ++next_missing;
    } else {
      state.ready.push_back({ticket, row});
      std::push_heap(state.ready.begin(), state.ready.end(), State::Later{});
    }
  }
  add(counters_->hits, rows - ticket->missing_.size());
  state.prep_wake.notify_all();
  state.fetch_wake.notify_all();
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
