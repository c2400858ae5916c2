#pragma once

#include <cstdint>

namespace mneme {

/// Memory that this process takes now, from /proc/self/status: resident pages, but pages of memory files (page_pool.h) once each,
/// which the system's number has as often as they are mapped. Throws Error(kIo) where /proc is missing.
uint64_t resident_bytes();

/// Highest resident size so far (VmHWM).
uint64_t peak_resident_bytes();

/// Physical memory of the machine, or the limit of the control group when that is lower.
uint64_t machine_memory_bytes();

}  // namespace mneme
