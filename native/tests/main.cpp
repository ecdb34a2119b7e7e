#include <cstdio>
#include <cstring>
#include <exception>

#include "test.hpp"

int main(int argc, char** argv) {
  int failed = 0;
  for (const auto& test : coordl::test::tests()) {
    if (argc > 1 && std::strstr(test.name, argv[1]) == nullptr) continue;
    try {
      test.run();
      std::printf("ok   %s\n", test.name);
    } catch (const std::exception& error) {
      std::printf("FAIL %s: %s\n", test.name, error.what());
      ++failed;
    }
    std::fflush(stdout);
  }
  return failed == 0 ? 0 : 1;
}
