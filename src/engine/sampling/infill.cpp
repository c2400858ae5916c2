#include "engine/sampling/infill.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

namespace mneme {
namespace {

constexpr size_t kConsidered = 256;
constexpr float kFirstThreshold = 0.2f;

/// Moves the probability of a token to the more probable one of two where one's text begins the other's.
void merge_prefixes(std::span<Candidate> items, const VocabularyView& vocabulary) {
  std::vector<std::string> pieces;
  for (const Candidate& c : items) pieces.push_back(vocabulary.piece(c.id));
  for (size_t i = 0; i < items.size(); ++i) {
    if (pieces[i].empty()) continue;
    for (size_t j = 0; j < items.size() && items[i].p > 0; ++j) {
      if (i == j || items[j].p == 0 || !pieces[j].starts_with(pieces[i])) continue;
      Candidate& winner = items[j].p > items[i].p ? items[j] : items[i];
      Candidate& loser = &winner == &items[i] ? items[j] : items[i];
      winner.p += loser.p;
      loser.p = 0;
    }
  }
}

}  // namespace

void apply_infill(Candidates& candidates, const VocabularyView& vocabulary) {
  candidates.keep_top(kConsidered);
  const std::span<Candidate> items = candidates.normalize();
  const auto ends = [&](const Candidate& c) { return vocabulary.is_end_of_generation(c.id); };
  double p_end = 0, p_text = 0;
  for (const Candidate& c : items) (ends(c) ? p_end : p_text) += c.p;
  if (3 * p_end * static_cast<double>(items.size()) > p_text) return candidates.keep_if(ends);

  const Candidate best = items.front();
  const auto best_end = std::find_if(items.begin(), items.end(), ends);
  const Candidate fallback = best_end != items.end() ? *best_end : best;
  merge_prefixes(items, vocabulary);
  size_t n_text = 0;
  for (const Candidate& c : items) n_text += !ends(c) && c.p >= kFirstThreshold;
  if (n_text == 0) return candidates.keep_if([&](const Candidate& c) { return c.id == fallback.id; });
  double kept = 0;
  for (const Candidate& c : items) kept += c.p > 0 && (ends(c) || c.p >= kFirstThreshold) ? c.p : 0;
  const double second = 1.0 / static_cast<double>(n_text + 1);
  candidates.keep_if(
      [&](const Candidate& c) { return c.p > 0 && (ends(c) || (c.p >= kFirstThreshold && c.p / kept >= second)); });
  for (Candidate& c : candidates.items()) c.logit = std::log(c.p);
  candidates.forget_order();
  if (candidates.items().empty()) {
    std::vector<Candidate> only = {fallback};
    candidates.assign(only, true);
  }
}

}  // namespace mneme
