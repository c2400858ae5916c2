#include "model/mixer.h"

#include <algorithm>

namespace mneme {

uint64_t SequenceState::bytes() const {
  uint64_t sum = 0;
  for (const auto& layer : layers_) sum += layer ? layer->bytes() : 0;
  return sum;
}

bool SequenceState::truncate(int64_t n_tokens) {
  if (n_tokens > n_tokens_) return false;
  for (const auto& layer : layers_) {
    if (layer && !layer->truncate(n_tokens)) return false;
  }
  n_tokens_ = n_tokens;
  return true;
}

std::string SequenceState::trouble() const {
  for (size_t i = 0; i < layers_.size(); ++i) {
    if (layers_[i] && !layers_[i]->trouble().empty()) return fmt::format("{}, layer {}", layers_[i]->trouble(), i);
  }
  return {};
}

FetchCounts SequenceState::fetches() const {
  FetchCounts sum;
  for (const auto& layer : layers_) {
    if (layer) sum += layer->fetches();
  }
  return sum;
}

bool SequenceState::shares_pages() const {
  return std::any_of(layers_.begin(), layers_.end(), [](const auto& layer) { return layer && layer->shares_pages(); });
}

std::unique_ptr<SequenceState> SequenceState::deep_copy() const {
  CopyScope scope;
  std::vector<std::unique_ptr<LayerState>> layers;
  layers.reserve(layers_.size());
  for (const auto& layer : layers_) layers.push_back(layer ? layer->copy(scope) : nullptr);
  auto copy = std::make_unique<SequenceState>(std::move(layers));
  copy->n_tokens_ = n_tokens_;
  return copy;
}

}  // namespace mneme
