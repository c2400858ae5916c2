#include "recall/search/time_mentions.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cmath>
#include <optional>
#include <string>

#include "recall/time_text.h"

namespace mneme::recall {
namespace {

using std::chrono::day;
using std::chrono::days;
using std::chrono::month;
using std::chrono::sys_days;
using std::chrono::year;
using std::chrono::year_month_day;

constexpr int kYearsBack = 20;
constexpr double kHalfLifeDays = 7;
constexpr std::array<std::string_view, 12> kMonths = {"january",   "february", "march",    "april",
                                                      "may",       "june",     "july",     "august",
                                                      "september", "october",  "november", "december"};
constexpr std::array<std::string_view, 11> kNumbers = {"a",   "one",   "two",   "three", "four", "five",
                                                       "six", "seven", "eight", "nine",  "ten"};
constexpr size_t kMostWords = 2000;  // of the text that are looked at

struct Word {
  std::string lower;
  bool capital = false;
};

std::vector<Word> split(std::string_view text) {
  std::vector<Word> words;
  Word word;
  for (size_t i = 0; i <= text.size() && words.size() < kMostWords; ++i) {
    const char c = i < text.size() ? text[i] : ' ';
    const bool upper = c >= 'A' && c <= 'Z';
    if (upper || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')) {
      if (word.lower.empty()) word.capital = upper;
      word.lower += static_cast<char>(upper ? c + 32 : c);
    } else if (!word.lower.empty()) {
      words.push_back(std::move(word));
      word = {};
    }
  }
  return words;
}

std::optional<int> number(std::string_view text, size_t least, size_t most) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.size() < least || text.size() > most) {
    return std::nullopt;
  }
  return value;
}

std::optional<int> year_of(const Word& word) {
  const auto value = number(word.lower, 4, 4);
  return value && *value >= 1000 && *value <= 2999 ? value : std::nullopt;
}

/// "8", "8th", "1st"
std::optional<int> day_of(const Word& word) {
  std::string_view text = word.lower;
  for (const char* end : {"st", "nd", "rd", "th"}) {
    if (text.size() > 2 && text.ends_with(end)) {
      text.remove_suffix(2);
      break;
    }
  }
  const auto value = number(text, 1, 2);
  return value && *value >= 1 && *value <= 31 ? value : std::nullopt;
}

std::optional<unsigned> month_of(const Word& word) {
  const bool is_ambiguous = word.lower == "may" || word.lower == "march";
  if (is_ambiguous && !word.capital) return std::nullopt;
  const auto* at = std::find(kMonths.begin(), kMonths.end(), word.lower);
  if (at == kMonths.end()) return std::nullopt;
  return static_cast<unsigned>(at - kMonths.begin()) + 1;
}

Time time_of(sys_days date) {
  return date.time_since_epoch().count() * kMicrosPerDay;
}
sys_days date_of(Time time) {
  return sys_days(days(time / kMicrosPerDay - (time % kMicrosPerDay < 0)));
}

class Finder {
 public:
  Finder(std::string_view text, Time now)
      : words_(split(text)),
        today_(date_of(std::clamp(now, kEarliestTime, kLatestTime))),
        this_year_(year_month_day(today_).year()) {}

  std::vector<TimeRange> find() {
    for (size_t i = 0; i < words_.size(); ++i) {
      if (!iso_date(i) && !named_month(i)) relative(i);
    }
    for (size_t i = 0; i < words_.size() && found_.empty(); ++i) {
      if (const auto y = year_of(words_[i])) add(year(*y) / 1 / 1, year(*y + 1) / 1 / 1);
    }
    return found_;
  }

 private:
  void add(year_month_day from, year_month_day before) {
    if (from.ok() && before.ok()) found_.push_back({time_of(from), time_of(before)});
  }
  void add_days(sys_days from, int n) { found_.push_back({time_of(from), time_of(from + days(n))}); }

  bool iso_date(size_t i) {
    if (i + 2 >= words_.size()) return false;
    const auto y = year_of(words_[i]);
    const auto m = number(words_[i + 1].lower, 2, 2), d = number(words_[i + 2].lower, 2, 2);
    if (!y || !m || !d || *m < 1 || *d < 1) return false;
    const year_month_day date = year(*y) / month(static_cast<unsigned>(*m)) / day(static_cast<unsigned>(*d));
    if (!date.ok()) return false;
    add_days(date, 1);
    return true;
  }

  bool named_month(size_t i) {
    const auto m = month_of(words_[i]);
    if (!m) return false;
    std::optional<int> d, y;
    size_t next = i + 1;
    if (i > 0) d = day_of(words_[i - 1]);
    if (!d && i > 1 && words_[i - 1].lower == "of") d = day_of(words_[i - 2]);
    if (!d && next < words_.size()) {
      d = day_of(words_[next]);
      next += d.has_value();
    }
    if (next < words_.size() && words_[next].lower == "of") ++next;
    if (next < words_.size()) y = year_of(words_[next]);
    const year last = y ? year(*y) : this_year_;
    for (year each = y ? last : last - std::chrono::years(kYearsBack); each <= last; ++each) {
      if (d) {
        const year_month_day date = each / month(*m) / day(static_cast<unsigned>(*d));
        if (date.ok()) add_days(date, 1);
      } else {
        const year_month_day first = each / month(*m) / 1;
        add(first, first + std::chrono::months(1));
      }
    }
    return true;
  }

  void relative(size_t i) {
    const std::string& word = words_[i].lower;
    const std::string& next = i + 1 < words_.size() ? words_[i + 1].lower : kNone;
    if (word == "today") add_days(today_, 1);
    if (word == "yesterday") add_days(today_ - days(1), 1);
    if (word == "last" || word == "this") {
      const int back = word == "last";
      const year_month_day first_of_month = this_year_ / year_month_day(today_).month() / 1;
      const sys_days monday = today_ - (std::chrono::weekday(today_) - std::chrono::Monday);
      if (next == "week") add_days(monday - days(7 * back), 7);
      if (next == "month") {
        add(first_of_month - std::chrono::months(back), first_of_month - std::chrono::months(back - 1));
      }
      if (next == "year")
        add((this_year_ - std::chrono::years(back)) / 1 / 1, (this_year_ - std::chrono::years(back - 1)) / 1 / 1);
    }
    if (i + 2 < words_.size() && words_[i + 2].lower == "ago") ago(word, next);
  }

  void ago(const std::string& count, const std::string& unit) {
    const auto* at = std::find(kNumbers.begin(), kNumbers.end(), count);
    const auto n =
        at != kNumbers.end() ? std::max<int>(1, static_cast<int>(at - kNumbers.begin())) : number(count, 1, 3);
    if (!n) return;
    const year_month_day today(today_);
    if (unit == "day" || unit == "days") add_days(today_ - days(*n), 1);
    if (unit == "week" || unit == "weeks") add_days(today_ - days(7 * *n + 3), 7);
    if (unit == "month" || unit == "months") {
      const year_month_day first = today.year() / today.month() / 1 - std::chrono::months(*n);
      add(first, first + std::chrono::months(1));
    }
    if (unit == "year" || unit == "years") {
      add((this_year_ - std::chrono::years(*n)) / 1 / 1, (this_year_ - std::chrono::years(*n - 1)) / 1 / 1);
    }
  }

  static inline const std::string kNone;
  std::vector<Word> words_;
  sys_days today_;
  year this_year_;
  std::vector<TimeRange> found_;
};

}  // namespace

std::vector<TimeRange> time_mentions(std::string_view text, Time now) {
  return Finder(text, now).find();
}

double time_fit(std::span<const TimeRange> ranges, Time time) {
  double best = 0;
  for (const TimeRange& range : ranges) {
    if (time < range.from) continue;
    const double days_after =
        time < range.before ? 0 : static_cast<double>(time - range.before) / static_cast<double>(kMicrosPerDay);
    best = std::max(best, std::exp2(-days_after / kHalfLifeDays));
  }
  return best;
}

}  // namespace mneme::recall
