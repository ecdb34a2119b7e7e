// Named steps of what must survive a kill at any moment. A test sets the hook and dies there.
//
// Outside tests the hook is null: one relaxed load on paths that copy or make system calls anyway.
#pragma once
#include <array>
#include <atomic>

namespace coordl {

using StepHook = void (*)(const char* step) noexcept;
inline std::atomic<StepHook> step_hook{nullptr};

inline void at_step(const char* step) noexcept {
  if (const StepHook hook = step_hook.load(std::memory_order_relaxed)) hook(step);
}

// Every step there is, so that tests cannot forget one.
inline constexpr std::array kOpenSteps = {"open:gate",      "open:created",   "open:sized",
                                          "open:set_aside", "open:described", "open:magic",
                                          "open:leased"};
inline constexpr std::array kAdmitSteps = {"admit:begun",    "admit:held",   "admit:claimed",
                                           "admit:reserved", "admit:copied", "admit:indexed",
                                           "admit:staged",   "admit:counted"};
inline constexpr std::array kCloseSteps = {"close:gate", "close:left", "close:unlinked"};

}  // namespace coordl
