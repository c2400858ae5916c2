#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "budget/ledger.h"
#include "tensor/aqlm.h"
#include "weights/calibration.h"
#include "weights/clipping.h"
#include "weights/metadata.h"
#include "weights/stack_order.h"
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
  aqlm::Scheme scheme = {};  ///< Of AQLM.
};

/// All recipes, smallest types last within a family; of AQLM some examples.
std::span<const QuantRecipe> quant_recipes();
/// By name in upper or lower case, or null. Beside the names of the list every AQLM<M>x<B>g<g> is one, with M codebooks
/// of 1 to 8, B bits of 1 to 16 and g weights of 1, 2, 4 or 8 a code (8 without "g").
const QuantRecipe* find_quant_recipe(std::string_view name);

/// The type of each tensor under a recipe.
///
/// Matrices get the base type, with these exceptions. Vectors, norms, routers, position and token-type tables, biases
/// and convolution kernels are stored as F32. The output matrix (the token table where the two are one) gets Q6_K, and
/// Q8_0 where its rows are not a multiple of 256. The mixes store value, down, output and fused projections better,
/// chosen by layer as llama.cpp does, whose names the recipes share. Where the columns are no multiple of a type's
/// block, a similar type with smaller blocks takes its place (Q4_K: Q5_0, Q5_K: Q5_1, Q6_K: Q8_0, Q2_K, Q3_K and
/// IQ4_XS: IQ4_NL, BitMoD and the ternary and one- and two-bit ones: Q4_0), and F16 where they are no multiple of 32.
/// Stacks of ternary experts stay ternary, in their type unless the recipe is the other one, but for F32.
/// DF11 and DF12 leave stacks of experts in BF16. BITSTACK and AQLM take the matrices of the layers alone: the others
/// and stacks of experts get Q6_K. `pure` leaves out everything but the F32 rule and the fallback. Tensors of integers
/// and those of types that cannot be read keep their type.
std::vector<DType> choose_types(const QuantRecipe& recipe, const Metadata& metadata,
                                std::span<const TensorInfo> tensors, bool pure);

/// Encoders of matrices that become AQLM in the scheme of `recipe`, for EncodeHooks::stream. With a full gram matrix in
/// the calibration the error of the outputs is what codes lower, with mean squares that of each column by itself.
/// Schemes that are too large for a matrix are capped, with a line in `notes`; `progress` gets a line a round. All
/// arguments must outlive what is returned.
std::function<std::unique_ptr<MatrixEncoder>(const TensorInfo& tensor, DType to)> aqlm_encoders(
    const QuantRecipe& recipe, const Calibration* calibration, Ledger& ledger, std::vector<std::string>& notes,
    const std::function<void(const std::string& line)>& progress);

/// True for the tensors that choose_types() stores as F32.
bool stays_f32(const TensorInfo& tensor);

/// True when a tensor of `dtype` is already in blocks, so that storing it in another block type loses twice.
bool is_quantized(DType dtype);

/// True when storing values of `from`, which were quantised once, as `to` changes them again (see converts_exactly()).
/// Q8_0 counts as an original, since its loss is below that of every smaller type.
bool loses_twice(DType from, DType to);

/// Throws Error(kInvalidArgument) where types[i] would make tensor i lose a second time.
void check_second_loss(TensorSource& source, std::span<const DType> types);

/// The smallest type at or behind `dtype` in the order of fallbacks that a matrix of this shape can have.
DType fit_shape(DType dtype, const Shape& shape);

/// How the matrices of BITSTACK are decomposed.
struct StackOptions {
  uint32_t vectors = 0;  ///< Of each block, 1 to 16; 0: by the size of the matrix.
  uint32_t blocks = 8;   ///< Of each matrix, 1 to 64.
  bitstack::StackOrder order = bitstack::StackOrder::kAverage;
  uint64_t seed = 0;  ///< Of the random order.
};

/// What rounding each matrix alone to one type cost the whole model (eval/sensitivity.h).
struct MeasuredLosses {
  DType probe = DType::kBitMod3;             ///< That type, or what fit_shape() makes of it.
  std::map<std::string, double> divergence;  ///< By name, mean KL divergence of the next-token distributions, nats.
};

/// Mean of the diagonal of the Hessian of each matrix (eval/hessian_trace.h), none below 0.
struct HessianTraces {
  std::map<std::string, double> mean_trace;  ///< By name, nats a token for a squared unit of the weights.
};

struct QuantizeOptions {
  const QuantRecipe* recipe = nullptr;  ///< Null keeps the types of the source.
  bool pure = false;                    ///< As for choose_types().
  /// Types of the matrices whose names contain a text, in place of the recipe's; the last one that fits a name counts.
  std::vector<std::pair<std::string, DType>> tensor_types = {};
  bool lossy = false;  ///< Allow tensors that are already quantised to lose once more (see loses_twice()).
  /// Inputs of the matrices on some text: encoders then weigh the error of each column with its mean square.
  const Calibration* calibration = nullptr;
  bool awq = false;   ///< Scale channels first (weights/awq.h); wants statistics with magnitudes.
  bool gptq = false;  ///< Feed errors on (weights/gptq.h), for matrices whose statistics have a gram matrix.
  Clipping clipping = Clipping::kNone;
  /// Rounding of weights to a neighbouring level at random (weights/stochastic_rounding.h), for types that can; others in
  /// the file are rounded to the nearest, with a note. Not with a calibration, whose encoders choose scales by the errors.
  bool stochastic = false;
  uint64_t seed = 1;  ///< Of `stochastic`.
  /// Bits that activations of bipolar matrices may be rounded to when the model runs; 8 or more: as all types do.
  int activation_bits = 8;
  /// Scales of activations that are quantised to 8 bits: false, each 32 columns of a token have their own (dynamic);
  /// true, each matrix of the layers has one, for the largest input that the calibration saw (static), and larger
  /// inputs become that one. Wants statistics with magnitudes.
  bool static_activations = false;
  /// Most bytes of the file; 0: no limit. With it the types are those of `candidates` that lose least together, instead
  /// of the recipe's, which then only names the file's type.
  uint64_t size = 0;
  /// With `size`: errors of a matrix count as much as they were measured to matter; null: each matrix alike.
  const MeasuredLosses* measured = nullptr;
  /// With `size`, in place of `measured`: the loss of a matrix is its mean trace times the squared error of its
  /// weights.
  const HessianTraces* traces = nullptr;
  std::vector<DType> candidates = {DType::kBitMod3, DType::kBitMod4, DType::kQ5_K, DType::kQ6_K, DType::kQ8_0};
  StackOptions stack = {};  ///< Of BITSTACK; of the others only calibration, pure, lossy and size go with it.
};

/// The types for `options.size`: for each matrix the one of the candidates such that the file fits and the sum of the
/// relative squared output errors, estimated on some rows with the calibration's importance, is least; with
/// `options.measured` each error is multiplied by divergence a unit of error, which assumes that the loss of the model
/// is the sum of what its matrices lose; with `options.traces` that of squared errors of weights, tr(H) / n ||Q(W) -
/// W||^2 (HAWQ-V2, arXiv 1911.03852), is least. Throws Error(kOutOfBudget) with the least size that would do.
std::vector<DType> types_for_size(TensorSource& source, const std::string& path, const QuantizeOptions& options,
                                  const std::function<void(size_t, size_t)>& progress);

/// Writes a model in the recipe BITSTACK; quantize_model() calls it. With `options.size` the blocks at the end of the
/// order that are too many are left out. Blocks wait in a file beside `path` until their order is known.
TranscodeReport quantize_stack(TensorSource& source, const std::string& path, const QuantizeOptions& options,
                               Ledger& ledger, const TranscodeProgress& progress);

/// Writes a model in a recipe as one GGUF file. The metadata is kept but for the file type. Throws
/// Error(kInvalidArgument) where a tensor would be quantised a second time without leave, and as transcode().
TranscodeReport quantize_model(TensorSource& source, const std::string& path, const QuantizeOptions& options,
                               Ledger& ledger, const TranscodeProgress& progress = {});

}  // namespace mneme
