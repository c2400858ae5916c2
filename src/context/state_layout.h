#pragma once

namespace mneme {

/// Version of what the stores of this program save of a sequence, in sessions and in blocks on disk and servers. It rises
/// when the layout of any of them changes, so that states of another version are refused, not misread.
///   2: landmarks of shadowkv are codes of 8 bits; ranks of cskv may differ by layer
inline constexpr int kStateLayout = 2;

}  // namespace mneme
