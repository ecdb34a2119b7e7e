// Tests of the core: TEST(name) { CHECK(...); } registers itself; main.cpp runs all, or those whose
// name contains an argument.
#pragma once
#include <stdexcept>
#include <string>
#include <vector>

namespace coordl::test {

struct Test {
  const char* name;
  void (*run)();
};
inline std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}
struct Registration {
  Registration(const char* name, void (*run)()) { tests().push_back({name, run}); }
};

}  // namespace coordl::test

#define TEST(name)                                                             \
  static void name();                                                          \
  static const coordl::test::Registration name##_registration(#name, &name);   \
  static void name()

#define CHECK(condition)                                                                         \
  do {                                                                                           \
    if (!(condition))                                                                            \
      throw std::runtime_error(std::string(__FILE__ ":") + std::to_string(__LINE__) + ": " #condition); \
  } while (false)
