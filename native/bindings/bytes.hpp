// A Python buffer that stays as it is while native code works without the GIL.
#pragma once
#include <nanobind/nanobind.h>

#include <cstddef>
#include <span>
#include <vector>

namespace coordl {

// Made and destroyed with the GIL held; span() may be read without it.
//
// What can be written, another thread may write as soon as the GIL is released, also between the check
// of an item and its decoding, which trusts that check. So writable buffers (bytearray, numpy arrays)
// are copied while the GIL is held; bytes and read-only views are not. A read-only view of memory that
// its owner goes on writing is the one thing this cannot see.
class Bytes {
 public:
  explicit Bytes(nanobind::handle object) {
    if (PyObject_GetBuffer(object.ptr(), &view_, PyBUF_SIMPLE) != 0) throw nanobind::python_error();
    span_ = {static_cast<const std::byte*>(view_.buf), static_cast<std::size_t>(view_.len)};
    if (view_.readonly != 0) return;
    try {
      copy_.assign(span_.begin(), span_.end());
    } catch (...) {
      PyBuffer_Release(&view_);
      throw;
    }
    span_ = copy_;
  }
  ~Bytes() { PyBuffer_Release(&view_); }
  Bytes(const Bytes&) = delete;
  Bytes& operator=(const Bytes&) = delete;
  std::span<const std::byte> span() const { return span_; }

 private:
  Py_buffer view_{};
  std::vector<std::byte> copy_;  // of a writable buffer
  std::span<const std::byte> span_;
};

}  // namespace coordl
