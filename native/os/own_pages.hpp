// A part of a shared file as this process's own memory: it reads what the file holds, and what is
// written to it is nobody else's.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "os/own_window.hpp"

namespace coordl {

class OwnPages {
 public:
  OwnPages() = default;
  // Bytes [offset, offset + bytes) of an open file. data() is null when it cannot be mapped.
  OwnPages(int fd, std::uint64_t offset, std::size_t bytes) noexcept;
  // Bytes [from, from + bytes) of a window; data() is null when they cannot be had there now.
  OwnPages(std::shared_ptr<OwnWindow> window, std::uint64_t from, std::size_t bytes,
           std::uint64_t tag) noexcept;
  ~OwnPages();
  OwnPages(OwnPages&& other) noexcept
      : window_(std::move(other.window_)),
        base_(std::exchange(other.base_, nullptr)),
        mapped_(other.mapped_),
        data_(other.data_) {}
  OwnPages& operator=(OwnPages&&) = delete;

  std::byte* data() const noexcept { return base_ == nullptr ? nullptr : data_; }
  // Copies what is still the file's, so that the file may be written to. Whoever reads or writes here
  // meanwhile notices nothing. Slow without memory: the kernel kills where it promised too much.
  void make_own() noexcept;

 private:
  std::shared_ptr<OwnWindow> window_;  // null: a mapping of its own
  std::byte* base_ = nullptr;
  std::size_t mapped_ = 0;
  std::byte* data_ = nullptr;
};

}  // namespace coordl
