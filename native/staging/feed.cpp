#include "staging/feed.hpp"

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <condition_variable>
#include <deque>
#include <exception>
#include <list>
#include <map>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>

#include "os/signals_blocked.hpp"
#include "os/steps.hpp"
#include "staging/ring_view.hpp"

namespace coordl {
namespace {

int own_cores() noexcept {
  cpu_set_t allowed;
  return ::sched_getaffinity(0, sizeof allowed, &allowed) == 0 ? CPU_COUNT(&allowed) : 1;
}

using Clock = std::chrono::steady_clock;

// How often the ring is looked at while something is wanted of it, should no bell ring; and a holder
// that is silent for as long is looked after: it may be dead.
constexpr int kLookMs = 20;
constexpr int kIdleMs = 1000;
// Samples of claimed runs that are not prepared yet: how deep storage's queue may be.
constexpr std::size_t kMostClaimed = 256;
constexpr std::size_t kLeastClaims = 2;  // one to prepare, one to come
// Runs whose change wakes us; the others are looked at on that occasion.
constexpr std::size_t kListened = 4;
// Views that live at a time, and the share of the slots they and what is held for them may take: the
// rest is copied, for whoever keeps its minibatches and for small rings.
constexpr std::size_t kMostViews = 32;
constexpr std::uint64_t kViewedShare = 4;
// How long whoever keeps a view may take to let go of its slot, though it gave no sign of life.
constexpr auto kSettles = std::chrono::milliseconds(60);
constexpr auto kShareEvery = std::chrono::milliseconds(100);

}  // namespace

struct Feed::State {
  // The part of a minibatch that is in one run.
  struct Piece {
    std::shared_ptr<Portion> portion;
    std::uint64_t run = 0;              // of all epochs
    std::uint64_t from = 0, count = 0;  // samples of the run
    std::size_t row = 0;                // of the minibatch
    std::optional<Clock::time_point> refused{};  // since when its slot could not be claimed
  };
  // A run this process prepares for all.
  struct Claim {
    std::shared_ptr<Ticket> ticket;
    std::size_t left = 0;
  };

  State(std::shared_ptr<Ring> with, std::shared_ptr<Workers> threads, std::vector<std::int64_t> all,
        std::vector<std::int64_t> drawn, FeedOptions asked)
      : ring(std::move(with)),
        workers(std::move(threads)),
        items(std::move(all)),
        indices(std::move(drawn)),
        options(asked),
        prepared_here(ring->epoch_runs()) {}

  void loop() noexcept;
  void take_share();
  bool settle(Piece& piece);
  bool take(Piece& piece);
  bool copy(Piece& piece);
  void count_staged(std::uint64_t run, std::uint64_t samples);
  bool may_view(std::uint64_t first, std::size_t count);
  void give_buffer(Portion& portion);
  void finish(Portion& portion);
  void let_go_of_wanted();
  bool waits_for_readers(Piece& piece, Clock::time_point now);
  bool claim_dead(Piece& piece, Clock::duration silence);
  void prepare(std::uint64_t run);
  void alone(Portion& portion, std::uint64_t run, std::uint64_t from, std::uint64_t count,
             std::size_t row);
  bool may_claim();
  Clock::duration silence_of(std::uint32_t holder, Clock::time_point now);
  void give_up(std::uint32_t holder);
  void row_ended(std::uint64_t run, std::size_t left) noexcept;
  void piece_ended(Portion& portion) noexcept;
  std::shared_ptr<Ticket> ticket_of(std::uint64_t run, std::uint64_t from, std::uint64_t count) const;

  const pid_t pid = ::getpid();
  const std::shared_ptr<Ring> ring;
  const std::shared_ptr<Workers> workers;
  const std::vector<std::int64_t> items, indices;
  const FeedOptions options;

  // Of the feed's thread alone:
  std::list<Piece> pieces;
  Clock::time_point shared_at{};
  int share = 0;
  std::vector<bool> prepared_here;  // runs of this epoch

  mutable std::mutex mutex;  // guards what follows; taken last
  std::condition_variable ready;
  std::deque<Piece> incoming;
  std::map<std::uint64_t, Claim> claims;
  std::vector<std::weak_ptr<RingView>> views;
  std::size_t views_to_come = 0;
  FeedCounts counts;
  std::exception_ptr error;  // that ended the thread
  bool stop = false;
  std::thread thread;
};

void Feed::State::loop() noexcept {
  try {
    for (;;) {
      const std::uint32_t heard = ring->bell();
      {
        const std::lock_guard lock(mutex);
        if (stop) return;
        for (Piece& piece : incoming) pieces.push_back(std::move(piece));
        incoming.clear();
      }
      take_share();
      let_go_of_wanted();
      std::size_t listened = 0;
      pieces.remove_if([&](Piece& piece) {
        if (listened < kListened) ring->listen(piece.run);
        const bool settled = settle(piece);
        if (!settled) ++listened;
        return settled;
      });
      ring->wait(heard, pieces.empty() ? kIdleMs : kLookMs);
    }
  } catch (...) {
    const std::lock_guard lock(mutex);
    error = std::current_exception();
    ready.notify_all();
  }
}

// Each member may have its share of the cores at work.
void Feed::State::take_share() {
  const auto now = Clock::now();
  if (share != 0 && now - shared_at < kShareEvery) return;
  shared_at = now;
  const int members = std::max(1, static_cast<int>(ring->active(1)));
  // Members may be bound to other cores than ours: theirs are shared too.
  const int cores = std::max(options.cores, static_cast<int>(options.cores * std::int64_t(ring->cores()) /
                                                             std::max(1, own_cores())));
  const int threads =
      std::clamp((cores + members - 1) / members, 1, std::min(options.prep_threads, options.cores));
  if (threads != share) workers->limit_prep(threads);
  share = threads;
}

Clock::duration Feed::State::silence_of(std::uint32_t holder, Clock::time_point now) {
  return ring->signs().silence(holder, ring->beat_of(holder), now);
}

void Feed::State::give_up(std::uint32_t holder) {
  if (!ring->signs().give_up(holder)) return;
  const std::lock_guard lock(mutex);
  ++counts.waits;
}

// True when the piece needs no more looking at.
bool Feed::State::settle(Piece& piece) {
  const auto now = Clock::now();
  std::uint32_t holder = 0;
  switch (ring->look(piece.run, holder)) {
    case Run::staged:
      return take(piece);
    case Run::mine:
      return false;
    case Run::open:
      if (!may_claim()) return false;
      if (ring->claim(piece.run)) {
        prepare(piece.run);
        return false;
      }
      // Somebody was faster, or reads what the slot holds.
      if (waits_for_readers(piece, now)) return false;
      break;
    case Run::others: {
      const auto silence = silence_of(holder, now);
      if (claim_dead(piece, silence)) return false;
      if (silence < options.patience) return false;
      give_up(holder);
      break;
    }
    case Run::gone:
      break;
  }
  alone(*piece.portion, piece.run, piece.from, piece.count, piece.row);
  piece_ended(*piece.portion);
  return true;
}

bool Feed::State::claim_dead(Piece& piece, Clock::duration silence) {
  if (silence < std::chrono::milliseconds(kLookMs)) return false;
  if (silence < options.patience && !may_claim()) return false;  // else it would be made here alone
  if (!ring->claim(piece.run)) return false;  // it lives
  {
    const std::lock_guard lock(mutex);
    ++counts.taken;
  }
  prepare(piece.run);
  return true;
}

// Who keeps a view of the slot settles at once, unless it is stopped: then it is waited for once.
bool Feed::State::waits_for_readers(Piece& piece, Clock::time_point now) {
  if (!piece.refused) piece.refused = now;
  const auto waited = now - *piece.refused;
  if (waited < kSettles) return true;
  bool given_up = true;
  std::uint64_t readers = ring->readers(piece.run);
  for (std::uint32_t who = 0; readers != 0; ++who, readers >>= 1) {
    if ((readers & 1) == 0) continue;
    silence_of(who, now);  // a sign since then counts
    if (waited >= options.patience) give_up(who);
    given_up = given_up && ring->signs().given_up(who);
  }
  return waited < options.patience && !(given_up && ring->readers(piece.run) != 0);
}

// Holds a staged run's samples for a view, or copies them.
bool Feed::State::take(Piece& piece) {
  Portion& portion = *piece.portion;
  if (!portion.may_view_) return copy(piece);
  if (!ring->hold(piece.run)) return false;
  if (!ring->whole(piece.run, piece.from, piece.count)) {
    ring->let_go(piece.run);
    give_buffer(portion);
    return copy(piece);
  }
  portion.held_.push_back({piece.run, piece.from, piece.count, piece.row});
  count_staged(piece.run, piece.count);
  bool last = false;
  {
    const std::lock_guard lock(mutex);
    last = portion.pieces_ == 1;
  }
  if (last) finish(portion);
  piece_ended(portion);
  return true;
}

// All of it is held.
void Feed::State::finish(Portion& portion) {
  std::ranges::sort(portion.held_, {}, &Portion::Held::row);
  const Portion::Held& first = portion.held_.front();
  const auto view = RingView::of(ring, first.run, first.from, portion.count_);
  if (view == nullptr) return give_buffer(portion);
  portion.held_.clear();  // the view's now
  portion.memory_ = std::make_shared<Buffer>(view->bytes(), view);
  portion.may_view_ = false;
  const std::lock_guard lock(mutex);
  --views_to_come;
  views.push_back(view);
  counts.viewed += portion.count_;
}

// It is to be no view: what is held of it is copied.
void Feed::State::give_buffer(Portion& portion) {
  const std::size_t bytes = ring->shape().sample_bytes;
  portion.buffer_ = options.pool->take(portion.count_ * bytes);
  portion.memory_ = portion.buffer_;
  for (const Portion::Held& held : portion.held_) {
    const auto from = ring->memory(held.run).subspan(held.from * bytes, held.count * bytes);
    std::ranges::copy(from, portion.buffer_->bytes().subspan(held.row * bytes).begin());
    ring->let_go(held.run);
  }
  portion.held_.clear();
  portion.may_view_ = false;
  const std::lock_guard lock(mutex);
  --views_to_come;
}

// Slots are for whoever is ahead.
void Feed::State::let_go_of_wanted() {
  std::vector<std::shared_ptr<RingView>> live;
  {
    const std::lock_guard lock(mutex);
    std::erase_if(views, [](const auto& view) { return view.expired(); });
    for (const auto& each : views) {
      if (auto view = each.lock()) live.push_back(std::move(view));
    }
  }
  for (const auto& view : live) {
    if (view->wanted()) view->settle();
  }
  for (Piece& piece : pieces) {
    Portion& portion = *piece.portion;
    const bool wanted = std::ranges::any_of(
        portion.held_, [&](const Portion::Held& held) { return ring->wanted(held.run); });
    if (wanted) give_buffer(portion);
  }
}

// Whether a minibatch may become a view, as far as can be told before it is there. With the mutex held.
bool Feed::State::may_view(std::uint64_t first, std::size_t count) {
  const RingShape& shape = ring->shape();
  const std::uint64_t most = ring->slots() / kViewedShare;
  const std::uint64_t slots = (count + shape.run_samples - 1) / shape.run_samples + 1;  // of each like it
  std::erase_if(views, [](const auto& view) { return view.expired(); });
  const std::size_t live = views.size() + views_to_come;
  return options.pool != nullptr && first + count <= shape.epoch_samples && live < kMostViews &&
         slots * (live + 1) <= most;
}

void Feed::State::count_staged(std::uint64_t run, std::uint64_t samples) {
  if (prepared_here[run % ring->epoch_runs()]) return;
  ring->count(0, 0, samples);
  const std::lock_guard lock(mutex);
  counts.staged += samples;
}

bool Feed::State::copy(Piece& piece) {
  const std::size_t bytes = ring->shape().sample_bytes;
  std::vector<bool> done(piece.count);
  const auto out = piece.portion->buffer_->bytes().subspan(piece.row * bytes, piece.count * bytes);
  if (!ring->read(piece.run, piece.from, piece.count, out, done)) return false;
  std::uint64_t staged = piece.count;
  for (std::uint64_t i = 0; i < piece.count; ++i) {
    if (done[i]) continue;
    --staged;  // what could not be prepared natively each job makes as its own data set does
    alone(*piece.portion, piece.run, piece.from + i, 1, piece.row + i);
  }
  count_staged(piece.run, staged);
  piece_ended(*piece.portion);
  return true;
}

std::shared_ptr<Ticket> Feed::State::ticket_of(std::uint64_t run, std::uint64_t from,
                                               std::uint64_t count) const {
  const std::uint64_t at = run % ring->epoch_runs() * ring->shape().run_samples + from;
  return workers->ticket(std::span(items).subspan(at, count), std::span(indices).subspan(at, count),
                         options.key);
}

// Two runs always; more while threads would be idle without, and storage's queue is not deep.
bool Feed::State::may_claim() {
  std::size_t left = 0;
  {
    const std::lock_guard lock(mutex);
    if (claims.size() < kLeastClaims) return true;
    for (const auto& [run, claim] : claims) left += claim.left;
  }
  return left < kMostClaimed && workers->waiting_for_prep() < 2 * static_cast<std::size_t>(share);
}

void Feed::State::prepare(std::uint64_t run) {
  const std::uint64_t first = run % ring->epoch_runs() * ring->shape().run_samples;
  const std::uint64_t count =
      std::min(ring->shape().run_samples, ring->shape().epoch_samples - first);
  prepared_here[run % ring->epoch_runs()] = true;
  try {
    const auto ticket = ticket_of(run, 0, count);
    {
      const std::lock_guard lock(mutex);
      claims[run] = {ticket, count};
    }
    at_step("fill:begun");
    workers->submit(ticket, Place{ring->memory(run), ring,
                                  [this, run](std::size_t left) { row_ended(run, left); }});
  } catch (...) {
    {
      const std::lock_guard lock(mutex);
      claims.erase(run);
    }
    ring->release(run);
    throw;
  }
}

// In a thread of the workers.
void Feed::State::row_ended(std::uint64_t run, std::size_t left) noexcept {
  ring->beat();
  at_step("fill:sample");
  std::shared_ptr<Ticket> ticket;
  {
    const std::lock_guard lock(mutex);
    const auto found = claims.find(run);
    found->second.left = left;
    if (left > 0) return;
    ticket = std::move(found->second.ticket);
    claims.erase(found);
    counts.prepared += ticket->size();
  }
  std::array<std::uint64_t, ring_layout::kMostRunSamples / 64> done{};
  for (std::size_t row = 0; row < ticket->size(); ++row) {
    if (ticket->status(row) == RowStatus::done) done[row / 64] |= std::uint64_t(1) << row % 64;
  }
  ring->publish(run, done);
  ring->count(ticket->size(), 0, 0);
  ring->ring();
}

void Feed::State::alone(Portion& portion, std::uint64_t run, std::uint64_t from, std::uint64_t count,
                        std::size_t row) {
  if (portion.may_view_) give_buffer(portion);
  const auto ticket = ticket_of(run, from, count);
  {
    const std::lock_guard lock(mutex);
    portion.own_.push_back({row, ticket});
    ++portion.pieces_;
    counts.alone += count;
  }
  ring->count(0, count, 0);
  const std::size_t bytes = ring->shape().sample_bytes;
  // Weak: a portion nobody waits for any more may go, and its tickets with it.
  workers->submit(ticket,
                  Place{portion.buffer_->bytes().subspan(row * bytes, count * bytes), portion.buffer_,
                        [this, weak = portion.weak_from_this()](std::size_t left) {
                          const auto held = left == 0 ? weak.lock() : nullptr;
                          if (held) piece_ended(*held);
                        }});
}

void Feed::State::piece_ended(Portion& portion) noexcept {
  std::shared_ptr<Buffer> done;  // let go of outside the mutex
  const std::lock_guard lock(mutex);
  if (--portion.pieces_ > 0) return;
  done = std::move(portion.buffer_);
  ready.notify_all();
}

Feed::Feed(std::shared_ptr<Ring> ring, std::shared_ptr<Workers> workers,
           std::vector<std::int64_t> items, std::vector<std::int64_t> indices, FeedOptions options) {
  const RingShape& shape = ring->shape();
  if (items.size() != shape.epoch_samples || indices.size() != shape.epoch_samples ||
      workers->pass().sample_bytes() != shape.sample_bytes) {
    throw std::invalid_argument(
        "the ring has " + std::to_string(shape.epoch_samples) + " samples of " +
        std::to_string(shape.sample_bytes) + " bytes an epoch, the order " +
        std::to_string(items.size()) + " of " + std::to_string(workers->pass().sample_bytes()));
  }
  if (options.epoch >= ring_layout::kMostRuns / ring->epoch_runs() || options.prep_threads < 1) {
    throw std::invalid_argument("an epoch beyond what a ring counts, or no prep thread");
  }
  ring->ensure_lease();
  state_ = std::make_unique<State>(std::move(ring), std::move(workers), std::move(items),
                                   std::move(indices), options);
  state_->ring->count_pass(1);
  try {
    SignalsBlocked blocked;
    state_->thread = std::thread(&State::loop, state_.get());
    pthread_setname_np(state_->thread.native_handle(), "coordl-share");
  } catch (...) {
    state_->ring->count_pass(-1);
    throw;
  }
}

Feed::~Feed() {
  close();
  // The thread was not copied into a forked child; destroying what it waits on would hang.
  if (state_ && state_->pid != ::getpid()) static_cast<void>(state_.release());
}

void Feed::check_process() const {
  if (state_->pid != ::getpid()) {
    throw std::runtime_error("this iterator's threads live in process " +
                             std::to_string(state_->pid) + ", this is process " +
                             std::to_string(::getpid()) +
                             ", forked from it. Call iter() on the loader again in this process.");
  }
}

std::shared_ptr<Portion> Feed::put(std::uint64_t first, std::size_t count,
                                   std::shared_ptr<Buffer> buffer) {
  check_process();
  State& state = *state_;
  const RingShape& shape = state.ring->shape();
  const std::size_t bytes = count * shape.sample_bytes;
  const bool has_memory = buffer ? buffer->bytes().size() >= bytes : state.options.pool != nullptr;
  if (count == 0 || first >= shape.epoch_samples || count > shape.epoch_samples || !has_memory) {
    throw std::invalid_argument("a minibatch beyond the epoch, or larger than its buffer");
  }
  auto portion = std::make_shared<Portion>();
  if (buffer == nullptr) {
    const std::lock_guard lock(state.mutex);
    portion->may_view_ = state.may_view(first, count);
    state.views_to_come += portion->may_view_;
  }
  if (buffer == nullptr && !portion->may_view_) {
    buffer = state.options.pool->take(bytes);
    portion->memory_ = buffer;
  }
  portion->buffer_ = std::move(buffer);
  portion->first_ = first;
  portion->count_ = count;
  const std::uint64_t runs = state.ring->epoch_runs(), size = shape.run_samples;
  std::vector<State::Piece> pieces;
  for (std::size_t row = 0; row < count;) {
    const std::uint64_t at = (first + row) % shape.epoch_samples;
    const std::uint64_t end = std::min((at / size + 1) * size, shape.epoch_samples);
    const std::uint64_t taken = std::min<std::uint64_t>(end - at, count - row);
    pieces.push_back({portion, state.options.epoch * runs + at / size, at % size, taken, row});
    row += taken;
  }
  state.ring->at(pieces.front().run);
  {
    const std::lock_guard lock(state.mutex);
    if (state.stop) throw std::logic_error("put() after close()");
    portion->pieces_ = pieces.size();
    for (State::Piece& piece : pieces) state.incoming.push_back(std::move(piece));
  }
  state.ring->ring();
  return portion;
}

bool Feed::wait(const Portion& portion, std::chrono::nanoseconds timeout) {
  check_process();
  State& state = *state_;
  std::unique_lock lock(state.mutex);
  const auto ended = [&] { return portion.pieces_ == 0; };
  state.ready.wait_for(lock, timeout, [&] { return ended() || state.stop || state.error; });
  if (!ended() && state.error) std::rethrow_exception(state.error);
  if (!ended() && state.stop) throw std::logic_error("wait() after close()");
  return ended();
}

FeedCounts Feed::counts() const {
  if (state_->pid != ::getpid()) return {};
  const std::lock_guard lock(state_->mutex);
  return state_->counts;
}

void Feed::close() noexcept {
  if (!state_ || state_->pid != ::getpid()) return;
  State& state = *state_;
  std::thread thread;
  {
    const std::lock_guard lock(state.mutex);
    if (state.stop) return;
    state.stop = true;
    thread.swap(state.thread);
  }
  state.ready.notify_all();
  state.ring->ring();
  thread.join();
  state.workers->close();  // its threads publish what they had in hand, or leave it
  std::map<std::uint64_t, State::Claim> claims;
  {
    const std::lock_guard lock(state.mutex);
    claims.swap(state.claims);
    state.incoming.clear();
  }
  for (const auto& [run, claim] : claims) state.ring->release(run);
  for (State::Piece& piece : state.pieces) {
    for (const Portion::Held& held : piece.portion->held_) state.ring->let_go(held.run);
    piece.portion->held_.clear();
  }
  state.pieces.clear();
  for (const auto& each : state.views) {  // what users keep nobody looks after any more
    if (const auto view = each.lock()) view->settle();
  }
  state.ring->count_pass(-1);
}

}  // namespace coordl
