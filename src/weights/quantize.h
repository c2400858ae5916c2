#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "budget/ledger.h"
#include "weights/metadata.h"
#include "weights/tensor_source.h"
#include "weights/transcode.h"

namespace mneme {

/// How much better than the base type a recipe stores the tensors that a model is most sensitive to.
enum class QuantMix : uint8_t {
  kNone,    ///< Float types: every matrix alike.
  kPlain,   ///< Only the output matrix.
  kSmall,   ///< Also the first layers' value and down projections.
  kMedium,  ///< Also value and down projections of about half the layers.
  kLarge,   ///< Also those of all layers, and the attention output.
};

/// A named way of storing a whole model: "Q4_K_M" is mostly Q4_K with better types where it matters.
struct QuantRecipe {
  std::string_view name;
  DType base;
  QuantMix mix;
  uint32_t file_type;        ///< general.file_type of GGUF files.
  std::string_view summary;  ///< One line for --help.
};

/// All recipes, smallest types last within a family.
std::span<const QuantRecipe> quant_recipes();
/// By name in upper or lower case, or null.
const QuantRecipe* find_quant_recipe(std::string_view name);

/// The type of each tensor under a recipe.
///
/// Matrices get the base type, with these exceptions. Vectors, norms, routers, position and token-type tables, biases
/// and convolution kernels are stored as F32. The output matrix (the token table where the two are one) gets Q6_K, and
/// Q8_0 where its rows are not a multiple of 256. The mixes store value, down, output and fused projections better,
/// chosen by layer as llama.cpp does, whose names the recipes share. Where the columns are no multiple of a type's
/// block, a similar type with smaller blocks takes its place (Q4_K: Q5_0, Q5_K: Q5_1, Q6_K: Q8_0, Q2_K, Q3_K and
/// IQ4_XS: IQ4_NL, the ternary and one- and two-bit ones: Q4_0), and F16 where they are no multiple of 32. `pure`
/// leaves out everything but the F32 rule and the fallback. Tensors of integers and those of types that cannot be read
/// keep their type.
std::vector<DType> choose_types(const QuantRecipe& recipe, const Metadata& metadata,
                                std::span<const TensorInfo> tensors, bool pure);

/// True for the tensors that choose_types() stores as F32.
bool stays_f32(const TensorInfo& tensor);

/// True when a tensor of `dtype` is already in blocks, so that storing it in another block type loses twice.
bool is_quantized(DType dtype);

struct QuantizeOptions {
  const QuantRecipe* recipe = nullptr;  ///< Null keeps the types of the source.
  bool pure = false;                    ///< As for choose_types().
  bool requantize = false;  ///< Allow tensors that are already quantised to be quantised otherwise, which loses twice.
};

/// Writes a model in a recipe as one GGUF file. The metadata is kept but for the file type. Throws
/// Error(kInvalidArgument) where a tensor would be quantised a second time without leave, and as transcode().
TranscodeReport quantize_model(TensorSource& source, const std::string& path, const QuantizeOptions& options,
                               Ledger& ledger, const TranscodeProgress& progress = {});

}  // namespace mneme
