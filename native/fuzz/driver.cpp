// Runs a fuzzer for a while, or on the files named: see fuzz.hpp.
//
//   jpeg_fuzz [seconds=60] [seed=1] [crashes=FOLDER] [corpus=FOLDER]     mutates seeds until time is up
//   jpeg_fuzz FILE...                                                    checks these inputs
//
// The same seed makes the same inputs. The input that breaks a rule, crashes or takes over 60 seconds is
// written to crashes/<fuzzer>-<hash> and named; exit status 1.
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "fuzz/fuzz.hpp"

// Also what libFuzzer calls.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    coordl::fuzz::check({data, size});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    std::abort();
  }
  return 0;
}

#ifdef COORDL_LIBFUZZER
extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t most);
extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t most,
                                               unsigned seed) {
  static const auto seeds = coordl::fuzz::seeds();
  coordl::fuzz::Chance chance(seed);
  coordl::fuzz::Bytes input(data, data + size);
  if (size < 16 || chance.one_in(50)) input = seeds[chance.below(seeds.size())];
  if (chance.one_in(4)) return LLVMFuzzerMutate(data, size, most);
  coordl::fuzz::mutate(input, chance);
  size = std::min(input.size(), most);
  std::copy_n(input.begin(), size, data);
  return size;
}
#else

extern "C" void __sanitizer_set_death_callback(void (*)()) __attribute__((weak));

namespace {

using namespace coordl::fuzz;
using Clock = std::chrono::steady_clock;

constexpr unsigned kMostSecondsPerInput = 60;

// What is being checked, for whoever finds us dead.
struct {
  const Bytes* input = nullptr;
  char path[512] = "";
} current;

// Only calls that a signal handler may make.
void keep_input() {
  if (current.input == nullptr) return;
  const int file = ::open(current.path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
  if (file < 0) return;
  const auto written = ::write(file, current.input->data(), current.input->size());
  ::close(file);
  if (written < 0) return;
  const char before[] = "\ninput kept: ";
  if (::write(2, before, sizeof before - 1) < 0 || ::write(2, current.path, std::strlen(current.path)) < 0 ||
      ::write(2, "\n", 1) < 0) {
    return;
  }
}

void on_signal(int number) {
  keep_input();
  ::signal(number, SIG_DFL);
  ::raise(number);
}

void run(const Bytes& input, const std::string& folder, const std::string& name) {
  std::snprintf(current.path, sizeof current.path, "%s/%s-%016llx", folder.c_str(), name.c_str(),
                static_cast<unsigned long long>(hash_of(input)));
  current.input = &input;
  ::alarm(kMostSecondsPerInput);
  try {
    check(input);
  } catch (...) {
    keep_input();
    current.input = nullptr;
    throw;
  }
  ::alarm(0);
  current.input = nullptr;
}

Bytes read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Small inputs come up more often: they are checked sooner.
const Bytes& choose(const std::vector<Bytes>& pool, Chance& chance) {
  const Bytes& one = pool[chance.below(pool.size())];
  const Bytes& other = pool[chance.below(pool.size())];
  const Bytes& third = pool[chance.below(pool.size())];
  const Bytes& small = one.size() < other.size() ? one : other;
  return small.size() < third.size() || chance.one_in(40) ? small : third;
}

struct Options {
  double seconds = 60;
  std::uint64_t seed = 1;
  std::string crashes = "crashes", corpus;
  std::vector<std::string> files;
};

Options options_of(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const auto value = [&](const char* name) -> const char* {
      const std::size_t length = std::strlen(name);
      return argument.compare(0, length, name) == 0 ? argv[i] + length : nullptr;
    };
    if (const char* seconds = value("seconds=")) options.seconds = std::atof(seconds);
    else if (const char* seed = value("seed=")) options.seed = std::strtoull(seed, nullptr, 10);
    else if (const char* crashes = value("crashes=")) options.crashes = crashes;
    else if (const char* corpus = value("corpus=")) options.corpus = corpus;
    else options.files.push_back(argument);
  }
  return options;
}

void fuzz(const Options& options, const std::string& name) {
  std::vector<Bytes> pool = seeds();
  if (!options.corpus.empty()) {
    std::vector<std::filesystem::path> paths;
    for (const auto& entry : std::filesystem::directory_iterator(options.corpus)) {
      if (entry.path().extension() == ".jpg") paths.push_back(entry.path());
    }
    std::sort(paths.begin(), paths.end());
    for (const auto& path : paths) pool.push_back(read(path));
  }
  const auto start = Clock::now();
  const auto passed = [&] { return std::chrono::duration<double>(Clock::now() - start).count(); };
  const std::size_t first = pool.size();
  for (const Bytes& seed : pool) run(seed, options.crashes, name);
  Chance chance(options.seed);
  std::uint64_t count = 0;
  for (; passed() < options.seconds; ++count) {
    Bytes input = choose(pool, chance);
    for (int steps = chance.within(1, chance.one_in(3) ? 8 : 2); steps > 0; --steps) mutate(input, chance);
    input.shrink_to_fit();
    run(input, options.crashes, name);
    // Mutants of mutants, in place of older ones.
    if (!chance.one_in(20) || input.size() > 65536) continue;
    if (pool.size() < 2 * first) pool.push_back(std::move(input));
    else pool[first + std::size_t(chance.below(first))] = std::move(input);
  }
  std::printf("%s: %llu inputs from %zu seeds in %.0f s, seed %llu: every rule held\n", name.c_str(),
              static_cast<unsigned long long>(count), first, passed(),
              static_cast<unsigned long long>(options.seed));
}

}  // namespace

int main(int argc, char** argv) {
  const std::string name = std::filesystem::path(argv[0]).filename().string();
  const Options options = options_of(argc, argv);
  if (&__sanitizer_set_death_callback != nullptr) __sanitizer_set_death_callback(keep_input);
  ::signal(SIGALRM, on_signal);
  ::signal(SIGABRT, on_signal);
  try {
    std::filesystem::create_directories(options.crashes);
    for (const std::string& file : options.files) run(read(file), options.crashes, name);
    if (options.files.empty()) fuzz(options, name);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: broken rule: %s\n", name.c_str(), error.what());
    return 1;
  }
  return 0;
}
#endif
