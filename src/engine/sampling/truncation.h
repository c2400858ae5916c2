#pragma once

#include <cstddef>

#include "base/philox.h"
#include "engine/sampling/candidates.h"

namespace mneme {

// Samplers that drop candidates and leave the logits of the others alone. p is softmax over the current candidates; at
// least one candidate (and at least min_keep, where that is a parameter) remains.

/// Keeps the k candidates with the largest logits.
void apply_top_k(Candidates& candidates, size_t k, size_t min_keep);

/// Nucleus sampling (arXiv:1904.09751): in order of falling p, keeps the shortest prefix with sum p >= top_p.
void apply_top_p(Candidates& candidates, float top_p, size_t min_keep);

/// Min-p (arXiv:2407.01082): keeps p >= min_p * max p, that is logit >= max logit + ln(min_p).
void apply_min_p(Candidates& candidates, float min_p, size_t min_keep);

/// Locally typical sampling (arXiv:2202.00666): with the entropy H = -sum p ln p, in order of rising |-ln p - H|, keeps the
/// shortest prefix with sum p > typical_p.
void apply_typical(Candidates& candidates, float typical_p, size_t min_keep);

/// Top-n-sigma (arXiv:2411.07641): keeps logit >= max - n * sigma, where sigma is the standard deviation of the logits of
/// all candidates.
void apply_top_n_sigma(Candidates& candidates, float n);

/// Exclude top choices: with the given probability, removes all candidates with p >= threshold except the least probable
/// of them. Does nothing when fewer than two reach the threshold, or when fewer than min_keep would remain. Draws one
/// number from `random`.
void apply_xtc(Candidates& candidates, float probability, float threshold, size_t min_keep, PhiloxStream& random);

}  // namespace mneme
