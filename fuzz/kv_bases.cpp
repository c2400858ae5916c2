// Any bytes as a file of bases, once as they are and once behind a checksum that fits, so that what lies behind it is reached.
// What is read must have as many finite numbers as its sizes say.
#include <xxhash.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "base/error.h"
#include "context/kv_bases.h"

namespace {

using namespace mneme;

void read(const std::string& file) {
  try {
    const auto bases = KvBases::parse(std::as_bytes(std::span(file)), "fuzz");
    for (const KvBases::Layer& layer : bases->layers) {
      if (layer.key_basis.size() != layer.keys.rank * layer.keys.channels) std::abort();
      if (layer.value_basis.size() != layer.values.rank * layer.values.channels) std::abort();
      for (const float x : layer.key_basis) {
        if (!std::isfinite(x)) std::abort();
      }
    }
  } catch (const Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string file(reinterpret_cast<const char*>(data), size);
  read(file);
  file.insert(0, "mnemekvb");
  const uint64_t checksum = XXH64(file.data(), file.size(), 0);
  file.append(reinterpret_cast<const char*>(&checksum), sizeof checksum);
  read(file);
  return 0;
}
