#include "engine/stop_strings.h"

#include <utility>

#include "base/error.h"

namespace mneme {
namespace {

std::vector<std::string> checked(std::vector<std::string> strings) {
  size_t total = 0;
  for (size_t i = 0; i < strings.size(); ++i) {
    if (strings[i].empty()) {
      fail(ErrorCode::kInvalidArgument, "[stop strings] expected text, found an empty string at position {}", i);
    }
    if (!is_valid_utf8(strings[i])) {
      fail(ErrorCode::kInvalidArgument, "[stop strings] expected UTF-8, found other bytes in the string at position {}", i);
    }
    total += strings[i].size();
    if (total > StopStrings::kMaxBytes) {
      fail(ErrorCode::kInvalidArgument, "[stop strings] expected at most {} bytes in all, found more",
           StopStrings::kMaxBytes);
    }
  }
  return strings;
}

}  // namespace

StopStrings::StopStrings(std::vector<std::string> strings)
    : strings_(checked(std::move(strings))), matcher_(std::make_shared<const ByteMatcher>(strings_)) {}

std::string StopStrings::push(std::string_view bytes) {
  if (stopped()) return {};
  for (size_t i = 0; i < bytes.size(); ++i) {
    state_ = matcher_->step(state_, static_cast<unsigned char>(bytes[i]));
    found_ = matcher_->match(state_);
    if (!found_) continue;
    held_.append(bytes.substr(0, i + 1));
    held_.resize(held_.size() - strings_[*found_].size());
    return characters_.push(std::exchange(held_, {}));
  }
  held_.append(bytes);
  const size_t certain = held_.size() - matcher_->depth(state_);
  std::string out = characters_.push(std::string_view(held_).substr(0, certain));
  held_.erase(0, certain);
  return out;
}

std::string StopStrings::finish() {
  std::string out = characters_.push(held_);
  held_.clear();
  out += characters_.finish();
  return out;
}

}  // namespace mneme
