#include "prep/forms.hpp"

#include <algorithm>
#include <cmath>

namespace coordl {
namespace {

constexpr std::uint64_t kTrial = 96;       // items that take the forms by turns, to measure them
constexpr std::uint64_t kLeastTrial = 48;  // fewer say too little: then there is none
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
  const double prep = size.bytes * (held * cached + (1 - held) * rates.prep_s[0]);
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
  const double packed_growth = [&] {
    const std::lock_guard lock(mutex_);
    return growth(Form::packed);
  }();
  if (size.budget_bytes >= 1.05 * packed_growth * size.bytes) return Form::packed;
  // The files fit, and hardly more: all of them are held rather than some of them packed.
  if (size.budget_bytes >= size.bytes && size.budget_bytes < 1.02 * size.bytes) return Form::original;
  const std::uint64_t number = asked_.fetch_add(1, std::memory_order_relaxed);
  const std::uint64_t quarter = static_cast<std::uint64_t>(size.samples) / 4;
  const std::uint64_t trial = quarter < kLeastTrial ? 0 : std::min(kTrial, quarter);
  if (number < trial) return static_cast<Form>(number % kForms);
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

void FormChooser::prepared(Form form, std::uint64_t ns, std::size_t file_bytes) {
  if (file_bytes == 0) return;
  const std::lock_guard lock(mutex_);
  sums_[static_cast<std::size_t>(form)].prep.add(double(ns), double(file_bytes));
}

void FormChooser::rewritten(Form form, std::size_t from_bytes, std::size_t to_bytes) {
  const std::lock_guard lock(mutex_);
  Sums& sums = sums_[static_cast<std::size_t>(form)];
  sums.from_bytes += double(from_bytes);
  sums.to_bytes += double(to_bytes);
}

double FormChooser::growth(Form form) const {
  const Sums& sums = sums_[static_cast<std::size_t>(form)];
  return sums.from_bytes > 0 ? sums.to_bytes / sums.from_bytes
                             : FormRates{}.growth[static_cast<std::size_t>(form)];
}

FormRates FormChooser::rates() const {
  FormRates rates;
  rates.storage_rate = storage_.bytes_per_s();
  const std::lock_guard lock(mutex_);
  for (const Form form : {Form::original, Form::indexed, Form::packed}) {
    const auto number = static_cast<std::size_t>(form);
    rates.prep_s[number] = sums_[number].prep.s_per_byte() / threads_;
    rates.growth[number] = growth(form);
  }
  return rates;
}

void FormChooser::Cost::add(double ns, double bytes) {
  samples_[count_++ % kLast] = {ns / bytes, bytes};
}

double FormChooser::Cost::s_per_byte() const {
  auto sorted = samples_;
  const auto end = sorted.begin() + static_cast<std::ptrdiff_t>(std::min(count_, kLast));
  std::sort(sorted.begin(), end,
            [](const Sample& a, const Sample& b) { return a.ns_per_byte < b.ns_per_byte; });
  double all = 0, below = 0;
  for (auto sample = sorted.begin(); sample != end; ++sample) all += sample->bytes;
  for (auto sample = sorted.begin(); sample != end; ++sample) {
    below += sample->bytes;
    if (2 * below >= all) return 1e-9 * sample->ns_per_byte;
  }
  return 0;
}

}  // namespace coordl
