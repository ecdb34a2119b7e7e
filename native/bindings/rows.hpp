// What the bindings of workers and feeds share.
#pragma once
#include <nanobind/nanobind.h>

#include <chrono>
#include <cstdint>

#include "prep/row.hpp"

namespace coordl {

inline const char* status_name(RowStatus status) {
  switch (status) {
    case RowStatus::not_ours: return "not_ours";
    case RowStatus::io_error: return "io_error";
    case RowStatus::truncated: return "truncated";
    case RowStatus::damaged: return "damaged";
    case RowStatus::changed: return "changed";
    case RowStatus::done: return "done";
    case RowStatus::pending: break;
  }
  return "pending";
}

// Calls ended(patience) without the GIL until it is true or `timeout_s` (0: never) ran out; in slices,
// so that Ctrl-C reaches Python while a minibatch is slow.
template <class Ended>
bool wait_in_slices(double timeout_s, const Ended& ended) {
  using Clock = std::chrono::steady_clock;
  constexpr auto slice = std::chrono::milliseconds(50);
  const auto start = Clock::now();
  for (;;) {
    std::chrono::nanoseconds patience = slice;
    if (timeout_s > 0) {
      const std::chrono::duration<double> left =
          std::chrono::duration<double>(timeout_s) - (Clock::now() - start);
      if (left < slice) patience = std::chrono::nanoseconds(std::int64_t(left.count() * 1e9));
    }
    bool done = false;
    {
      nanobind::gil_scoped_release released;
      done = ended(patience);
    }
    if (done) return true;
    if (PyErr_CheckSignals() != 0) throw nanobind::python_error();
    if (patience < slice) return false;
  }
}

}  // namespace coordl
