#include "budget/resident.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <string>
#include <string_view>

#include "base/error.h"
#include "budget/page_pool.h"

namespace mneme {
namespace {

uint64_t status_bytes(std::string_view wanted) {
  std::ifstream file("/proc/self/status");
  std::string key;
  while (file >> key) {
    if (key == wanted) {
      uint64_t kib = 0;
      file >> kib;
      return kib << 10;
    }
  }
  fail(ErrorCode::kIo, "[resident size] /proc/self/status has no {}", wanted);
}

}  // namespace

uint64_t resident_bytes() {
  const uint64_t resident = status_bytes("VmRSS:"), shared = status_bytes("RssShmem:");
  return resident - std::min(resident, shared) + PagePool::bytes_of_process();
}

uint64_t peak_resident_bytes() { return status_bytes("VmHWM:"); }

uint64_t machine_memory_bytes() {
  const uint64_t physical =
      static_cast<uint64_t>(::sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  uint64_t group_limit = 0;
  std::ifstream file("/sys/fs/cgroup/memory.max");  // holds the word "max" when there is no limit
  return file >> group_limit ? std::min(physical, group_limit) : physical;
}

}  // namespace mneme
