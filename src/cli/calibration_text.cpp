#include "cli/calibration_text.h"

#include "base/atomic_file.h"
#include "base/error.h"
#include "eval/own_text.h"

namespace mneme::cli {

std::vector<TokenId> calibration_tokens(Engine& engine, const std::string& source, uint64_t most, uint32_t window,
                                        uint64_t seed) {
  if (source == kOwnText) {
    OwnTextOptions how;
    how.first = OwnTextOptions::First::kVocabulary;
    how.piece = window;
    how.seed = seed;
    return own_text(engine, most, how);
  }
  std::vector<TokenId> tokens = engine.tokenizer().encode(read_text_file(source), {false, false});
  if (tokens.empty()) fail(ErrorCode::kInvalidArgument, "[calibrate] {}: expected text, found none", source);
  if (tokens.size() > most) tokens.resize(most);
  return tokens;
}

std::string describe_calibration(const std::string& source, uint64_t n_tokens) {
  if (source == kOwnText) return fmt::format("{} tokens that the model made up; no user data was used", n_tokens);
  return fmt::format("{} tokens of {}", n_tokens, source);
}

}  // namespace mneme::cli
