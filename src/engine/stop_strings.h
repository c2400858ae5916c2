#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/utf8.h"
#include "engine/byte_matcher.h"

namespace mneme {

/// Turns the bytes of generated tokens into text that may be shown: only complete characters, nothing that could still
/// become part of a stop string, and nothing from a stop string on. Works across the borders of tokens and of UTF-8
/// characters; bytes that can never become a character come out as U+FFFD.
///
///   StopStrings stops({"\n\n", "User:"});
///   for each token:  show(stops.push(piece)); if (stops.stopped()) break;
///   show(stops.finish());
class StopStrings {
 public:
  /// Largest total length of all stop strings in bytes.
  static constexpr size_t kMaxBytes = 64 * 1024;

  /// `strings` may be empty. Throws Error(kInvalidArgument) for an empty stop string, one that is not UTF-8 and for more
  /// than kMaxBytes.
  explicit StopStrings(std::vector<std::string> strings = {});

  /// Takes the bytes of the next token and returns the text that is certain now. After a stop string all further input is
  /// ignored.
  std::string push(std::string_view bytes);
  /// Returns what was held back. Call once, when the answer ends for whatever reason.
  std::string finish();

  /// Whether a stop string was found.
  bool stopped() const { return found_.has_value(); }
  /// The stop string that was found. When several end at the same byte it is the longest.
  const std::string& found() const { return strings_[*found_]; }
  /// Bytes that wait for what comes next.
  size_t n_held() const { return held_.size(); }

 private:
  std::vector<std::string> strings_;
  std::shared_ptr<const ByteMatcher> matcher_;
  ByteMatcher::State state_ = ByteMatcher::kStart;
  std::string held_;
  Utf8Stream characters_;
  std::optional<size_t> found_;
};

}  // namespace mneme
