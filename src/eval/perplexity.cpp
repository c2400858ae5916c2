#include "eval/perplexity.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/error.h"

namespace mneme {

double negative_log_likelihood(std::span<const float> logits, TokenId token) {
  const double max = static_cast<double>(*std::max_element(logits.begin(), logits.end()));
  double sum = 0;
  for (float x : logits) sum += std::exp(static_cast<double>(x) - max);
  return std::log(sum) + max - static_cast<double>(logits[static_cast<size_t>(token)]);
}

PerplexityResult perplexity(Engine& engine, std::span<const TokenId> tokens, const PerplexityOptions& options,
                            const std::function<void(uint64_t, uint64_t)>& progress) {
  const Model& model = engine.model();
  if (!model.output) fail(ErrorCode::kUnsupported, "[perplexity] {} has no logits", engine.file().path());
  const size_t window = options.window;
  const size_t first = options.first_scored > 0 ? options.first_scored : window / 2;
  if (window < 2 || first >= window) {
    fail(ErrorCode::kInvalidArgument, "[perplexity] expected at least one scored token in a window of {}, found {} unscored",
         window, first);
  }
  engine.check_room(0, window);
  uint64_t n_windows = tokens.size() / window;
  if (n_windows == 0) {
    fail(ErrorCode::kInvalidArgument, "[perplexity] expected at least {} tokens of text, found {}", window, tokens.size());
  }
  if (options.max_windows > 0) n_windows = std::min(n_windows, options.max_windows);

  PerplexityResult result;
  result.n_windows = n_windows;
  double sum = 0, squares = 0;
  for (uint64_t w = 0; w < n_windows; ++w) {
    std::vector<TokenId> piece(tokens.begin() + static_cast<long>(w * window),
                               tokens.begin() + static_cast<long>((w + 1) * window));
    if (engine.tokenizer().adds_bos()) piece.front() = *engine.tokenizer().bos();
    const auto state = engine.make_state();
    engine.run(*state, piece, [&](size_t begin, size_t n, const float* hidden) {
      for (size_t i = 0; i < n; ++i) {
        const size_t next = begin + i + 1;
        if (next < std::max<size_t>(1, first) || next >= window) continue;
        const Workspace::Scope scope(engine.workspace());
        float* const logits = engine.workspace().floats(model.n_logits());
        model.logits(hidden, {&i, 1}, engine.workspace(), logits);
        const double nll = negative_log_likelihood({logits, model.hyper.n_vocab}, piece[next]);
        sum += nll;
        squares += nll * nll;
        ++result.n_scored;
      }
    });
    progress(w + 1, n_windows);
  }
  const double n = static_cast<double>(result.n_scored);
  result.nll = sum / n;
  result.nll_error = std::sqrt(std::max(0.0, squares / n - result.nll * result.nll) / n);
  result.perplexity = std::exp(result.nll);
  return result;
}

}  // namespace mneme
