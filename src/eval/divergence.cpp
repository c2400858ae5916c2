#include "eval/divergence.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "eval/perplexity.h"

namespace mneme {
namespace {

/// log softmax in double.
std::vector<double> log_probabilities(std::span<const float> logits) {
  const double max = static_cast<double>(*std::max_element(logits.begin(), logits.end()));
  double sum = 0;
  for (float x : logits) sum += std::exp(static_cast<double>(x) - max);
  const double shift = max + std::log(sum);
  std::vector<double> out(logits.size());
  for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<double>(logits[i]) - shift;
  return out;
}

}  // namespace

std::vector<float> window_logits(Engine& engine, std::span<const TokenId> window, size_t first, size_t stride) {
  const Model& model = engine.model();
  std::vector<TokenId> piece(window.begin(), window.end());
  if (engine.tokenizer().adds_bos()) piece.front() = *engine.tokenizer().bos();
  std::vector<float> out;
  out.reserve((piece.size() - first + stride - 1) / stride * model.hyper.n_vocab);
  const auto state = engine.make_state();
  engine.run(*state, piece, [&](size_t begin, size_t n, const float* hidden) {
    for (size_t i = 0; i < n; ++i) {
      const size_t next = begin + i + 1;
      if (next < first || next >= piece.size() || (next - first) % stride != 0) continue;
      const Workspace::Scope scope(engine.workspace());
      float* const logits = engine.workspace().floats(model.n_logits());
      model.logits(hidden, {&i, 1}, engine.workspace(), logits);
      out.insert(out.end(), logits, logits + model.hyper.n_vocab);
    }
  });
  return out;
}

Divergence divergence(Engine& reference, Engine& model, std::span<const TokenId> tokens,
                      const DivergenceOptions& options, const std::function<void(uint64_t, uint64_t)>& progress) {
  const size_t n_vocab = reference.model().hyper.n_vocab;
  if (model.model().hyper.n_vocab != n_vocab) {
    fail(ErrorCode::kInvalidArgument, "[compare] expected a vocabulary of {} tokens as in {}, found {}", n_vocab,
         reference.file().path(), model.model().hyper.n_vocab);
  }
  const auto logits = [&](std::span<const TokenId> window, size_t first) {
    return window_logits(model, window, first);
  };
  return divergence(reference, logits, tokens, options, progress);
}

Divergence divergence(Engine& reference, const WindowLogits& other, std::span<const TokenId> tokens,
                      const DivergenceOptions& options, const std::function<void(uint64_t, uint64_t)>& progress) {
  const size_t window = options.window, n_vocab = reference.model().hyper.n_vocab;
  const size_t first = options.first_scored > 0 ? options.first_scored : window / 2;
  if (first >= window) {
    fail(ErrorCode::kInvalidArgument,
         "[compare] expected at least one scored token in a window of {}, found {} unscored", window, first);
  }
  uint64_t n_windows = window < 4 ? 0 : tokens.size() / window;
  if (n_windows == 0) {
    fail(ErrorCode::kInvalidArgument,
         "[compare] expected a window of 4 or more and at least as many tokens of text, found {} and {}", window,
         tokens.size());
  }
  if (options.max_windows > 0) n_windows = std::min(n_windows, options.max_windows);
  Divergence out;
  double nll_reference = 0, nll = 0, same = 0;
  for (uint64_t w = 0; w < n_windows; ++w) {
    std::vector<TokenId> piece(tokens.begin() + static_cast<long>(w * window),
                               tokens.begin() + static_cast<long>((w + 1) * window));
    if (reference.tokenizer().adds_bos()) piece.front() = *reference.tokenizer().bos();
    const std::vector<float> a = window_logits(reference, piece, first), b = other(piece, first);
    out.identical = out.identical && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
    for (size_t row = 0; row * n_vocab < a.size(); ++row) {
      const auto p = log_probabilities({a.data() + row * n_vocab, n_vocab});
      const auto q = log_probabilities({b.data() + row * n_vocab, n_vocab});
      for (size_t i = 0; i < n_vocab; ++i) out.kl += std::exp(p[i]) * (p[i] - q[i]);
      const auto target = static_cast<size_t>(piece[first + row]);
      nll_reference -= p[target];
      nll -= q[target];
      same += std::max_element(p.begin(), p.end()) - p.begin() == std::max_element(q.begin(), q.end()) - q.begin();
      ++out.n_scored;
    }
    progress(w + 1, n_windows);
  }
  const double n = static_cast<double>(out.n_scored);
  out.reference_perplexity = std::exp(nll_reference / n);
  out.perplexity = std::exp(nll / n);
  out.kl /= n;
  out.same_top = same / n;
  return out;
}

}  // namespace mneme
