#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/philox.h"

namespace mneme::train {

/// Which half of the invented vocabulary a generator may use. Every word belongs to exactly one of them, decided by a hash
/// of the word, so that what is asked in evaluation was never seen in training.
enum class Split : uint8_t { kTrain, kHeldOut };

/// About one word in six is held out.
Split split_of(std::string_view word);

/// An invented capitalised name of two or three syllables, such as "Tovarin", from the given half.
std::string invent_name(PhiloxStream& random, Split split);

/// A number of `digits` decimal digits without a leading zero, from the given half.
std::string invent_number(PhiloxStream& random, Split split, int digits);

}  // namespace mneme::train
