#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "base/error.h"
#include "weights/gguf_reader.h"

/// Any bytes are refused with an Error or give tensors that lie inside them.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  try {
    const mneme::GgufContents contents = mneme::parse_gguf(bytes, "fuzz");
    for (const mneme::NamedTensor& tensor : contents.tensors) {
      const size_t n = tensor.view.bytes();
      if (tensor.view.data < bytes.data() || n > size || tensor.view.data > bytes.data() + size - n) std::abort();
    }
    for (const auto& [key, value] : contents.metadata.entries()) {
      for (std::string_view text : value.strings) {
        if (text.size() > size) std::abort();
      }
      if (value.type == mneme::ValueType::kArray && value.element_type == mneme::ValueType::kI32) {
        (void)contents.metadata.find_array_i32(key);
      }
    }
  } catch (const mneme::Error&) {
  }
  return 0;
}
