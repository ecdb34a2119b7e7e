// Buffers that threads use again keep what usual items need; a rare giant must not pin its memory.
#pragma once
#include <cstddef>
#include <type_traits>
#include <vector>

namespace coordl {

inline constexpr std::size_t kKeepBytes = std::size_t(16) << 20;  // of each buffer

// Gives the memory of buffers beyond that back; their contents go with it.
template <class... Value>
void trim(std::vector<Value>&... buffers) noexcept {
  const auto one = [](auto& buffer) {
    if (buffer.capacity() * sizeof(buffer[0]) > kKeepBytes) std::decay_t<decltype(buffer)>().swap(buffer);
  };
  (one(buffers), ...);
}

}  // namespace coordl
