#pragma once

#include "train/data/chat_encoder.h"
#include "train/data/vocabulary_split.h"

namespace mneme::train {

/// Text of one to four programs with their descriptions (abacus/program_maker.h), an empty line between two.
std::string program_file(PhiloxStream& random, Split split);

/// A sequence for training: such a file between the marks of a text's beginning and end. What follows a prompt weighs
/// `weights.answer`, the prompt as text.
WeightedTokens encode_programs(const TrainTokenizer& tokenizer, PhiloxStream& random, Split split,
                               const LossWeights& weights);

}  // namespace mneme::train
