// How fast storage delivers: bytes over the time in which anything was being read, however many
// threads did.
//
// Thread safety: any thread may read, and make Readings, at any time.
#pragma once
#include <chrono>
#include <cstdint>
#include <mutex>

namespace coordl {

class StorageRate {
 public:
  // One read from storage, from its construction to its end, whatever ends it.
  class Reading {
   public:
    explicit Reading(StorageRate& rate) : rate_(rate) { rate_.change(1, 0); }
    ~Reading() { rate_.change(-1, bytes_); }
    Reading(const Reading&) = delete;
    Reading& operator=(const Reading&) = delete;
    void got(std::uint64_t bytes) { bytes_ = bytes; }

   private:
    StorageRate& rate_;
    std::uint64_t bytes_ = 0;
  };

  // A read that was timed elsewhere, while nothing else was being read.
  void add(std::uint64_t bytes, std::chrono::duration<double> seconds) {
    std::lock_guard lock(mutex_);
    busy_ += std::chrono::duration_cast<Clock::duration>(seconds);
    bytes_ += bytes;
  }

  // Bytes/s so far; 0 while nothing was read.
  double bytes_per_s() const {
    std::lock_guard lock(mutex_);
    const double seconds = std::chrono::duration<double>(busy_).count();
    return seconds > 0 ? double(bytes_) / seconds : 0;
  }

 private:
  using Clock = std::chrono::steady_clock;

  void change(int readers, std::uint64_t bytes) {
    std::lock_guard lock(mutex_);
    const auto now = Clock::now();
    if (readers_ > 0) busy_ += now - since_;
    since_ = now;
    readers_ += readers;
    bytes_ += bytes;
  }

  mutable std::mutex mutex_;
  int readers_ = 0;
  Clock::time_point since_;
  Clock::duration busy_{};
  std::uint64_t bytes_ = 0;
};

}  // namespace coordl
