#pragma once

namespace mneme {

/// Whether this build keeps memory of its own beside every byte of the program (address and thread sanitizers), so that
/// the resident size says nothing about the program. For tests.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kHasShadowMemory = true;
#elif defined(__has_feature)
constexpr bool kHasShadowMemory = __has_feature(address_sanitizer) || __has_feature(thread_sanitizer);
#else
constexpr bool kHasShadowMemory = false;
#endif

}  // namespace mneme
