#include "eval/calibration_set.h"

#include <algorithm>

#include "base/error.h"
#include "train/abacus/program_maker.h"

namespace mneme {
namespace {

constexpr size_t kPassageChars = 600;

/// FNV-1a over the ids.
uint64_t hash_of(std::span<const TokenId> tokens) {
  uint64_t hash = 0xCBF29CE484222325;
  for (const TokenId token : tokens) hash = (hash ^ static_cast<uint32_t>(token)) * 0x100000001B3;
  return hash;
}

}  // namespace

std::string_view calibration_name(CalibrationKind kind) {
  switch (kind) {
    case CalibrationKind::kGeneral:
      return "general";
    case CalibrationKind::kCode:
      return "code";
    case CalibrationKind::kMixed:
      return "mixed";
  }
  return "unknown";
}

CalibrationKind parse_calibration_kind(std::string_view name) {
  for (const CalibrationKind kind : {CalibrationKind::kGeneral, CalibrationKind::kCode, CalibrationKind::kMixed}) {
    if (name == calibration_name(kind)) return kind;
  }
  fail(ErrorCode::kInvalidArgument, "[calibration set] expected general, code or mixed, found '{}'", name);
}

TaskOverlap::TaskOverlap(std::span<const train::abacus::Task> tasks, const Tokenizer& tokenizer) {
  for (const train::abacus::Task& task : tasks) {
    const std::vector<TokenId> tokens = tokenizer.encode(task.program.text(), {false, false});
    for (size_t i = 0; i + kOverlapTokens <= tokens.size(); ++i) {
      hashes_.push_back(hash_of(std::span(tokens).subspan(i, kOverlapTokens)));
    }
  }
  std::sort(hashes_.begin(), hashes_.end());
}

bool TaskOverlap::touches(std::span<const TokenId> tokens) const {
  for (size_t i = 0; i + kOverlapTokens <= tokens.size(); ++i) {
    if (std::binary_search(hashes_.begin(), hashes_.end(), hash_of(tokens.subspan(i, kOverlapTokens)))) return true;
  }
  return false;
}

CalibrationSet make_calibration_set(CalibrationKind kind, uint64_t seed, size_t n_tokens, const Tokenizer& tokenizer,
                                    const train::TextSource* texts, const TaskOverlap& overlap) {
  constexpr uint64_t kMostDroppedInARow = 10'000;
  CalibrationSet set;
  set.kind = kind;
  set.seed = seed;
  PhiloxStream random(seed, 0x63616C69);
  size_t n_code = 0, n_general = 0;
  for (uint64_t dropped = 0; set.tokens.size() < n_tokens;) {
    const bool code = kind == CalibrationKind::kCode || (kind == CalibrationKind::kMixed && n_code <= n_general);
    const std::string piece = code ? train::abacus::make_program(random, train::Split::kTrain).text() + "\n"
                                   : texts->passage(random, train::Split::kTrain, kPassageChars) + "\n";
    const std::vector<TokenId> tokens = tokenizer.encode(piece, {false, false});
    if (overlap.touches(tokens)) {
      ++set.n_dropped;
      if (++dropped == kMostDroppedInARow) {
        fail(ErrorCode::kInvalidArgument,
             "[calibration set] {}: expected pieces that share no {} tokens with a task, "
             "found none among {}",
             calibration_name(kind), kOverlapTokens, dropped);
      }
      continue;
    }
    dropped = 0;
    (code ? n_code : n_general) += tokens.size();
    ++set.n_pieces;
    set.tokens.insert(set.tokens.end(), tokens.begin(), tokens.end());
  }
  set.tokens.resize(n_tokens);
  return set;
}

}  // namespace mneme
