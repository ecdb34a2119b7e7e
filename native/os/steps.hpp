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

// Every step there is, so that tests cannot forget one. What comes before the colon is the operation.
inline constexpr std::array kSteps = {
    "open:gate",       "open:created",      "open:sized",         "open:set_aside",
    "open:described",  "open:magic",        "open:enlisted",      "open:leased",
    "raise:asked",     "raise:budget",      "raise:resumed",      "reserve:begun",
    "reserve:claimed", "reserve:chained",   "reserve:passed",     "grow:allowed",
    "grow:set_aside",  "grow:counted",      "write:described",    "write:copied",
    "publish:indexed", "publish:staged",    "count:counted",      "count:ended",
    "abandon:staged",  "abandon:counted",   "abandon:given_back", "repair:found",
    "repair:walked",   "repair:counted",    "reap:gate",          "reap:unlinked",
    "close:gate",      "close:left",        "close:unlinked",
};

// Those of a staging ring; its open, close and reaping have the names above.
inline constexpr std::array kStagingSteps = {
    "ring:sized",      "ring:set_aside",   "ring:described",  "ring:magic",     "claim:cleared",
    "claim:claimed",   "claim:taken",      "fill:begun",      "fill:sample",    "publish:noted",
    "publish:staged",  "publish:told",     "read:entered",    "read:copied",    "read:left",
    "release:freed",
};

}  // namespace coordl
