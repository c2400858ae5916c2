#pragma once

#include <cstddef>

#include "engine/sampling/candidates.h"

namespace mneme {

// Mirostat (arXiv:2007.14966) steers the surprise S = -log2 p of the chosen tokens to the target tau. It keeps mu, the
// largest surprise that may be chosen, starting at 2 tau; after each token mu -= eta * (S - tau), with p taken after the
// truncation.

/// Version 1: estimates the exponent of a Zipf distribution from the 100 best candidates and keeps the best k:
///   s = sum t_i b_i / sum t_i^2,  t_i = ln((i+2)/(i+1)),  b_i = ln(p_i / p_{i+1}),  e = s - 1,
///   k = (e 2^mu / (1 - V^-e))^(1/s), at least 1; V is the size of the vocabulary.
void apply_mirostat_v1(Candidates& candidates, float mu, size_t n_vocab);

/// Version 2: drops the candidates with -log2 p > mu, but not the best one.
void apply_mirostat_v2(Candidates& candidates, float mu);

/// mu after a token with probability p was chosen.
float mirostat_next_mu(float mu, float p, float tau, float eta);

}  // namespace mneme
