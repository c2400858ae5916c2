// Any text as a server's answer to a request for embeddings. What is read must be as many vectors as were asked for,
// all of one dimension and finite. The first byte says how many and of which dimension.
#include <cmath>
#include <cstdint>
#include <cstdlib>

#include "base/error.h"
#include "recall/remote_embedder.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const size_t n = 1 + data[0] % 4;
  const uint32_t dimension = data[0] / 4 % 4;
  try {
    const auto vectors = mneme::recall::parse_embeddings(
        std::string_view(reinterpret_cast<const char*>(data + 1), size - 1), n, dimension, "fuzz");
    if (vectors.size() != n) std::abort();
    for (const auto& vector : vectors) {
      if (vector.empty() || vector.size() != vectors[0].size() || (dimension != 0 && vector.size() != dimension)) {
        std::abort();
      }
      for (const float x : vector) {
        if (!std::isfinite(x)) std::abort();
      }
    }
  } catch (const mneme::Error&) {
  }
  return 0;
}
