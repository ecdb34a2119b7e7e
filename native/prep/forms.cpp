#include "prep/forms.hpp"

#include <algorithm>
#include <cmath>

namespace coordl {
namespace {

constexpr std::uint64_t kTrial = 48;       // items that take the forms by turns, to measure them
constexpr std::uint64_t kRenew = 64;       // items between two decisions
constexpr int kSteps = 16;                 // shares of packed items that are weighed
constexpr std::uint64_t kWhole = 1 << 16;  // a share of 1

}  // namespace

double epoch_seconds(const DataSetSize& size, const FormRates& rates, const FormMix& mix) {
  const auto base = static_cast<std::size_t>(mix.base);
  constexpr auto packed = static_cast<std::size_t>(Form::packed);
  const double growth = mix.packed * rates.growth[packed] + (1 - mix.packed) * rates.growth[base];
  const double held = std::min(1.0, size.budget_bytes / (size.bytes * growth));  // share of the items
  const double fetch = (1 - held) * size.bytes / rates.storage_rate;
  const double cached = mix.packed * rates.prep_s[packed] + (1 - mix.packed) * rates.prep_s[base];
  const double prep = size.samples * (held * cached + (1 - held) * rates.prep_s[0]);
  // Where the longer one is the same, less work in all: others may use the cores and the disk.
  return std::max(fetch, prep) + 0.01 * (fetch + prep);
}

FormMix choose_mix(const DataSetSize& size, const FormRates& rates) {
  const bool fits = size.budget_bytes >= size.bytes;
  FormMix best;
  double shortest = HUGE_VAL;
  for (const Form base : {Form::original, Form::indexed}) {
    if (rates.prep_s[static_cast<std::size_t>(base)] <= 0) continue;  // these files have no such form
    for (int step = 0; step <= (rates.prep_s[2] > 0 ? kSteps : 0); ++step) {
      const FormMix mix{base, double(step) / kSteps};
      const double growth = mix.packed * rates.growth[2] +
                            (1 - mix.packed) * rates.growth[static_cast<std::size_t>(base)];
      if (fits && size.bytes * growth > size.budget_bytes) continue;
      const double seconds = epoch_seconds(size, rates, mix);
      if (seconds < shortest) {
        shortest = seconds;
        best = mix;
      }
    }
  }
  return best;
}

Form FormChooser::choose(ItemKey key, const DataSetSize& size) {
  if (policy_ != FormPolicy::automatic) return static_cast<Form>(policy_);
  if (size.bytes <= 0 || size.samples <= 0) return Form::original;
  // With room for all of it packed there is nothing to weigh.
  if (size.budget_bytes >= 1.05 * rates().growth[2] * size.bytes) return Form::packed;
  // The files fit, and hardly more: all of them are held rather than some of them packed.
  if (size.budget_bytes >= size.bytes && size.budget_bytes < 1.02 * size.bytes) return Form::original;
  const std::uint64_t number = asked_.fetch_add(1, std::memory_order_relaxed);
  if (number < kTrial && size.samples > 4 * kTrial) return static_cast<Form>(number % kForms);
  if (number % kRenew == 0 || number <= kTrial) {
    const FormRates now = rates();
    const bool known = now.storage_rate > 0 && now.prep_s[0] > 0;
    const FormMix mix = known ? choose_mix(size, now) : FormMix{};
    mix_.store(static_cast<std::uint64_t>(mix.packed * double(kWhole)) |
                   static_cast<std::uint64_t>(mix.base) << 32,
               std::memory_order_relaxed);
  }
  const std::uint64_t mix = mix_.load(std::memory_order_relaxed);
  // By the key, not by chance: jobs that share the cache agree while their rates do.
  const bool packed = (key.lo & (kWhole - 1)) < (mix & 0xFFFFFFFF);
  return packed ? Form::packed : static_cast<Form>(mix >> 32);
}

void FormChooser::prepared(Form form, std::uint64_t ns) {
  Sums& sums = sums_[static_cast<std::size_t>(form)];
  sums.samples.fetch_add(1, std::memory_order_relaxed);
  sums.ns.fetch_add(ns, std::memory_order_relaxed);
}

void FormChooser::rewritten(Form form, std::size_t from_bytes, std::size_t to_bytes) {
  Sums& sums = sums_[static_cast<std::size_t>(form)];
  sums.from_bytes.fetch_add(from_bytes, std::memory_order_relaxed);
  sums.to_bytes.fetch_add(to_bytes, std::memory_order_relaxed);
}

FormRates FormChooser::rates() const {
  FormRates rates;
  for (std::size_t form = 0; form < kForms; ++form) {
    const Sums& sums = sums_[form];
    const double samples = double(sums.samples.load(std::memory_order_relaxed));
    const double from = double(sums.from_bytes.load(std::memory_order_relaxed));
    if (samples > 0) {
      rates.prep_s[form] = 1e-9 * double(sums.ns.load(std::memory_order_relaxed)) / samples / threads_;
    }
    if (from > 0) rates.growth[form] = double(sums.to_bytes.load(std::memory_order_relaxed)) / from;
  }
  rates.storage_rate = storage_.bytes_per_s();
  return rates;
}

}  // namespace coordl
