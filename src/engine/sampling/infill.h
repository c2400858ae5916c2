#pragma once

#include "engine/sampling/candidates.h"

namespace mneme {

/// For filling in the middle of a text, where it matters to stop in time. Looks at the 256 best candidates:
///  1. when 3 * p_end * n > p_text (sums over the n candidates that end the answer, and over the others), only those that
///     end it are kept;
///  2. of two tokens of which one's text begins the other's, the more probable one takes both probabilities;
///  3. text tokens with p < 0.2 are dropped; when none is left, only the best token that ends the answer is kept (the best
///     text token when there is none); of those left, the ones with p < 1 / (number left + 1) are dropped.
/// Afterwards logit = ln p of the merged probabilities. Meant to come after top-k and top-p.
void apply_infill(Candidates& candidates, const VocabularyView& vocabulary);

}  // namespace mneme
