// A Python buffer that stays as it is while native code works without the GIL.
#pragma once
#include <nanobind/nanobind.h>

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

namespace coordl {

// What a memoryview of an item in the cache points to. Keeps what the item lies in mapped as long as
// any view lives.
struct HeldItem {
  std::shared_ptr<const void> home;
  std::span<const std::byte> bytes;
};

// What a memoryview is of; other objects themselves.
inline nanobind::handle owner_of(nanobind::handle object) {
  if (!PyMemoryView_Check(object.ptr())) return object;
  PyObject* const owner = PyMemoryView_GET_BUFFER(object.ptr())->obj;
  return owner == nullptr ? object : nanobind::handle(owner);
}

// Made and destroyed with the GIL held; span() may be read without it.
//
// What can be written, another thread may write as soon as the GIL is released, also between the check
// of an item and its decoding, which trusts that check. So everything is copied while the GIL is held
// but bytes and what the cache gave out, and views of these: a read-only view of anything else says
// nothing of who writes to it.
class Bytes {
 public:
  explicit Bytes(nanobind::handle object) {
    if (PyObject_GetBuffer(object.ptr(), &view_, PyBUF_SIMPLE) != 0) throw nanobind::python_error();
    span_ = {static_cast<const std::byte*>(view_.buf), static_cast<std::size_t>(view_.len)};
    const nanobind::handle owner = owner_of(object);
    if (PyBytes_Check(owner.ptr()) || nanobind::isinstance<HeldItem>(owner)) return;
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
  std::vector<std::byte> copy_;
  std::span<const std::byte> span_;
};

}  // namespace coordl
