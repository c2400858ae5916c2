#include "recall/time_text.h"

#include <array>
#include <charconv>
#include <chrono>
#include <optional>

#include "base/checked_math.h"
#include "base/error.h"

namespace mneme::recall {
namespace {

/// Reads a text from left to right; everything fails softly.
class Reader {
 public:
  explicit Reader(std::string_view text) : rest_(text) {}

  bool at_end() const { return rest_.empty(); }
  bool take(char c) {
    if (rest_.empty() || rest_.front() != c) return false;
    rest_.remove_prefix(1);
    return true;
  }
  bool take(std::string_view word) {
    if (!rest_.starts_with(word)) return false;
    rest_.remove_prefix(word.size());
    return true;
  }
  /// A number of `least` to `most` digits.
  std::optional<int> number(size_t least, size_t most) {
    size_t n = 0;
    int value = 0;
    while (n < most && n < rest_.size() && rest_[n] >= '0' && rest_[n] <= '9') value = value * 10 + (rest_[n++] - '0');
    if (n < least) return std::nullopt;
    rest_.remove_prefix(n);
    return value;
  }
  std::string_view word() {
    size_t n = 0;
    while (n < rest_.size() && ((rest_[n] | 32) >= 'a' && (rest_[n] | 32) <= 'z')) ++n;
    const std::string_view found = rest_.substr(0, n);
    rest_.remove_prefix(n);
    return found;
  }

 private:
  std::string_view rest_;
};

std::optional<Time> date(int year, int month, int day) {
  const std::chrono::year_month_day ymd{std::chrono::year(year), std::chrono::month(static_cast<unsigned>(month)),
                                        std::chrono::day(static_cast<unsigned>(day))};
  if (!ymd.ok() || year < 1 || year > 9999) return std::nullopt;
  return std::chrono::sys_days(ymd).time_since_epoch().count() * kMicrosPerDay;
}

std::optional<Time> clock_time(int hour, int minute, int second, Time fraction) {
  if (hour > 23 || minute > 59 || second > 59) return std::nullopt;
  return (hour * 3600 + minute * 60 + second) * kMicrosPerSecond + fraction;
}

std::optional<Time> iso_time(std::string_view text) {
  Reader in(text);
  const auto year = in.number(4, 4);
  if (!year || !in.take('-')) return std::nullopt;
  const auto month = in.number(2, 2);
  if (!month || !in.take('-')) return std::nullopt;
  const auto day = in.number(2, 2);
  if (!day) return std::nullopt;
  auto time = date(*year, *month, *day);
  if (!time || in.at_end()) return time;
  if (!in.take('T') && !in.take('t') && !in.take(' ')) return std::nullopt;
  const auto hour = in.number(2, 2);
  if (!hour || !in.take(':')) return std::nullopt;
  const auto minute = in.number(2, 2);
  if (!minute) return std::nullopt;
  int second = 0;
  Time fraction = 0;
  if (in.take(':')) {
    const auto seconds = in.number(2, 2);
    if (!seconds) return std::nullopt;
    second = *seconds;
    if (in.take('.')) {
      Time unit = kMicrosPerSecond;
      while (const auto digit = in.number(1, 1)) {
        unit /= 10;
        fraction += *digit * unit;
      }
      if (unit == kMicrosPerSecond) return std::nullopt;
    }
  }
  const auto of_day = clock_time(*hour, *minute, second, fraction);
  if (!of_day) return std::nullopt;
  *time += *of_day;
  if (in.at_end() || ((in.take('Z') || in.take('z')) && in.at_end())) return time;
  const bool east = in.take('+');
  if (!east && !in.take('-')) return std::nullopt;
  const auto zone_hour = in.number(2, 2);
  if (!zone_hour) return std::nullopt;
  in.take(':');
  const auto zone_minute = in.number(2, 2);
  const auto zone = zone_minute ? clock_time(*zone_hour, *zone_minute, 0, 0) : std::nullopt;
  if (!zone || !in.at_end()) return std::nullopt;
  return east ? *time - *zone : *time + *zone;
}

/// "1:56 pm on 8 May, 2023"
std::optional<Time> spoken_time(std::string_view text) {
  constexpr std::array<std::string_view, 12> kMonths = {"January", "February", "March",     "April",   "May",      "June",
                                                        "July",    "August",   "September", "October", "November", "December"};
  Reader in(text);
  const auto hour = in.number(1, 2);
  if (!hour || !in.take(':')) return std::nullopt;
  const auto minute = in.number(2, 2);
  if (!minute || !in.take(' ')) return std::nullopt;
  const std::string_view half = in.word();
  if ((half != "am" && half != "pm") || *hour < 1 || *hour > 12 || !in.take(" on ")) return std::nullopt;
  const auto day = in.number(1, 2);
  if (!day || !in.take(' ')) return std::nullopt;
  const std::string_view name = in.word();
  int month = 0;
  while (month < 12 && kMonths[static_cast<size_t>(month)] != name) ++month;
  if (!in.take(", ")) return std::nullopt;
  const auto year = in.number(4, 4);
  if (month == 12 || !year || !in.at_end()) return std::nullopt;
  const auto days = date(*year, month + 1, *day);
  const auto of_day = clock_time(*hour % 12 + (half == "pm" ? 12 : 0), *minute, 0, 0);
  if (!days || !of_day) return std::nullopt;
  return *days + *of_day;
}

std::optional<Time> unix_time(std::string_view text) {
  if (!text.starts_with('@')) return std::nullopt;
  int64_t seconds = 0;
  const auto [end, error] = std::from_chars(text.data() + 1, text.data() + text.size(), seconds);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return checked_mul<Time>(seconds, kMicrosPerSecond);
}

}  // namespace

Time now() {
  return std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

std::string format_time(Time time) {
  Time days = time / kMicrosPerDay;
  Time rest = time % kMicrosPerDay;
  if (rest < 0) {
    rest += kMicrosPerDay;
    --days;
  }
  const std::chrono::year_month_day ymd{std::chrono::sys_days(std::chrono::days(days))};
  const Time seconds = rest / kMicrosPerSecond, micros = rest % kMicrosPerSecond;
  std::string text = fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}", static_cast<int>(ymd.year()),
                                 static_cast<unsigned>(ymd.month()), static_cast<unsigned>(ymd.day()), seconds / 3600,
                                 seconds / 60 % 60, seconds % 60);
  if (micros != 0) text += fmt::format(".{:06}", micros);
  return text + "Z";
}

Time parse_time(std::string_view text) {
  for (const auto& form : {iso_time, spoken_time, unix_time}) {
    const std::optional<Time> time = form(text);
    if (time && *time >= kEarliestTime && *time <= kLatestTime) return *time;
  }
  fail(ErrorCode::kInvalidArgument, "[parse time] expected a time such as 2026-11-29 or 2026-11-29T08:12:41Z, found '{}'",
       brief_text(text));
}

Time parse_duration(std::string_view text) {
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view unit = text.substr(static_cast<size_t>(end - text.data()));
  Time seconds = 0;
  if (unit == "s") seconds = 1;
  if (unit == "m") seconds = 60;
  if (unit == "h") seconds = 3600;
  if (unit == "d") seconds = 86400;
  if (unit == "w") seconds = 7 * 86400;
  const auto micros = checked_mul<Time>(number, seconds * kMicrosPerSecond);
  if (error != std::errc() || seconds == 0 || number < 0 || !micros || *micros > kLatestTime) {
    fail(ErrorCode::kInvalidArgument, "[parse duration] expected a time such as 30s, 15m, 12h, 7d or 2w, found '{}'",
         brief_text(text));
  }
  return *micros;
}

}  // namespace mneme::recall
