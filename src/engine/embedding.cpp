#include "engine/embedding.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"

namespace mneme {
namespace {

Pooling pooling_of(const Model& model, const EmbeddingOptions& options) {
  if (options.pooling) return *options.pooling;
  if (model.pooling != Pooling::kNone) return model.pooling;
  return model.causal ? Pooling::kLast : Pooling::kMean;
}

/// Adds the pooled part of the rows [first, first + n) of a text of `total` tokens.
class Pool {
 public:
  Pool(const Model& model, Pooling pooling, size_t total)
      : model_(model), pooling_(pooling), total_(total), sum_(model.hyper.width) {}

  void add(const float* hidden, size_t first, size_t n) {
    std::vector<float> row(model_.hyper.width);
    for (size_t i = 0; i < n; ++i) {
      if (pooling_ == Pooling::kCls && first + i != 0) continue;
      if (pooling_ == Pooling::kLast && first + i + 1 != total_) continue;
      model_.normalise(hidden, {&i, 1}, row.data());
      for (size_t d = 0; d < row.size(); ++d) sum_[d] += static_cast<double>(row[d]);
    }
  }

  std::vector<float> result(bool normalise) const {
    const double count = pooling_ == Pooling::kMean ? static_cast<double>(total_) : 1.0;
    double squares = 0;
    for (double x : sum_) squares += x / count * (x / count);
    const double factor = normalise && squares > 0 ? 1 / (count * std::sqrt(squares)) : 1 / count;
    std::vector<float> out(sum_.size());
    std::transform(sum_.begin(), sum_.end(), out.begin(), [&](double x) { return static_cast<float>(x * factor); });
    return out;
  }

 private:
  const Model& model_;
  Pooling pooling_;
  size_t total_;
  std::vector<double> sum_;
};

}  // namespace

std::vector<float> embed(Engine& engine, std::span<const TokenId> tokens, const EmbeddingOptions& options) {
  if (tokens.empty()) fail(ErrorCode::kInvalidArgument, "[embed] expected at least one token, found an empty text");
  engine.check_tokens(tokens);
  engine.check_room(0, tokens.size());
  const Model& model = engine.model();
  Pool pool(model, pooling_of(model, options), tokens.size());
  if (model.causal) {
    const auto state = engine.make_state();
    engine.run(*state, tokens, [&](size_t first, size_t n, const float* hidden) { pool.add(hidden, first, n); });
  } else {
    std::vector<int32_t> positions(tokens.size());
    std::iota(positions.begin(), positions.end(), 0);
    const SequenceSlice slice{nullptr, 0, tokens.size()};
    const Workspace::Scope scope(engine.workspace());
    pool.add(model.forward({tokens, positions, {&slice, 1}}, engine.workspace()), 0, tokens.size());
  }
  return pool.result(options.normalise);
}

Pooling parse_pooling(std::string_view name) {
  if (name == "mean") return Pooling::kMean;
  if (name == "cls") return Pooling::kCls;
  if (name == "last") return Pooling::kLast;
  fail(ErrorCode::kInvalidArgument, "[embed] expected a pooling of mean, cls or last, found '{}'", name);
}

}  // namespace mneme
