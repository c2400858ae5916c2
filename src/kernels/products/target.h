#pragma once

#include <hwy/base.h>

// Macros for code that is compiled once a target inside HWY_PUSH_ATTRIBUTES: raw intrinsics need the target's
// attributes on every function they are inlined into, and files with their own -m flags would leak those into shared
// inline functions.

#define MNEME_INLINE inline __attribute__((always_inline))

#if defined(__clang__)
#define MNEME_UNROLL _Pragma("clang loop unroll(full)")
#else
#define MNEME_UNROLL _Pragma("GCC unroll 16")
#endif
