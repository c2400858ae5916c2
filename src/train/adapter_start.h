#pragma once

#include "train/llama.h"

namespace mneme::train {

/// Fills the trained adapter so that s B A is the best approximation of rank r of W_teacher - W, W being the base with
/// the adapters below: the truncated singular value decomposition U S V^T gives B = U sqrt(S / s), A = sqrt(S / s) V^T.
/// The difference of one matrix at a time is in memory, under Tag::kScratch. Throws Error when the teacher lacks a
/// matrix.
void start_from_difference(Ledger& ledger, LlamaModel<float>& model, const ModelFile& teacher, uint64_t seed);

}  // namespace mneme::train
