#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "eval/integer_model.h"

/// The layers of a model in an arithmetic: the integer pass and the simulated one are the same graph.
namespace mneme::integer {

/// Arithmetic has the types Residual, Code and Wide (sums behind matrices), and the functions called here on rows of
/// n tokens. `seen(point, rows)` is told what becomes 8 bits.
template <typename Arithmetic>
void run_layer(Arithmetic& a, const Layer& layer, size_t index, size_t n,
               std::vector<typename Arithmetic::Residual>& x) {
  using Codes = std::vector<typename Arithmetic::Code>;
  using Wides = std::vector<typename Arithmetic::Wide>;
  a.enter(index);
  const Codes input = a.norm(layer.attention_norm, Point::kAttentionInput, x, n);
  const Codes q = a.rotate(a.product(layer.query, input, n), Point::kQuery, n);
  const Codes k = a.rotate(a.product(layer.key, input, n), Point::kKey, n);
  const Codes v = a.code(a.product(layer.value, input, n), Point::kValue);
  const Codes attended = a.attend(layer, q, k, v, n);
  a.add(a.product(layer.output, attended, n), x);
  const Codes second = a.norm(layer.feed_forward_norm, Point::kFeedForwardInput, x, n);
  const Wides gate = a.product(layer.gate, second, n);
  const Codes hidden = a.gate(layer, gate, a.product(layer.up, second, n));
  a.add(a.product(layer.down, hidden, n), x);
  a.leave(x);
}

/// The residual stream behind all layers.
template <typename Arithmetic>
std::vector<typename Arithmetic::Residual> run_layers(Arithmetic& a, const Model& model,
                                                      std::span<const TokenId> window) {
  std::vector<typename Arithmetic::Residual> x = a.embed(window);
  for (size_t i = 0; i < model.layers.size(); ++i) run_layer(a, model.layers[i], i, window.size(), x);
  return x;
}

}  // namespace mneme::integer
