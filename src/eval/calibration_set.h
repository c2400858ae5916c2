#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/tokenizer/tokenizer.h"
#include "train/abacus/task.h"
#include "train/data/text_source.h"

namespace mneme {

/// What a calibration text is made of (arXiv 2503.07103 compares random text, code, and code with words about code).
enum class CalibrationKind : uint8_t {
  kGeneral,  ///< Passages of books, or of texts of the user's own.
  kCode,     ///< Generated programs of the training split, with their descriptions.
  kMixed,    ///< Both in turn, the shorter one first.
};
std::string_view calibration_name(CalibrationKind kind);
/// "general", "code" or "mixed". Throws Error(kInvalidArgument).
CalibrationKind parse_calibration_kind(std::string_view name);

/// Sequences of tokens that a text has in common with tasks count as known from the length on that Brown et al. (arXiv
/// 2005.14165) use: 13.
constexpr size_t kOverlapTokens = 13;

/// The sequences of kOverlapTokens in prompts and solutions of tasks.
class TaskOverlap {
 public:
  TaskOverlap(std::span<const train::abacus::Task> tasks, const Tokenizer& tokenizer);
  /// Whether `tokens` has one of them.
  bool touches(std::span<const TokenId> tokens) const;

 private:
  std::vector<uint64_t> hashes_;  ///< Sorted; two sequences of one hash count as one.
};

/// A text that a quantiser learns from, by name and seed.
struct CalibrationSet {
  CalibrationKind kind = CalibrationKind::kGeneral;
  uint64_t seed = 0;
  std::vector<TokenId> tokens;  ///< None of its sequences is in a task.
  uint64_t n_pieces = 0;        ///< Programs and passages in it;
  uint64_t n_dropped = 0;       ///< others had a sequence in common with a task.
};

/// Draws pieces until there are `n_tokens`. `texts` must have passages unless `kind` is kCode. Throws
/// Error(kInvalidArgument) when nearly all pieces overlap with the tasks.
CalibrationSet make_calibration_set(CalibrationKind kind, uint64_t seed, size_t n_tokens, const Tokenizer& tokenizer,
                                    const train::TextSource* texts, const TaskOverlap& overlap);

}  // namespace mneme
