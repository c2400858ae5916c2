#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "base/error.h"
#include "weights/safetensors.h"

/// Any bytes are refused with an Error or give tensors that lie inside them.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  try {
    for (const mneme::SafeTensor& tensor : mneme::parse_safetensors(bytes, "fuzz")) {
      const size_t n = tensor.bytes.size();
      if (n > size || tensor.bytes.data() < bytes.data() || tensor.bytes.data() > bytes.data() + size - n) std::abort();
    }
  } catch (const mneme::Error&) {
  }
  return 0;
}
