#include "model/architectures.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "base/error.h"

namespace mneme {
namespace {

// The GGUF files of mistral and smollm say "llama".
constexpr std::array<std::string_view, 13> kNames = {"bert", "deepseek",      "gemma2", "gemma3", "gpt2",  "llama",    "mistral",
                                                     "nomic-bert", "phi3",   "qwen2",  "qwen3", "qwen3moe", "smollm"};
constexpr std::array<ArchitectureBuilder, 13> kBuilders = {
    arch::build_bert, arch::build_deepseek, arch::build_gemma2,     arch::build_gemma3, arch::build_gpt2,  arch::build_llama, arch::build_llama,
    arch::build_nomic_bert, arch::build_phi3, arch::build_qwen2,  arch::build_qwen3, arch::build_qwen3moe, arch::build_llama};

}  // namespace

std::span<const std::string_view> architecture_names() { return kNames; }

ArchitectureBuilder find_architecture(std::string_view name) {
  const auto found = std::find(kNames.begin(), kNames.end(), name);
  if (found == kNames.end()) {
    fail(ErrorCode::kUnsupported, "[load model] expected an architecture among {}, found '{}'", fmt::join(kNames, ", "), name);
  }
  return kBuilders[static_cast<size_t>(found - kNames.begin())];
}

}  // namespace mneme
