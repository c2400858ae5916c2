#include "base/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "base/byte_size.h"

namespace mneme {

Progress::Progress(std::string title, uint64_t total, std::string unit)
    : title_(std::move(title)),
      unit_(std::move(unit)),
      total_(std::max<uint64_t>(1, total)),
      visible_(::isatty(STDERR_FILENO) != 0),
      start_(std::chrono::steady_clock::now()),
      last_(start_ - std::chrono::seconds(1)) {}

Progress::~Progress() {
  if (drawn_) fmt::print(stderr, "\r\x1b[K");
}

void Progress::update(uint64_t done, const std::string& note) {
  if (!note.empty()) note_ = note;
  if (!visible_) return;
  const auto now = std::chrono::steady_clock::now();
  if (now - start_ < std::chrono::milliseconds(400)) return;  // short work shows nothing
  if (done < total_ && now - last_ < std::chrono::milliseconds(100)) return;
  last_ = now;
  constexpr int kWidth = 28;
  const double part = std::min(1.0, static_cast<double>(done) / static_cast<double>(total_));
  const double seconds = std::chrono::duration<double>(now - start_).count();
  const std::string bar(static_cast<size_t>(part * kWidth), '=');
  const auto amount = [&](uint64_t n) { return unit_ == "bytes" ? format_byte_size(n) : fmt::format("{} {}", n, unit_); };
  const std::string left = part > 0.01 ? fmt::format(" {:.0f} s left", seconds * (1 - part) / part) : std::string();
  fmt::print(stderr, "\r\x1b[K{} [{:<{}}] {:3.0f} % of {}{} {}", title_, bar, kWidth, part * 100, amount(total_), left, note_);
  std::fflush(stderr);
  drawn_ = true;
}

}  // namespace mneme
