#include "model/tokenizer/pre_tokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <gtest/gtest.h>
#include <pcre2.h>

#include <ctime>
#include <memory>
#include <sstream>
#include <string>

#include "base/error.h"
#include "model/tokenizer/test_vocabularies.h"

namespace mneme {
namespace {

/// One splitting expression run by a regular-expression library: the slow twin of a step.
class Expression {
 public:
  explicit Expression(const std::string& pattern) {
    int error = 0;
    PCRE2_SIZE offset = 0;
    code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                              PCRE2_UTF | PCRE2_UCP | PCRE2_DOLLAR_ENDONLY, &error, &offset, nullptr));
    if (!code_) throw std::runtime_error("bad pattern at " + std::to_string(offset) + ": " + pattern);
    match_.reset(pcre2_match_data_create_from_pattern(code_.get(), nullptr));
  }

  /// Cuts `piece` at matches and gaps.
  void split(const std::string& piece, std::vector<std::string>& out) const {
    size_t gap = 0;
    for (size_t at = 0; at < piece.size();) {
      const int found = pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(piece.data()), piece.size(), at, 0,
                                    match_.get(), nullptr);
      if (found <= 0) break;
      const PCRE2_SIZE* range = pcre2_get_ovector_pointer(match_.get());
      if (range[0] > gap) out.push_back(piece.substr(gap, range[0] - gap));
      out.push_back(piece.substr(range[0], range[1] - range[0]));
      gap = at = range[1];
    }
    if (gap < piece.size()) out.push_back(piece.substr(gap));
  }

 private:
  struct Free {
    void operator()(pcre2_code* code) const { pcre2_code_free(code); }
    void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
  };
  std::unique_ptr<pcre2_code, Free> code_;
  std::unique_ptr<pcre2_match_data, Free> match_;
};

std::vector<std::string> split_by_expressions(const std::string& text, const std::vector<std::string>& patterns) {
  std::vector<std::string> pieces;
  if (!text.empty()) pieces.push_back(text);
  for (const std::string& pattern : patterns) {
    const Expression expression(pattern);
    std::vector<std::string> next;
    for (const std::string& piece : pieces) expression.split(piece, next);
    pieces = std::move(next);
  }
  return pieces;
}

std::vector<std::string> split(const std::string& text, std::string_view name) {
  std::vector<std::string> pieces;
  size_t begin = 0;
  for (const uint32_t end : split_words(text, find_pre_tokenizer(name))) {
    pieces.push_back(text.substr(begin, end - begin));
    begin = end;
  }
  EXPECT_EQ(begin, text.size());
  return pieces;
}

// The expressions of the models' own tokenizers.
const std::string kG = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S))";
const std::string kContraction = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])";
const std::string kSpaces = R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
const std::string kOther = R"(| ?[^\s\p{L}\p{N}]+[\r\n]*)" + kSpaces;
const std::string kL3 = kContraction + R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3})" + kOther;
const std::string kQ2 = kContraction + R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N})" + kOther;
const std::string kQ35 =
    kContraction + R"(|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*)" + kSpaces;
const std::string kUpperWord = R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])";
const std::string kLowerWord = R"([\p{Ll}\p{Lm}\p{Lo}\p{M}])";
const std::string kCasedOther = R"(| ?[^\s\p{L}\p{N}]+[\r\n/]*)" + kSpaces;
const std::string kTekken =
    kUpperWord + "*" + kLowerWord + "+|" + kUpperWord + "+" + kLowerWord + R"(*|\p{N})" + kCasedOther;
const std::string kO4 = kUpperWord + "*" + kLowerWord + "+" + kContraction + "?|" + kUpperWord + "+" + kLowerWord +
                        "*" + kContraction + R"(?|\p{N}{1,3})" + kCasedOther;
const std::string kD3 = R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+)"
                        R"(| ?[\p{P}\p{S}]+[\r\n]*)" +
                        kSpaces;
const std::string kBloom = R"( ?[^(\s|.,!?…。，、।۔،)]+)";
const std::string kEastAsian = "[一-龥ࠀ-一가-퟿]+";

/// "41-5A B5" to the inside of a character class.
std::string code_point_class(const std::string& ranges) {
  std::string out;
  std::istringstream words(ranges);
  for (std::string word; words >> word;) {
    const size_t dash = word.find('-');
    out += "\\x{" + word.substr(0, dash) + "}";
    if (dash != std::string::npos) out += "-\\x{" + word.substr(dash + 1) + "}";
  }
  return out;
}

const std::string kCased =
    R"(\s?[)" +
    code_point_class(
        "41-5A 61-7A B5 C0-D6 D8-F6 F8-1BA 1BC-1BF 1C4-293 295-2AF 370-373 376 377 37B-37D 37F 386 388-38A 38C 38E-3A1 "
        "3A3-3F5 3F7-481 48A-52F 531-556 10A0-10C5 13A0-13F5 13F8-13FD 1C90-1CBA 1CBD-1CBF 1D00-1D2B 1D6B-1D77 "
        "1D79-1D9A 1E00-1F15 1F18-1F1D 1F20-1F45 1F48-1F4D 1F50-1F57 1F59 1F5B 1F5D 1F5F-1F7D 1F80-1FB4 1FB6-1FBC 1FBE "
        "1FC2-1FC4 1FC6-1FCC 1FD0-1FD3 1FD6-1FDB 1FE0-1FEC 1FF2-1FF4 1FF6-1FFC 2102 2107 210A-2113 2115 2119-211D 2124 "
        "2126 2128 212A-212D 212F-2134 2139 213C-213F 2145-2149 214E 2183 2184 2C00-2C7B 2C7E-2CE4 2CEB-2CEE 2CF2 2CF3 "
        "A640-A66D A680-A69B A722-A76F A771-A787 A78B-A78E AB70-ABBF FB00-FB06 FB13-FB17 FF21-FF3A FF41-FF5A "
        "10400-1044F 104B0-104D3 104D8-104FB 10C80-10CB2 10CC0-10CF2 118A0-118DF 1E900-1E943") +
    "]+";

struct Family {
  const char* name;
  std::vector<std::string> patterns;
};

const std::vector<Family>& families() {
  static const std::vector<Family> kFamilies = {
      {"gpt-2", {kG}},
      {"llama-bpe", {kL3}},
      {"qwen2", {kQ2}},
      {"qwen35", {kQ35}},
      {"tekken", {kTekken}},
      {"gpt-4o", {kO4}},
      {"gemma4", {R"([^\n]+|[\n]+)"}},
      {"starcoder", {R"(\p{N})", kG}},
      {"falcon", {R"([\p{P}\$\+<=>\^~\|`]+)", kG, "[0-9][0-9][0-9]"}},
      {"deepseek-llm", {R"([\r\n])", kCased, R"(\s?[!-/:-~！-／：-～‘-‟　-。]+)", R"(\s+$)", kEastAsian, R"(\p{N}+)"}},
      {"deepseek-coder", {R"([\r\n])", R"(\s?\p{L}+)", R"(\s?\p{P}+)", kEastAsian, R"(\p{N})"}},
      {"deepseek-v3", {R"(\p{N}{1,3})", "[一-龥぀-ゟ゠-ヿ]+", kD3}},
      {"bloom", {kBloom}},
      {"viking", {kBloom, R"(\p{N})"}},
      {"chameleon",
       {"<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", R"(([\t\n]|    |  ))", R"(\p{N})",
        R"([\p{P}!-/:-@\[-`{-~])", kG}},
      {"default", {R"([\p{P}\$\+<=>\^~\|]+)", kG, R"(\p{N}+)", "[0-9][0-9][0-9]"}},
  };
  return kFamilies;
}

TEST(PreTokenizer, AgreesWithTheRegularExpressions) {
  std::mt19937 random(11);
  std::vector<std::string> texts = {"",
                                    " ",
                                    "  ",
                                    "a   b",
                                    "x\ty",
                                    "I'm here, you're 'Re 'LL there'd",
                                    "<sentinel:12><sentinel:><sentinel:3 IMGIMGABCDZ IMGIMGABCDEZ IMGIMGZ",
                                    "        if x:\n\t\treturn\r\n\r\n  ",
                                    "HTTPServer XMLHttpRequest camelCase ПриветМир ǅabc",
                                    "3.14159 12345678 ٣٤٥",
                                    "a\n \n b \n\nc   ",
                                    "e\u0301\u0308 \u0301\u0301 \u0301",
                                    "..//..\n/\n",
                                    "　　中文　字"};
  for (int i = 0; i < 400; ++i) texts.push_back(random_text(random, 1 + random() % 60));
  for (const Family& family : families()) {
    for (const std::string& text : texts) {
      ASSERT_EQ(split(text, family.name), split_by_expressions(text, family.patterns)) << family.name << ": " << text;
    }
  }
}

TEST(PreTokenizer, SplitsTheSheetsExamples) {
  EXPECT_EQ(split("a   b", "gpt-2"), (std::vector<std::string>{"a", "  ", " b"}));
  EXPECT_EQ(split("x\ty", "gpt-2"), (std::vector<std::string>{"x", "\t", "y"}));
}

TEST(PreTokenizer, BadBytesAreSymbols) {
  EXPECT_EQ(split("ab\xFF\xFE"
                  "cd \xE2\x82",
                  "gpt-2"),
            (std::vector<std::string>{"ab", "\xFF\xFE", "cd", " \xE2\x82"}));
}

TEST(PreTokenizer, UnknownNameIsAnErrorThatListsTheKnownOnes) {
  try {
    find_pre_tokenizer("gpt\n9");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kUnsupported);
    const std::string message = e.what();
    EXPECT_NE(message.find("\"gpt\\n9\""), std::string::npos) << message;
    EXPECT_NE(message.find("llama-bpe"), std::string::npos);
    EXPECT_EQ(message.find('\n'), std::string::npos);
  }
}

TEST(PreTokenizer, AliasesShareTheirFamily) {
  EXPECT_EQ(&find_pre_tokenizer("llama3"), &find_pre_tokenizer("llama-bpe"));
  EXPECT_EQ(&find_pre_tokenizer("jina-v2-de"), &find_pre_tokenizer("gpt-2"));
  EXPECT_EQ(&find_pre_tokenizer(""), &find_pre_tokenizer("default"));
  EXPECT_TRUE(find_pre_tokenizer("tekken").ignore_merges);
  EXPECT_FALSE(find_pre_tokenizer("qwen2").clean_spaces);
}

/// Runs that make backtracking matchers quadratic: those would need minutes.
TEST(PreTokenizer, LongRunsTakeLinearTime) {
  constexpr size_t kBytes = 1 << 18;
  std::string interior(kBytes, ' ');
  interior += "\x01 ";
  std::string lone_spaces;
  while (lone_spaces.size() < kBytes / 2) lone_spaces += "\x01 ";
  lone_spaces.append(kBytes / 2, ' ');
  const std::string upper(kBytes, 'A'), quotes(kBytes, '\''), breaks(kBytes, '\n'), digits(kBytes, '7');
  const std::clock_t start = std::clock();
  for (const Family& family : families()) {
    for (const std::string& text : {interior, lone_spaces, upper, quotes, breaks, digits}) {
      const auto ends = split_words(text, find_pre_tokenizer(family.name));
      ASSERT_FALSE(ends.empty());
      EXPECT_EQ(ends.back(), text.size());
    }
  }
  EXPECT_LT(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC, 20);
}

}  // namespace
}  // namespace mneme
