// Items that were read here and belong to another server's cache, on their way to who sends them.
//
// Bounded: what does not fit is dropped, as it costs a later read from storage and nothing else.
//
// Thread safety: any thread.
#pragma once
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <span>
#include <utility>
#include <vector>

#include "fetch/item_key.hpp"

namespace coordl {

struct FreshItem {
  ItemKey key;
  std::vector<std::byte> bytes;
};

class Handover {
 public:
  // `most_bytes` may wait at a time; 0: nothing is ever taken.
  explicit Handover(std::size_t most_bytes) : most_bytes_(most_bytes) {}

  bool takes(std::size_t bytes) const {
    std::lock_guard lock(mutex_);
    return fits(bytes);
  }
  // Copies the item, unless there is no room. Throws std::bad_alloc.
  void push(ItemKey key, std::span<const std::byte> bytes) {
    FreshItem item{key, {bytes.begin(), bytes.end()}};
    std::lock_guard lock(mutex_);
    if (!fits(bytes.size())) return;
    waiting_bytes_ += bytes.size();
    waiting_.push_back(std::move(item));
    wake_.notify_one();
  }
  // All that wait; waits itself for the first as long as `timeout`, or until close().
  std::vector<FreshItem> take(std::chrono::nanoseconds timeout) {
    std::unique_lock lock(mutex_);
    wake_.wait_for(lock, timeout, [&] { return closed_ || !waiting_.empty(); });
    waiting_bytes_ = 0;
    return std::exchange(waiting_, {});
  }
  void close() noexcept {
    std::lock_guard lock(mutex_);
    closed_ = true;
    wake_.notify_all();
  }

 private:
  bool fits(std::size_t bytes) const { return !closed_ && bytes + waiting_bytes_ <= most_bytes_; }

  const std::size_t most_bytes_;
  mutable std::mutex mutex_;  // guards everything below
  std::condition_variable wake_;
  std::vector<FreshItem> waiting_;
  std::size_t waiting_bytes_ = 0;
  bool closed_ = false;
};

}  // namespace coordl
