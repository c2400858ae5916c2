#include "engine/sequence_logits.h"

namespace mneme {

std::vector<float> sequence_logits(Engine& engine, std::span<const TokenId> tokens) {
  const auto state = engine.make_state();
  const size_t vocabulary = engine.model().hyper.n_vocab;
  std::vector<float> out;
  engine.run(*state, tokens, [&](size_t, size_t n, const float* hidden) {
    for (size_t row = 0; row < n; ++row) {
      const Workspace::Scope scope(engine.workspace());
      float* const logits = engine.workspace().floats(engine.model().n_logits());
      engine.model().logits(hidden, {&row, 1}, engine.workspace(), logits);
      out.insert(out.end(), logits, logits + vocabulary);
    }
  });
  return out;
}

}  // namespace mneme
