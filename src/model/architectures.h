#pragma once

#include <span>
#include <string_view>

#include "model/model.h"
#include "model/weight_loader.h"

namespace mneme {

/// Fills a model whose `hyper` is set: one function an architecture, in arch/<name>.cpp.
using ArchitectureBuilder = void (*)(Model& model, WeightLoader& load, const Metadata& metadata);

/// Finds the builder of `general.architecture`. Throws Error(kUnsupported) that lists the known names.
ArchitectureBuilder find_architecture(std::string_view name);
/// Names of all architectures.
std::span<const std::string_view> architecture_names();

namespace arch {
void build_bert(Model& model, WeightLoader& load, const Metadata& metadata);
void build_deepseek(Model& model, WeightLoader& load, const Metadata& metadata);
void build_gemma2(Model& model, WeightLoader& load, const Metadata& metadata);
void build_gemma3(Model& model, WeightLoader& load, const Metadata& metadata);
void build_gpt2(Model& model, WeightLoader& load, const Metadata& metadata);
void build_llama(Model& model, WeightLoader& load, const Metadata& metadata);
void build_nomic_bert(Model& model, WeightLoader& load, const Metadata& metadata);
void build_phi3(Model& model, WeightLoader& load, const Metadata& metadata);
void build_qwen2(Model& model, WeightLoader& load, const Metadata& metadata);
void build_qwen3(Model& model, WeightLoader& load, const Metadata& metadata);
void build_qwen3moe(Model& model, WeightLoader& load, const Metadata& metadata);
}  // namespace arch

}  // namespace mneme
