// In which form an item is admitted: which serves the epochs to come best.
//
// Packed items cost a third of the CPU time and a third more memory. So packing everything is right
// where everything fits, and wrong where what no longer fits has to be read from slow storage in
// every epoch. What an epoch takes is the longer of reading what is not held and preparing what is
// wanted; both follow from measured rates, and the mix that makes it shortest is chosen anew as the
// rates become known.
#pragma once
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>

#include "fetch/item_key.hpp"
#include "fetch/storage_rate.hpp"
#include "prep/item.hpp"

namespace coordl {

inline constexpr int kForms = 3;  // by number: original, indexed, packed

struct DataSetSize {
  double samples = 0;
  double bytes = 0;         // encoded, as the files are
  double budget_bytes = 0;  // of the cache
};

// By byte of the files, so that items of different sizes can be compared.
struct FormRates {
  std::array<double, kForms> prep_s{};  // seconds a byte, over all prep threads; 0: not known
  std::array<double, kForms> growth{1.0, 1.04, 1.3};  // bytes held / bytes of the file
  double storage_rate = 0;  // bytes/s while something is being read; 0: not known
};

// Items of which `packed` are admitted packed, the rest as `base`.
struct FormMix {
  Form base = Form::original;
  double packed = 0;  // share, in [0, 1]
};

// Seconds an epoch takes with that mix once the cache is full: fetch and prep overlap.
double epoch_seconds(const DataSetSize& size, const FormRates& rates, const FormMix& mix);

// The mix with the shortest epoch. A data set that fits the budget as its files are stays cached whole.
FormMix choose_mix(const DataSetSize& size, const FormRates& rates);

enum class FormPolicy : std::uint8_t { original, indexed, packed, automatic };

// Thread-safe. One per Workers.
class FormChooser {
 public:
  FormChooser(FormPolicy policy, int prep_threads) : policy_(policy), threads_(prep_threads) {}

  Form choose(ItemKey key, const DataSetSize& size);
  // What was measured: one sample prepared from an item whose file has so many bytes, one item
  // rewritten; storage as it is read.
  void prepared(Form form, std::uint64_t ns, std::size_t file_bytes);
  void rewritten(Form form, std::size_t from_bytes, std::size_t to_bytes);
  StorageRate& storage() { return storage_; }

  FormRates rates() const;

 private:
  // The median, by bytes, of the last samples' seconds a byte. A mean of some dozens is at the mercy of
  // the few during which the thread had to wait for a core; tests/forms_test.cpp has such.
  class Cost {
   public:
    void add(double ns, double bytes);
    double s_per_byte() const;

   private:
    static constexpr std::size_t kLast = 64;
    struct Sample {
      double ns_per_byte, bytes;
    };
    std::array<Sample, kLast> samples_{};
    std::size_t count_ = 0;  // ever added
  };
  struct Sums {
    Cost prep;
    double from_bytes = 0, to_bytes = 0;
  };
  double growth(Form form) const;  // REQUIRES mutex_

  const FormPolicy policy_;
  const int threads_;
  mutable std::mutex mutex_;
  std::array<Sums, kForms> sums_;  // guarded by mutex_
  StorageRate storage_;
  std::atomic<std::uint64_t> asked_{0};
  std::atomic<std::uint64_t> mix_{0};  // share of packed in 1/65536, then the base's number << 32
};

}  // namespace coordl
