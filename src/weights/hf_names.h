#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace mneme {

/// How the stored form of a Hugging Face tensor becomes the GGUF one.
enum class HfForm : uint8_t {
  kAsIs,
  kPlusOne,    ///< Gemma norms: the file holds w of x * (1 + w).
  kPermuteQ,   ///< Rows of each query head from halves to interleaved pairs.
  kPermuteK,   ///< The same for key heads.
  kTranspose,  ///< Stored [inputs, outputs].
  kExpert,     ///< One of a stack.
  kSkip,       ///< Not needed: tables that can be computed, heads of other tasks.
};

struct HfName {
  std::string gguf;  ///< Empty for kSkip.
  HfForm form = HfForm::kAsIs;
  uint64_t expert = 0;  ///< Place in the stack for kExpert.
};

/// The GGUF name of a tensor of a checkpoint of `architecture` (its GGUF name), or nothing for a name it does not have.
std::optional<HfName> gguf_name_of(std::string_view architecture, std::string_view hf_name);

}  // namespace mneme
