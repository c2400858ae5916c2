#include "weights/quantize.h"

#include <algorithm>
#include <cassert>
#include <cctype>
#include <charconv>
#include <map>
#include <mutex>

#include "base/error.h"
#include "tensor/exact_conversion.h"
#include "tensor/weight_format.h"

namespace mneme {
namespace {

constexpr QuantRecipe kRecipes[] = {
    {"F32", DType::kF32, QuantMix::kNone, 0, "32-bit floats"},
    {"F16", DType::kF16, QuantMix::kNone, 1, "half precision"},
    {"BF16", DType::kBF16, QuantMix::kNone, 32, "bfloat16"},
    {"DF12", DType::kDf12, QuantMix::kNone, static_cast<uint32_t>(DType::kDf12), "bfloat16 without loss, fixed rate"},
    {"DF11", DType::kDf11, QuantMix::kNone, static_cast<uint32_t>(DType::kDf11),
     "bfloat16 without loss, Huffman-coded exponents; slower"},
    {"Q8_0", DType::kQ8_0, QuantMix::kPlain, 7, "8 bits, nearly lossless"},
    {"Q6_K", DType::kQ6_K, QuantMix::kPlain, 18, "6 bits"},
    {"Q5_K_M", DType::kQ5_K, QuantMix::kMedium, 17, "5 bits, sensitive tensors 6"},
    {"Q5_K_S", DType::kQ5_K, QuantMix::kSmall, 16, "5 bits"},
    {"Q5_K", DType::kQ5_K, QuantMix::kPlain, 16, "5 bits, all layers alike"},
    {"Q5_1", DType::kQ5_1, QuantMix::kPlain, 9, "5 bits with minimum, blocks of 32"},
    {"Q5_0", DType::kQ5_0, QuantMix::kPlain, 8, "5 bits, blocks of 32"},
    {"Q4_K_M", DType::kQ4_K, QuantMix::kMedium, 15, "4 bits, sensitive tensors 6; the usual choice"},
    {"Q4_K_S", DType::kQ4_K, QuantMix::kSmall, 14, "4 bits, the first layers 5"},
    {"Q4_K", DType::kQ4_K, QuantMix::kPlain, 14, "4 bits, all layers alike"},
    {"Q4_1", DType::kQ4_1, QuantMix::kPlain, 3, "4 bits with minimum, blocks of 32"},
    {"Q4_0", DType::kQ4_0, QuantMix::kPlain, 2, "4 bits, blocks of 32; the fastest"},
    {"IQ4_NL", DType::kIQ4_NL, QuantMix::kPlain, 25, "4 bits, uneven levels, blocks of 32"},
    {"IQ4_XS", DType::kIQ4_XS, QuantMix::kPlain, 30, "4 bits, uneven levels"},
    {"BITMOD4", DType::kBitMod4, QuantMix::kPlain, static_cast<uint32_t>(DType::kBitMod4),
     "4 bits, one of four sets of levels a group of 128"},
    {"MXFP4", DType::kMXFP4, QuantMix::kPlain, 38, "4-bit floats, shared exponent"},
    {"NVFP4", DType::kNVFP4, QuantMix::kPlain, 39, "4-bit floats, 8-bit float scales"},
    {"Q3_K_L", DType::kQ3_K, QuantMix::kLarge, 13, "3 bits, sensitive tensors 5"},
    {"Q3_K_M", DType::kQ3_K, QuantMix::kMedium, 12, "3 bits, sensitive tensors 4 to 5"},
    {"Q3_K_S", DType::kQ3_K, QuantMix::kSmall, 11, "3 bits"},
    {"Q3_K", DType::kQ3_K, QuantMix::kPlain, 11, "3 bits, all layers alike"},
    {"BITMOD3", DType::kBitMod3, QuantMix::kPlain, static_cast<uint32_t>(DType::kBitMod3),
     "3 bits, one of four sets of levels a group of 128"},
    {"Q2_K_S", DType::kQ2_K, QuantMix::kSmall, 21, "2 bits, few sensitive tensors 4"},
    {"Q2_K_M", DType::kQ2_K, QuantMix::kMedium, 10, "2 bits, sensitive tensors 3 to 4"},
    {"Q2_K", DType::kQ2_K, QuantMix::kPlain, 10, "2 bits, all layers alike"},
    {"BIPOLAR8", DType::kBipolar8, QuantMix::kPlain, static_cast<uint32_t>(DType::kBipolar8),
     "8-bit odd integers, groups of 128"},
    {"BIPOLAR7", DType::kBipolar7, QuantMix::kPlain, static_cast<uint32_t>(DType::kBipolar7),
     "7-bit odd integers, groups of 128"},
    {"BIPOLAR6", DType::kBipolar6, QuantMix::kPlain, static_cast<uint32_t>(DType::kBipolar6),
     "6-bit odd integers, groups of 128"},
    {"BIPOLAR5", DType::kBipolar5, QuantMix::kPlain, static_cast<uint32_t>(DType::kBipolar5),
     "5-bit odd integers, groups of 128"},
    {"BIPOLAR4", DType::kBipolar4, QuantMix::kPlain, static_cast<uint32_t>(DType::kBipolar4),
     "4-bit odd integers, groups of 128"},
    {"BIPOLAR3", DType::kBipolar3, QuantMix::kPlain, static_cast<uint32_t>(DType::kBipolar3),
     "3-bit odd integers, groups of 128"},
    {"BIPOLAR2", DType::kBipolar2, QuantMix::kPlain, static_cast<uint32_t>(DType::kBipolar2),
     "2-bit odd integers, groups of 128"},
    {"BIPOLAR1", DType::kBipolar1, QuantMix::kPlain, static_cast<uint32_t>(DType::kBipolar1),
     "1-bit odd integers, groups of 128"},
    {"BITSTACK", DType::kBitStack, QuantMix::kPlain, static_cast<uint32_t>(DType::kBitStack),
     "any size at run time: blocks of about 1 bit, loaded as memory allows"},
    {"AQLM4x8g8", DType::kAqlm, QuantMix::kPlain, static_cast<uint32_t>(DType::kAqlm),
     "4 bits, sums of vectors of 8 weights; any AQLM<M>x<B>g<g>", {4, 8, 8}},
    {"AQLM3x8g8", DType::kAqlm, QuantMix::kPlain, static_cast<uint32_t>(DType::kAqlm),
     "3 bits, sums of vectors of 8 weights", {3, 8, 8}},
    {"AQLM2x8g8", DType::kAqlm, QuantMix::kPlain, static_cast<uint32_t>(DType::kAqlm),
     "2 bits, sums of vectors of 8 weights", {2, 8, 8}},
    {"AQLM1x8g4", DType::kAqlm, QuantMix::kPlain, static_cast<uint32_t>(DType::kAqlm), "2 bits, vectors of 4 weights",
     {1, 8, 4}},
    {"KMEANS4", DType::kAqlm, QuantMix::kPlain, static_cast<uint32_t>(DType::kAqlm),
     "4 bits, the best 16 levels of each matrix", {1, 4, 1}},
    {"KMEANS3", DType::kAqlm, QuantMix::kPlain, static_cast<uint32_t>(DType::kAqlm),
     "3 bits, the best 8 levels of each matrix", {1, 3, 1}},
    {"KMEANS2", DType::kAqlm, QuantMix::kPlain, static_cast<uint32_t>(DType::kAqlm),
     "2 bits, the best 4 levels of each matrix", {1, 2, 1}},
    {"TQ2_0", DType::kTQ2_0, QuantMix::kPlain, 37, "ternary, for models trained so"},
    {"TQ1_0", DType::kTQ1_0, QuantMix::kPlain, 36, "ternary, packed tighter"},
    {"Q2_0", DType::kQ2_0, QuantMix::kPlain, 41, "four levels, for models trained so"},
    {"Q1_0", DType::kQ1_0, QuantMix::kPlain, 40, "signs only, for models trained so"},
};

/// What the mixes need to know of a model.
struct ModelFacts {
  size_t n_layers = 0;
  uint64_t queries_per_kv = 1;
  uint64_t n_experts = 0;
  bool has_output = false;
};

/// N of "blk.N.", or nothing.
std::optional<size_t> layer_of(std::string_view name) {
  if (!name.starts_with("blk.")) return std::nullopt;
  size_t layer = 0;
  const auto [end, status] = std::from_chars(name.data() + 4, name.data() + name.size(), layer);
  if (status != std::errc{} || end == name.data() + name.size() || *end != '.') return std::nullopt;
  return layer;
}

ModelFacts facts_of(const Metadata& metadata, std::span<const TensorInfo> tensors) {
  ModelFacts facts;
  for (const TensorInfo& tensor : tensors) {
    if (const auto layer = layer_of(tensor.name)) facts.n_layers = std::max(facts.n_layers, *layer + 1);
    facts.has_output |= tensor.name == "output.weight";
  }
  const std::string arch(metadata.find_string("general.architecture").value_or(""));
  const auto first = [&](const std::string& key) -> uint64_t {
    const auto values = metadata.has(key) && metadata.is_array(key) ? metadata.find_array_u64(key) : std::nullopt;
    if (values) return values->empty() ? 0 : values->front();
    return metadata.find_u64(key).value_or(0);
  };
  const uint64_t heads = first(arch + ".attention.head_count"), kv_heads = first(arch + ".attention.head_count_kv");
  if (kv_heads > 0) facts.queries_per_kv = std::max<uint64_t>(1, heads / kv_heads);
  facts.n_experts = first(arch + ".expert_count");
  return facts;
}

/// The layers that the medium mixes store better: the first and last eighth, and every third between.
bool is_sensitive_layer(size_t layer, size_t n_layers) {
  const size_t eighth = n_layers / 8;
  return layer < eighth || layer >= 7 * n_layers / 8 || (layer - eighth) % 3 == 2;
}

DType value_type(const QuantRecipe& recipe, const ModelFacts& facts, size_t layer) {
  const bool shared_values = facts.queries_per_kv >= 4;  // Few value rows serve many heads: cheap to store well.
  const bool sensitive = is_sensitive_layer(layer, facts.n_layers);
  switch (recipe.base) {
    case DType::kQ2_K:
      if (recipe.mix == QuantMix::kMedium) return shared_values ? DType::kQ4_K : DType::kQ3_K;
      return shared_values ? DType::kQ4_K : DType::kQ2_K;
    case DType::kQ3_K:
      if (recipe.mix == QuantMix::kLarge) return DType::kQ5_K;
      if (recipe.mix == QuantMix::kMedium) return layer < 2 ? DType::kQ5_K : DType::kQ4_K;
      return recipe.base;
    case DType::kQ4_K:
      if (recipe.mix == QuantMix::kMedium && sensitive) return DType::kQ6_K;
      return recipe.mix == QuantMix::kSmall && layer < 4 ? DType::kQ5_K : recipe.base;
    case DType::kQ5_K:
      return recipe.mix == QuantMix::kMedium && sensitive ? DType::kQ6_K : recipe.base;
    default:
      return recipe.base;
  }
}

DType down_type(const QuantRecipe& recipe, const ModelFacts& facts, size_t layer) {
  const bool sensitive = is_sensitive_layer(layer, facts.n_layers);
  const bool first = layer < facts.n_layers / 8;
  switch (recipe.base) {
    case DType::kQ2_K:
      if (recipe.mix == QuantMix::kMedium) return DType::kQ3_K;
      return first ? DType::kQ4_K : recipe.base;
    case DType::kQ3_K:
      if (recipe.mix == QuantMix::kLarge) return DType::kQ5_K;
      if (recipe.mix == QuantMix::kMedium) return layer < facts.n_layers / 16 ? DType::kQ5_K : DType::kQ4_K;
      return recipe.base;
    case DType::kQ4_K:
      if (recipe.mix == QuantMix::kMedium && sensitive) return DType::kQ6_K;
      return recipe.mix == QuantMix::kSmall && first ? DType::kQ5_K : recipe.base;
    case DType::kQ5_K:
      return recipe.mix == QuantMix::kMedium && sensitive ? DType::kQ6_K : recipe.base;
    default:
      return recipe.base;
  }
}

DType attention_output_type(const QuantRecipe& recipe, const ModelFacts& facts) {
  if (facts.n_experts == 8 && recipe.base != DType::kQ5_K) return DType::kQ5_K;
  if (recipe.base == DType::kQ2_K && recipe.mix == QuantMix::kMedium) return DType::kQ3_K;
  if (recipe.base == DType::kQ3_K && recipe.mix == QuantMix::kMedium) return DType::kQ4_K;
  if (recipe.base == DType::kQ3_K && recipe.mix == QuantMix::kLarge) return DType::kQ5_K;
  return recipe.base;
}

DType fused_attention_type(const QuantRecipe& recipe) {
  if (recipe.mix == QuantMix::kSmall) return recipe.base;
  if (recipe.base == DType::kQ3_K) return DType::kQ4_K;
  if (recipe.base == DType::kQ4_K) return DType::kQ5_K;
  if (recipe.base == DType::kQ5_K) return DType::kQ6_K;
  return recipe.base;
}

/// The type under the rules of the recipe's mix, before the fallback for odd columns.
DType mixed_type(const QuantRecipe& recipe, const ModelFacts& facts, std::string_view name) {
  if (recipe.mix == QuantMix::kNone) return recipe.base;
  const bool is_table = name == "token_embd.weight";
  if (name == "output.weight" || (is_table && !facts.has_output)) {
    return recipe.base == DType::kQ8_0 ? DType::kQ8_0 : DType::kQ6_K;
  }
  if (is_table && (recipe.base == DType::kTQ1_0 || recipe.base == DType::kTQ2_0 || recipe.base == DType::kQ1_0 ||
                   recipe.base == DType::kQ2_0)) {
    return DType::kQ4_K;
  }
  const auto layer = layer_of(name);
  if ((recipe.base == DType::kBitStack || recipe.base == DType::kAqlm) && !layer) return DType::kQ6_K;
  if (recipe.mix == QuantMix::kPlain || !layer) return recipe.base;
  // With eight experts the attention is a small part of the file.
  if (facts.n_experts == 8 && (name.ends_with(".attn_v.weight") || name.ends_with(".attn_k.weight")))
    return DType::kQ8_0;
  if (name.ends_with(".attn_v.weight")) return value_type(recipe, facts, *layer);
  if (name.ends_with(".ffn_down.weight") || name.ends_with(".ffn_down_exps.weight")) {
    return down_type(recipe, facts, *layer);
  }
  if (name.ends_with(".attn_output.weight")) return attention_output_type(recipe, facts);
  if (name.ends_with(".attn_qkv.weight")) return fused_attention_type(recipe);
  return recipe.base;
}

DType next_smaller_blocks(DType dtype) {
  switch (dtype) {
    case DType::kQ2_K:
    case DType::kQ3_K:
    case DType::kIQ4_XS:
      return DType::kIQ4_NL;
    case DType::kQ4_K:
      return DType::kQ5_0;
    case DType::kQ5_K:
      return DType::kQ5_1;
    case DType::kQ6_K:
      return DType::kQ8_0;
    case DType::kBitStack:
    case DType::kAqlm:
      return DType::kQ6_K;
    case DType::kNVFP4:
      return DType::kMXFP4;
    case DType::kTQ1_0:
    case DType::kTQ2_0:
    case DType::kQ1_0:
    case DType::kQ2_0:
    case DType::kBitMod3:
    case DType::kBitMod4:
    case DType::kBipolar1:
    case DType::kBipolar2:
    case DType::kBipolar3:
    case DType::kBipolar4:
      return DType::kQ4_0;
    case DType::kBipolar5:
    case DType::kBipolar6:
    case DType::kBipolar7:
    case DType::kBipolar8:
      return DType::kQ8_0;
    case DType::kDf11:
    case DType::kDf12:
      return DType::kBF16;
    default:
      return DType::kF16;
  }
}

/// Ternary experts were trained so: any other type takes more bytes and knows no more.
bool stays_ternary(const QuantRecipe& recipe, const TensorInfo& tensor) {
  const auto is_ternary = [](DType dtype) { return dtype == DType::kTQ1_0 || dtype == DType::kTQ2_0; };
  return is_ternary(tensor.dtype) && !is_ternary(recipe.base) && recipe.base != DType::kF32 &&
         tensor.name.find("_exps.") != std::string::npos;
}

bool is_float(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16 || dtype == DType::kF64 ||
         dtype == DType::kDf11 || dtype == DType::kDf12;
}

/// The recipe of a name such as "AQLM2x8g4", or null. Made when it is first asked for and kept.
const QuantRecipe* find_aqlm_recipe(std::string_view name) {
  std::string upper(name);
  for (char& c : upper) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  if (!upper.starts_with("AQLM")) return nullptr;
  aqlm::Scheme scheme;
  const char *at = upper.data() + 4, *const end = upper.data() + upper.size();
  const auto number = [&](uint32_t& value) {
    const auto [after, status] = std::from_chars(at, end, value);
    const bool read = status == std::errc{} && after != at;
    at = after;
    return read;
  };
  const auto letter = [&](char c) { return at < end && *at == c && ++at <= end; };
  if (!number(scheme.codebooks) || !letter('X') || !number(scheme.bits)) return nullptr;
  if (at < end && (!letter('G') || !number(scheme.group))) return nullptr;
  if (at != end || !scheme.is_valid()) return nullptr;
  struct Named {
    std::string name;
    QuantRecipe recipe;
  };
  static std::mutex mutex;
  static std::map<std::string, Named> made;
  const std::lock_guard lock(mutex);
  const auto [place, is_new] = made.try_emplace(upper);
  Named& named = place->second;
  if (is_new) {
    named.name = fmt::format("AQLM{}x{}g{}", scheme.codebooks, scheme.bits, scheme.group);
    named.recipe = {named.name, DType::kAqlm, QuantMix::kPlain, static_cast<uint32_t>(DType::kAqlm),
                    "sums of vectors", scheme};
  }
  return &named.recipe;
}

}  // namespace

std::span<const QuantRecipe> quant_recipes() {
  return kRecipes;
}

const QuantRecipe* find_quant_recipe(std::string_view name) {
  const auto same = [&](std::string_view other) {
    return std::equal(name.begin(), name.end(), other.begin(), other.end(),
                      [](unsigned char a, unsigned char b) { return std::toupper(a) == std::toupper(b); });
  };
  for (const QuantRecipe& recipe : kRecipes) {
    if (same(recipe.name)) return &recipe;
  }
  return find_aqlm_recipe(name);
}

bool is_quantized(DType dtype) {
  return dtype == DType::kBitStack || dtype == DType::kAqlm || (dtype_info(dtype).block_elements > 1 && !is_stream(dtype));
}

DType fit_shape(DType dtype, const Shape& shape) {
  while (!weight_format(dtype).misfit(shape).empty()) dtype = next_smaller_blocks(dtype);
  return dtype;
}

bool loses_twice(DType from, DType to) {
  if (!is_quantized(from) || converts_exactly(from, to)) return false;
  return from != DType::kQ8_0 || !is_quantized(to);
}

bool stays_f32(const TensorInfo& tensor) {
  const std::string_view name = tensor.name;
  if (tensor.shape.rank() < 2 || !name.ends_with(".weight")) return true;
  for (std::string_view part : {"_norm.", "ffn_gate_inp", "position_embd.", "token_types.", "ssm_conv1d.",
                                "rope_freqs.", "rope_factors_", "exp_probs_b", "attn_sinks"}) {
    if (name.find(part) != std::string_view::npos) return true;
  }
  return false;
}

std::vector<DType> choose_types(const QuantRecipe& recipe, const Metadata& metadata,
                                std::span<const TensorInfo> tensors, bool pure) {
  const ModelFacts facts = facts_of(metadata, tensors);
  std::vector<DType> types;
  types.reserve(tensors.size());
  for (const TensorInfo& tensor : tensors) {
    if (stays_f32(tensor)) {
      types.push_back(is_float(tensor.dtype) ? DType::kF32 : tensor.dtype);
    } else if (stays_ternary(recipe, tensor)) {
      types.push_back(tensor.dtype);
    } else if (!is_float(tensor.dtype) && (!is_quantized(tensor.dtype) || !can_decode(tensor.dtype))) {
      types.push_back(tensor.dtype);
    } else {
      const bool by_rule = !pure || recipe.base == DType::kBitStack;  // a token table cannot be a stack
      const DType wanted = by_rule ? mixed_type(recipe, facts, tensor.name) : recipe.base;
      types.push_back(fit_shape(wanted, tensor.shape));
    }
  }
  return types;
}

}  // namespace mneme
