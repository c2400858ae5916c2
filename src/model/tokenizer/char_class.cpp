#include "model/tokenizer/char_class.h"

#include <utf8proc.h>

#include <array>

namespace mneme {
namespace {

bool is_white_space(uint32_t c) {
  return (c >= 0x9 && c <= 0xD) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) ||
         c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

uint16_t category_bits(uint32_t c) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
      return kUpper;
    case UTF8PROC_CATEGORY_LL:
      return kLower;
    case UTF8PROC_CATEGORY_LT:
      return kTitle;
    case UTF8PROC_CATEGORY_LM:
      return kModifierLetter;
    case UTF8PROC_CATEGORY_LO:
      return kOtherLetter;
    case UTF8PROC_CATEGORY_MN:
      return kNonspacingMark;
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
      return kOtherMark;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return kNumber;
    case UTF8PROC_CATEGORY_PC:
    case UTF8PROC_CATEGORY_PD:
    case UTF8PROC_CATEGORY_PS:
    case UTF8PROC_CATEGORY_PE:
    case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PF:
    case UTF8PROC_CATEGORY_PO:
      return kPunctuation;
    case UTF8PROC_CATEGORY_SM:
    case UTF8PROC_CATEGORY_SC:
    case UTF8PROC_CATEGORY_SK:
    case UTF8PROC_CATEGORY_SO:
      return kSymbol;
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
      return kControl;
    default:
      return 0;
  }
}

uint16_t look_up(uint32_t c) {
  return static_cast<uint16_t>(category_bits(c) | (is_white_space(c) ? kSpace : 0));
}

}  // namespace

uint16_t char_classes(uint32_t code_point) {
  static const auto kAscii = [] {
    std::array<uint16_t, 128> table{};
    for (uint32_t c = 0; c < table.size(); ++c) table[c] = look_up(c);
    return table;
  }();
  if (code_point < kAscii.size()) return kAscii[code_point];
  return code_point <= 0x10FFFF ? look_up(code_point) : uint16_t{0};
}

uint32_t lower_case(uint32_t code_point) {
  return static_cast<uint32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(code_point)));
}

std::vector<uint32_t> decompose(uint32_t code_point) {
  std::array<utf8proc_int32_t, 32> buffer;  // The longest decomposition has 4 code points.
  int boundary = UTF8PROC_BOUNDCLASS_START;
  const auto n = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(code_point), buffer.data(), buffer.size(),
                                         UTF8PROC_DECOMPOSE, &boundary);
  if (n <= 0 || static_cast<size_t>(n) > buffer.size()) return {code_point};
  return {buffer.begin(), buffer.begin() + n};
}

}  // namespace mneme
