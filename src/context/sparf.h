#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace mneme {

/// SparF attention of one kv head (InstInfer, arXiv 2409.04992; the scores are those of SparQ, arXiv 2312.04985),
/// without where keys and values lie. D channels, S tokens, of which r channels and k tokens are looked at; queries q
/// of the `n_rows` query heads of the group share both choices.
///
///   1. i = the r channels with the largest sum over the group of |q_c|
///   2. s^ = softmax(q_i K[:, i]^T * scale * sqrt(|q|_1 / |q_i|_1)) over all S tokens, of each query head
///   3. j = the k tokens with the largest sum over the group of s^, and the newest ones in any case
///   4. a = sum of s^ over j
///   5. out = a * softmax(q K[j]^T * scale) V[j] + (1 - a) * mean of V
///
/// In the paper scale = 1 / sqrt(D). |q_i|_1 = 0: the factor of 2 is 1. A logit without a value (`sink`) takes part in
/// 2 and 5 like a chosen token whose value is 0. A score that is no number counts as 0.

/// The r channels of step 1, ascending; of equal ones the first. q [n_rows, dim].
void sparf_channels(const float* q, size_t n_rows, size_t dim, size_t r, std::vector<uint32_t>& out);

/// sqrt(|q|_1 / |q_i|_1) of one row.
float sparf_sharpness(const float* q, size_t dim, std::span<const uint32_t> channels);

/// What one query head's output is made of: out = covered * attention + rest * mean of V.
struct SparfShare {
  float covered = 1, rest = 0;
};

/// Steps 2 to 4. `logits` [n_rows, n_all] are replaced by s^. Of the first n_old tokens k are chosen (ascending; of
/// equal ones the first), the others are the newest. `sinks` [n_rows] or null. `room` is working memory, 2 n_old
/// floats.
void sparf_tokens(float* logits, size_t n_rows, size_t n_all, size_t n_old, size_t k, const float* sinks,
                  std::vector<float>& room, std::vector<uint32_t>& chosen, std::vector<SparfShare>& shares);

}  // namespace mneme
