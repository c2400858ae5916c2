#include "base/error.h"

#include <cerrno>
#include <system_error>

namespace mneme {

std::string_view error_code_name(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument: return "invalid_argument";
    case ErrorCode::kCorruptData: return "corrupt_data";
    case ErrorCode::kNotFound: return "not_found";
    case ErrorCode::kUnsupported: return "unsupported";
    case ErrorCode::kOutOfBudget: return "out_of_budget";
    case ErrorCode::kContextOverflow: return "context_overflow";
    case ErrorCode::kIo: return "io";
    case ErrorCode::kCancelled: return "cancelled";
  }
  return "unknown";
}

void fail_errno(std::string_view operation, std::string_view path) {
  const int reason = errno;
  const ErrorCode code = reason == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo;
  fail(code, "[{}] {}: {}", operation, path, std::generic_category().message(reason));
}

}  // namespace mneme
