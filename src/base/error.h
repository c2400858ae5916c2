#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace mneme {

/// What kind of failure an Error reports; the command line maps it to an exit status, the server to an HTTP status.
enum class ErrorCode {
  kInvalidArgument,   ///< The caller asked for something meaningless.
  kCorruptData,       ///< A file or message breaks its own format.
  kNotFound,          ///< A named file, tensor, key or session does not exist.
  kUnsupported,       ///< Valid, but not something this build can do.
  kOutOfBudget,       ///< It does not fit the memory limit.
  kContextOverflow,   ///< More tokens than the context holds.
  kIo,                ///< The operating system refused.
  kCancelled,         ///< Stopped on request.
};

/// Stable lower_snake_case name of a code, for JSON output.
std::string_view error_code_name(ErrorCode code);

/// The one exception type for data, user, I/O and capacity failures.
///
/// The message is one line of the form "[operation] what was expected, what came, where". The optional hint says what to
/// do next. Thrown where the failure is found and caught only at the border (command line, server). Mistakes of the
/// programmer are assertions instead.
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message, std::string hint = {})
      : std::runtime_error(message), code_(code), hint_(std::move(hint)) {}

  ErrorCode code() const { return code_; }
  const std::string& hint() const { return hint_; }

 private:
  ErrorCode code_;
  std::string hint_;
};

/// Throws Error with a formatted message.
template <typename... Args>
[[noreturn]] void fail(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(code, fmt::format(format, std::forward<Args>(args)...));
}

/// Throws Error(kIo) for a failed system call: "[operation] path: reason of errno".
[[noreturn]] void fail_errno(std::string_view operation, std::string_view path);

}  // namespace mneme
