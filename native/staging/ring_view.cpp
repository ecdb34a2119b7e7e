#include "staging/ring_view.hpp"

#include <pthread.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "os/lock_file.hpp"

namespace coordl {
namespace {

// Views of this process that may not have settled. Held through a fork, so that none is made between
// its preparation and the fork.
std::mutex live_mutex;
std::vector<RingView*>& live_views() {
  static auto* views = new std::vector<RingView*>;  // outlives whoever lets go at exit
  return *views;
}

void before_fork() {
  live_mutex.lock();
  for (RingView* view : live_views()) view->settle(true);
}
void after_fork() { live_mutex.unlock(); }
void in_child() {
  live_views().clear();  // they are the parent's
  live_mutex.unlock();
}

}  // namespace

struct RingView::Key {};

std::shared_ptr<RingView> RingView::of(std::shared_ptr<Ring> ring, std::uint64_t run,
                                       std::uint64_t from, std::uint64_t count) {
  OwnPages pages = ring->own_pages(run, from, count);
  if (pages.data() == nullptr) return nullptr;
  const RingShape& shape = ring->shape();
  const std::uint64_t runs = (from + count + shape.run_samples - 1) / shape.run_samples;
  const std::size_t bytes = count * shape.sample_bytes;
  return std::make_shared<RingView>(Key{}, std::move(ring), run, runs, std::move(pages), bytes);
}

RingView::RingView(Key, std::shared_ptr<Ring> ring, std::uint64_t run, std::uint64_t runs,
                   OwnPages pages, std::size_t bytes)
    : ring_(std::move(ring)),
      run_(run),
      runs_(runs),
      pages_(std::move(pages)),
      bytes_(bytes),
      generation_(fork_generation()) {
  [[maybe_unused]] static const int handled = ::pthread_atfork(before_fork, after_fork, in_child);
  const std::lock_guard lock(live_mutex);
  live_views().push_back(this);
}

RingView::~RingView() {
  if (generation_ != fork_generation()) return;  // a copy in a forked child, which holds nothing
  {
    const std::lock_guard lock(live_mutex);
    std::erase(live_views(), this);
  }
  if (!settled_) let_go();
}

bool RingView::wanted() const noexcept {
  const std::lock_guard lock(mutex_);
  if (settled_) return false;
  for (std::uint64_t run = run_; run < run_ + runs_; ++run) {
    if (ring_->wanted(run)) return true;
  }
  return false;
}

void RingView::settle(bool keeps_ring) noexcept {
  if (generation_ != fork_generation()) return;
  std::shared_ptr<Ring> ring;  // let go of outside the mutex: this may end the process's membership
  {
    const std::lock_guard lock(mutex_);
    if (!settled_) {
      settled_ = true;
      pages_.make_own();
      let_go();
    }
    if (!keeps_ring) ring = std::move(ring_);
  }
}

void RingView::let_go() noexcept {
  for (std::uint64_t run = run_; run < run_ + runs_; ++run) ring_->let_go(run);
}

}  // namespace coordl
