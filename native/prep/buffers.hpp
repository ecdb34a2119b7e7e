// Memory of minibatches: recycled anonymous mappings, on huge pages where the system grants them.
//
// Why not malloc: a fresh float32 minibatch costs more in page faults than in copying; a mapping
// that was used before costs nothing. Mappings are private, so what a consumer writes into its
// minibatch no other consumer sees.
//
// Thread safety: BufferPool::take() and the end of a Buffer may happen in any thread. A forked
// child may drop the buffers it inherited (its copy-on-write pages) without touching the pool.
#pragma once
#include <sys/types.h>

#include <cstddef>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

namespace coordl {

// One anonymous private mapping; unmapped when it dies.
class Mapping {
 public:
  Mapping() = default;
  explicit Mapping(std::size_t bytes);  // throws std::system_error (ENOMEM)
  ~Mapping();
  Mapping(Mapping&& other) noexcept;
  Mapping& operator=(Mapping&& other) noexcept;
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  std::byte* data() const noexcept { return data_; }
  std::size_t size() const noexcept { return size_; }

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

// The memory of one minibatch, a pool's or anybody's: `owner` keeps it, and is let go when the last
// user lets go. Shared from this: so that threads of ours share it with Python without Python's lock,
// which a shared_ptr made from a Python object takes to let go.
class Buffer : public std::enable_shared_from_this<Buffer> {
 public:
  Buffer(std::span<std::byte> bytes, std::shared_ptr<void> owner) noexcept
      : bytes_(bytes), owner_(std::move(owner)) {}
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  // Contents are what the last user left.
  std::span<std::byte> bytes() const noexcept { return bytes_; }

 private:
  std::span<std::byte> bytes_;
  std::shared_ptr<void> owner_;
};

class BufferPool : public std::enable_shared_from_this<BufferPool> {
 public:
  // Keeps at most `max_free` unused mappings; what comes back beyond that is unmapped.
  static std::shared_ptr<BufferPool> create(std::size_t max_free);
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  // 2 MiB aligned when that large. Its memory comes back to the pool, also when whoever made the
  // pool is long gone. Throws std::system_error (ENOMEM).
  std::shared_ptr<Buffer> take(std::size_t bytes);
  std::size_t free_buffers() const;

 private:
  explicit BufferPool(std::size_t max_free);
  void give_back(Mapping mapping) noexcept;

  const std::size_t max_free_;
  const pid_t pid_;
  mutable std::mutex mutex_;
  std::vector<Mapping> free_;  // guarded by mutex_; the last one is the warmest
};

}  // namespace coordl
