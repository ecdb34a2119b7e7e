// What a memoryview of an item in the cache points to.
#pragma once
#include <nanobind/nanobind.h>

#include <cstddef>
#include <memory>
#include <span>

#include "bindings/bytes.hpp"
#include "prep/item.hpp"

namespace coordl {

// Keeps what the item lies in mapped as long as any view lives.
struct HeldItem {
  std::shared_ptr<const void> home;
  std::span<const std::byte> bytes;
};

// Whether `bytes`, taken from `object`, are an item that the cache gave out, whole: it was checked when
// it was admitted, or read from a disk. REQUIRES the GIL.
inline bool is_held_item(nanobind::handle object, const Bytes& bytes) {
  PyObject* owner = object.ptr();
  if (PyMemoryView_Check(owner)) owner = PyMemoryView_GET_BUFFER(owner)->obj;
  if (owner == nullptr || !nanobind::isinstance<HeldItem>(owner)) return false;
  const HeldItem* held = nanobind::inst_ptr<HeldItem>(owner);
  return held->bytes.data() == bytes.span().data() && held->bytes.size() == bytes.span().size();
}

// An item as Python hands it over. One from anywhere but the cache is checked before it is decoded.
// Made and destroyed with the GIL held.
class ItemBytes {
 public:
  explicit ItemBytes(nanobind::handle object) : bytes_(object), checked_(is_held_item(object, bytes_)) {}
  std::span<const std::byte> span() const { return bytes_.span(); }
  bool may_be_decoded() const { return checked_ || check_item(span()); }

 private:
  const Bytes bytes_;
  const bool checked_;
};

}  // namespace coordl
