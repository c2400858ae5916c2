#include "budget/resident.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <string>

#include "base/error.h"

namespace mneme {

uint64_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  uint64_t total = 0, resident = 0;
  if (!(file >> total >> resident)) fail(ErrorCode::kIo, "[resident size] cannot read /proc/self/statm");
  return resident * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
}

uint64_t peak_resident_bytes() {
  std::ifstream file("/proc/self/status");
  std::string key;
  while (file >> key) {
    if (key == "VmHWM:") {
      uint64_t kib = 0;
      file >> kib;
      return kib << 10;
    }
  }
  fail(ErrorCode::kIo, "[resident size] /proc/self/status has no VmHWM");
}

uint64_t machine_memory_bytes() {
  const uint64_t physical =
      static_cast<uint64_t>(::sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  uint64_t group_limit = 0;
  std::ifstream file("/sys/fs/cgroup/memory.max");  // holds the word "max" when there is no limit
  return file >> group_limit ? std::min(physical, group_limit) : physical;
}

}  // namespace mneme
