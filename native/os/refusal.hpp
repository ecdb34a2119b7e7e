// An error said in our own words, with a code for programs.
#pragma once
#include <string>
#include <system_error>

namespace coordl {

// what() is the sentence alone: std::system_error would add the system's text for the code, which
// says less and reads as noise.
class Refusal : public std::system_error {
 public:
  Refusal(int error, std::string sentence)
      : std::system_error(error, std::generic_category()), sentence_(std::move(sentence)) {}
  const char* what() const noexcept override { return sentence_.c_str(); }

 private:
  std::string sentence_;
};

}  // namespace coordl
