#pragma once

#include <cstdint>

namespace mneme {

/// Resident size of this process now, from /proc/self/statm. Throws Error(kIo) where /proc is missing.
uint64_t resident_bytes();

/// Highest resident size so far (VmHWM).
uint64_t peak_resident_bytes();

/// Physical memory of the machine, or the limit of the control group when that is lower.
uint64_t machine_memory_bytes();

}  // namespace mneme
