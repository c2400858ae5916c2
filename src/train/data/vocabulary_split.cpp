#include "train/data/vocabulary_split.h"

#include <array>

namespace mneme::train {
namespace {

constexpr std::array<std::string_view, 34> kStarts = {"b",  "d",  "f",  "g",  "h",  "j",  "k",  "l",  "m",  "n",  "p", "r",
                                                      "s",  "t",  "v",  "w",  "z",  "br", "dr", "gr", "kr", "tr", "pl",
                                                      "gl", "sh", "th", "st", "ch", "fl", "sk", "qu", "",   "y",  "c"};
constexpr std::array<std::string_view, 12> kMiddles = {"a", "e", "i", "o", "u", "a", "e", "o", "ai", "ea", "ou", "y"};
constexpr std::array<std::string_view, 18> kEnds = {"", "", "", "n", "r", "l", "s", "m", "k", "th", "nd", "rt", "x", "sh", "ll", "t", "d", "ck"};

template <size_t n>
std::string_view pick(PhiloxStream& random, const std::array<std::string_view, n>& parts) {
  return parts[random.next_below(n)];
}

}  // namespace

Split split_of(std::string_view word) {
  uint64_t hash = 0xCBF29CE484222325;  // FNV-1a
  for (const char c : word) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3;
  // Short words leave the high bits of FNV alike; mix them (the finaliser of MurmurHash3).
  hash = (hash ^ (hash >> 33)) * 0xFF51AFD7ED558CCD;
  hash = (hash ^ (hash >> 33)) * 0xC4CEB9FE1A85EC53;
  return (hash >> 33) % 6 == 0 ? Split::kHeldOut : Split::kTrain;
}

std::string invent_name(PhiloxStream& random, Split split) {
  for (;;) {
    std::string name;
    const size_t n_syllables = 2 + random.next_below(2);
    for (size_t i = 0; i < n_syllables; ++i) {
      name += pick(random, kStarts);
      name += pick(random, kMiddles);
      if (i + 1 == n_syllables || random.next_below(3) == 0) name += pick(random, kEnds);
    }
    if (name.size() < 4 || name.size() > 9) continue;
    name[0] = static_cast<char>(name[0] - 'a' + 'A');
    if (split_of(name) == split) return name;
  }
}

std::string invent_number(PhiloxStream& random, Split split, int digits) {
  for (;;) {
    std::string number;
    for (int i = 0; i < digits; ++i) number += static_cast<char>('0' + (i == 0 ? 1 + random.next_below(9) : random.next_below(10)));
    if (split_of(number) == split) return number;
  }
}

}  // namespace mneme::train
