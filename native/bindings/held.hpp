// Items as Python hands them over: checked, unless they come from the cache.
#pragma once
#include <nanobind/nanobind.h>

#include <cstddef>
#include <span>

#include "bindings/bytes.hpp"
#include "prep/item.hpp"

namespace coordl {

// Whether `bytes`, taken from `object`, are an item that the cache gave out, whole: it was checked when
// it was admitted, or read from a disk. REQUIRES the GIL.
inline bool is_held_item(nanobind::handle object, const Bytes& bytes) {
  const nanobind::handle owner = owner_of(object);
  if (!nanobind::isinstance<HeldItem>(owner)) return false;
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
