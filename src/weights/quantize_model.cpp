#include <algorithm>
#include <cmath>
#include <map>

#include "base/error.h"
#include "base/parallel.h"
#include "tensor/weight_format.h"
#include "weights/awq.h"
#include "weights/bit_allocation.h"
#include "weights/gguf_writer.h"
#include "weights/gptq.h"
#include "weights/quantize.h"
#include "weights/stochastic_rounding.h"

namespace mneme {
namespace {

/// Damping of GPTQ, in parts of the mean diagonal.
constexpr float kDamping = 0.01f;
/// Rows of a matrix that stand for all when types are chosen for a size.
constexpr uint64_t kSampleRows = 256;

/// The recipe that stores all matrices in the type that most bytes of `tensors` have, or null.
const QuantRecipe* main_recipe(std::span<const TensorInfo> tensors) {
  std::map<DType, uint64_t> bytes;
  for (const TensorInfo& tensor : tensors) bytes[tensor.dtype] += tensor.bytes();
  const auto most =
      std::max_element(bytes.begin(), bytes.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  if (most == bytes.end()) return nullptr;
  for (const QuantRecipe& recipe : quant_recipes()) {
    if (recipe.base == most->first && recipe.mix <= QuantMix::kPlain) return &recipe;
  }
  return nullptr;
}

/// Importance of the columns of a tensor: one list a slice of a stack ("NAME[e]"), or one.
std::vector<std::vector<float>> importance_of(const Calibration& calibration, const TensorInfo& tensor) {
  std::vector<std::vector<float>> out;
  const uint64_t n_slices = tensor.shape.rank() == 3 ? tensor.shape[0] : 1;
  for (uint64_t e = 0; e < n_slices; ++e) {
    const InputStatistics* statistics =
        calibration.find(n_slices == 1 ? tensor.name : fmt::format("{}[{}]", tensor.name, e));
    out.push_back(statistics == nullptr ? std::vector<float>() : statistics->importance());
    if (const uint64_t columns = tensor.shape.from_last(0); !out.back().empty() && out.back().size() != columns) {
      fail(ErrorCode::kInvalidArgument, "[calibrate] tensor '{}': expected statistics of {} columns, found {}",
           tensor.name, columns, out.back().size());
    }
  }
  if (std::all_of(out.begin(), out.end(), [](const auto& slice) { return slice.empty(); })) out.clear();
  return out;
}

/// Notes the largest input of each matrix of the layers in the metadata; see QuantizeOptions::static_activations.
void set_input_limits(const Calibration& calibration, std::span<const TensorInfo> tensors, Metadata& metadata) {
  size_t n_limits = 0;
  for (const TensorInfo& tensor : tensors) {
    const InputStatistics* statistics = calibration.find(tensor.name);
    if (!tensor.name.starts_with("blk.") || tensor.shape.rank() != 2 || statistics == nullptr) continue;
    const auto largest = std::max_element(statistics->largest.begin(), statistics->largest.end());
    if (largest == statistics->largest.end() || !(*largest > 0)) continue;
    metadata.set_f32(std::string(kInputLimitKey) + tensor.name, *largest);
    ++n_limits;
  }
  if (n_limits == 0) {
    throw Error(ErrorCode::kInvalidArgument,
                "[quantize] expected the largest inputs of this model's matrices for static activations, found none",
                "give a text with --calibrate; an importance matrix does not have them");
  }
}

/// GPTQ of matrices that have a gram matrix; the factor is kept for the matrices that share it.
class GptqEncoder {
 public:
  explicit GptqEncoder(const Calibration& calibration) : calibration_(calibration) {}

  bool encode(const TensorInfo& tensor, std::span<float> values, DType to, std::byte* out) {
    const InputStatistics* statistics = calibration_.find(tensor.name);
    const size_t columns = tensor.shape.from_last(0);
    if (statistics == nullptr || statistics->gram.size() != columns * columns) return false;
    if (statistics != last_) {
      factor_ = gptq_factor(statistics->gram, columns, kDamping);
      importance_ = statistics->importance();
      last_ = statistics;
    }
    gptq_encode(values, columns, factor_, importance_.data(), to, out);
    return true;
  }

 private:
  const Calibration& calibration_;
  const InputStatistics* last_ = nullptr;
  std::vector<float> factor_, importance_;
};

}  // namespace

void check_second_loss(TensorSource& source, std::span<const DType> types) {
  for (size_t i = 0; i < types.size(); ++i) {
    const TensorInfo& tensor = source.tensors()[i];
    if (!loses_twice(tensor.dtype, types[i])) continue;
    throw Error(
        ErrorCode::kInvalidArgument,
        fmt::format("[quantize] tensor '{}': expected a type that {} holds without loss, found {}, in {}", tensor.name,
                    dtype_info(types[i]).name, dtype_info(tensor.dtype).name, source.metadata().source()),
        "quantise the original model, or allow a second loss with --lossy");
  }
}

namespace {

/// What a matrix loses in one type, on some of its rows.
struct RoundingError {
  double relative = 0;  ///< Squared error of the outputs over their squares.
  double squares = 0;   ///< ||Q(W) - W||^2
};

RoundingError rounding_error(std::span<const float> w, std::span<const float> importance, size_t columns, DType to) {
  const DTypeInfo& info = dtype_info(to);
  const size_t rows = w.size() / columns;
  std::vector<double> error(rows), norm(rows), square(rows);
  parallel_dynamic(rows, [&](size_t r) {
    std::vector<std::byte> blocks(row_bytes(to, columns));
    std::vector<float> back(columns);
    const float* row = w.data() + r * columns;
    info.encode(row, importance.empty() ? nullptr : importance.data(), blocks.data(), columns);
    info.decode(blocks.data(), back.data(), columns);
    for (size_t j = 0; j < columns; ++j) {
      const double h = importance.empty() ? 1.0 : static_cast<double>(importance[j]);
      const double value = static_cast<double>(row[j]), e = value - static_cast<double>(back[j]);
      error[r] += h * e * e;
      square[r] += e * e;
      norm[r] += h * value * value;
    }
  });
  RoundingError out;
  double norms = 0;
  for (size_t r = 0; r < rows; ++r) {
    out.relative += error[r];
    out.squares += square[r];
    norms += norm[r];
  }
  out.relative = norms > 0 ? out.relative / norms : 0;
  return out;
}

/// What a unit of the error of a matrix costs the model. It was measured with codes that no importance chose, so that
/// the error it is divided by is that of such codes, too. A matrix that nothing was measured of counts fully.
double loss_weight(const MeasuredLosses* measured, const TensorInfo& tensor, std::span<const float> sample) {
  if (measured == nullptr) return 1;
  const auto found = measured->divergence.find(tensor.name);
  if (found == measured->divergence.end()) return 1;
  const double error =
      rounding_error(sample, {}, tensor.shape.from_last(0), fit_shape(measured->probe, tensor.shape)).relative;
  return error > 0 ? found->second / error : 0;
}

/// What a unit of ||Q(W) - W||^2 on the sampled rows stands for.
double trace_weight(const HessianTraces& traces, const TensorInfo& tensor, std::span<const float> sample) {
  const auto found = traces.mean_trace.find(tensor.name);
  if (found == traces.mean_trace.end()) {
    fail(ErrorCode::kInvalidArgument, "[quantize] expected a trace of the Hessian of '{}', found none", tensor.name);
  }
  return found->second * static_cast<double>(tensor.shape.elements()) / static_cast<double>(sample.size());
}

/// Applies options.tensor_types.
void set_tensor_types(const QuantizeOptions& options, std::span<const TensorInfo> tensors, std::vector<DType>& types) {
  for (const auto& [part, dtype] : options.tensor_types) {
    size_t n = 0;
    for (size_t i = 0; i < tensors.size(); ++i) {
      if (tensors[i].name.find(part) == std::string::npos || stays_f32(tensors[i])) continue;
      const std::string misfit(weight_format(dtype).misfit(tensors[i].shape));
      if (!misfit.empty()) {
        fail(ErrorCode::kInvalidArgument, "[quantize] {}: expected a shape for {}, found {}: {}", tensors[i].name,
             dtype_info(dtype).name, tensors[i].shape.to_string(), misfit);
      }
      types[i] = dtype;
      ++n;
    }
    if (n == 0) {
      fail(ErrorCode::kInvalidArgument, "[quantize] expected matrices whose name contains '{}', found none", part);
    }
  }
}

}  // namespace

std::vector<DType> types_for_size(TensorSource& source, const std::string& path, const QuantizeOptions& options,
                                  const std::function<void(size_t, size_t)>& progress) {
  const std::span<const TensorInfo> tensors = source.tensors();
  for (DType candidate : options.candidates) {
    if (!is_stream(candidate)) continue;
    fail(ErrorCode::kInvalidArgument, "[quantize] expected candidates of a fixed number of bits, found {}",
         dtype_info(candidate).name);
  }
  std::vector<std::vector<TypeChoice>> choices(tensors.size());
  std::vector<std::vector<DType>> types(tensors.size());
  std::vector<TensorInfo> smallest;
  // Vectors and what cannot be read keep the type they would have anyway; F64 is no matrix type of any recipe.
  const QuantRecipe probe{"", DType::kF64, QuantMix::kNone, 0, ""};
  const std::vector<DType> fixed = choose_types(probe, source.metadata(), tensors, true);
  for (size_t i = 0; i < tensors.size(); ++i) {
    const TensorInfo& tensor = tensors[i];
    progress(i, tensors.size());
    const uint64_t columns = tensor.shape.from_last(0), rows = tensor.shape.elements() / columns;
    const auto add = [&](DType type, double loss) {
      if (std::find(types[i].begin(), types[i].end(), type) != types[i].end()) return;
      types[i].push_back(type);
      choices[i].push_back({row_bytes(type, columns) * rows, loss});
    };
    if (stays_f32(tensor) || fixed[i] != probe.base) {
      add(fixed[i], 0);
    } else {
      const TensorView view = tensor.view(source.load(i).data());
      const uint64_t n_sample = std::min(kSampleRows, rows);
      std::vector<float> sample(n_sample * columns);
      for (uint64_t r = 0; r < n_sample; ++r) decode_row(view, r * rows / n_sample, sample.data() + r * columns);
      std::vector<float> importance;
      if (options.calibration != nullptr) {
        const auto slices = importance_of(*options.calibration, tensor);
        if (slices.size() == 1) importance = slices.front();
      }
      const bool by_trace = options.traces != nullptr;
      const double weight =
          by_trace ? trace_weight(*options.traces, tensor, sample) : loss_weight(options.measured, tensor, sample);
      for (DType candidate : options.candidates) {
        const DType type = fit_shape(candidate, tensor.shape);
        const RoundingError error = rounding_error(sample, importance, columns, type);
        add(type, weight * (by_trace ? error.squares : error.relative));
      }
    }
    smallest.push_back({tensor.name, types[i].front(), tensor.shape});
  }
  progress(tensors.size(), tensors.size());
  // What the file holds beside tensors, with the padding between them.
  const uint64_t overhead =
      GgufWriter(path, source.metadata(), std::move(smallest)).offset() + 64 * tensors.size() + 256;
  const std::vector<size_t> taken =
      options.size > overhead ? allocate_bits(choices, options.size - overhead) : std::vector<size_t>();
  if (taken.empty()) {
    uint64_t least = overhead;
    for (const auto& list : choices) {
      least += std::min_element(list.begin(), list.end(), [](const auto& a, const auto& b) {
                 return a.bytes < b.bytes;
               })->bytes;
    }
    fail(ErrorCode::kOutOfBudget, "[quantize] expected a size of at least {} bytes for this model, found {}", least,
         options.size);
  }
  std::vector<DType> out;
  for (size_t i = 0; i < tensors.size(); ++i) out.push_back(types[i][taken[i]]);
  return out;
}

namespace {

/// Refuses what stochastic rounding does not go with, and notes the matrices that are rounded to the nearest.
void check_stochastic(const QuantizeOptions& options, std::span<const TensorInfo> tensors, std::span<const DType> types,
                      std::vector<std::string>& notes) {
  if (options.calibration != nullptr) {
    throw Error(ErrorCode::kInvalidArgument,
                "[quantize] stochastic rounding is of scales that the weights alone choose: expected no calibration",
                "leave out --calibrate, --imatrix, --awq and --method gptq, or --rounding stochastic");
  }
  size_t n_random = 0, n_nearest = 0;
  for (size_t i = 0; i < types.size(); ++i) {
    if (types[i] == tensors[i].dtype || (!is_stream(types[i]) && dtype_info(types[i]).block_elements == 1)) continue;
    ++(can_round_stochastically(types[i]) ? n_random : n_nearest);
  }
  if (n_random == 0) {
    fail(ErrorCode::kInvalidArgument,
         "[quantize] expected matrices that become Q4_0, Q5_0, Q8_0 or BIPOLAR2 to BIPOLAR8 for stochastic rounding, "
         "found none");
  }
  if (n_nearest > 0) {
    notes.push_back(fmt::format("{} of {} matrices are of types without stochastic rounding and went to the nearest",
                                n_nearest, n_random + n_nearest));
  }
}

}  // namespace

TranscodeReport quantize_model(TensorSource& given, const std::string& path, const QuantizeOptions& options,
                               Ledger& ledger, const TranscodeProgress& progress) {
  if (options.calibration != nullptr) options.calibration->check(given.tensors());
  if (options.recipe != nullptr && options.recipe->base == DType::kBitStack) {
    if (!options.tensor_types.empty()) {
      fail(ErrorCode::kUnsupported, "[quantize] expected no types of single tensors with BITSTACK, found some");
    }
    if (options.stochastic) {
      fail(ErrorCode::kInvalidArgument, "[quantize] BITSTACK has no levels: expected no stochastic rounding");
    }
    return quantize_stack(given, path, options, ledger, progress);
  }
  const bool is_aqlm = options.recipe != nullptr && options.recipe->base == DType::kAqlm && options.size == 0;
  if (is_aqlm && (options.awq || options.gptq || options.clipping != Clipping::kNone || options.activation_bits < 8)) {
    fail(
        ErrorCode::kInvalidArgument,
        "[quantize] AQLM searches for its codes itself: expected no --awq, --method gptq, --clip or --activation-bits");
  }
  if (options.static_activations && (is_aqlm || options.activation_bits < 8)) {
    fail(ErrorCode::kInvalidArgument,
         "[quantize] static activations are of products in 8 bits: expected neither AQLM nor --activation-bits with "
         "them");
  }
  if (options.static_activations && options.recipe != nullptr && options.size == 0 &&
      (is_stream(options.recipe->base) || dtype_info(options.recipe->base).block_elements == 1)) {
    fail(ErrorCode::kInvalidArgument,
         "[quantize] static activations are of products in 8 bits: expected a format with blocks, found {}",
         options.recipe->name);
  }
  std::vector<DType> types;
  if (options.size > 0) {
    types = types_for_size(given, path, options, [&](size_t, size_t) {
      if (progress) progress(0, "choosing types");
    });
  } else if (options.recipe != nullptr) {
    types = choose_types(*options.recipe, given.metadata(), given.tensors(), options.pure);
  } else {
    for (const TensorInfo& tensor : given.tensors()) types.push_back(tensor.dtype);
  }
  set_tensor_types(options, given.tensors(), types);
  if (!options.lossy) check_second_loss(given, types);
  Metadata metadata = given.metadata();
  const QuantRecipe* recipe = options.recipe != nullptr ? options.recipe : main_recipe(given.tensors());
  if (recipe != nullptr && (options.recipe != nullptr || !metadata.has("general.file_type"))) {
    metadata.set_u32("general.file_type", recipe->file_type);
  }
  metadata.set_u32("general.quantization_version", 2);
  if (options.activation_bits < 8) {
    metadata.set_u32("mneme.activation_bits", static_cast<uint32_t>(options.activation_bits));
  }

  ScalesByName scales;
  Calibration calibration;
  if (options.calibration != nullptr) calibration = *options.calibration;
  if (options.awq) {
    scales = awq_scales(given, types, calibration, [&](size_t, size_t) {
      if (progress) progress(0, "scaling channels");
    });
    calibration = scaled(calibration, scales, given.tensors());
  }
  if (options.static_activations) set_input_limits(calibration, given.tensors(), metadata);
  ScaledSource source(given, scales);
  GptqEncoder gptq(calibration);
  EncodeHooks hooks;
  if (options.calibration != nullptr) {
    hooks.importance = [&](const TensorInfo& tensor) { return importance_of(calibration, tensor); };
  }
  if (options.gptq) {
    hooks.whole = [&](const TensorInfo& tensor, std::span<float> values, DType to, std::byte* out) {
      return gptq.encode(tensor, values, to, out);
    };
  }
  uint64_t done = 0;
  std::vector<std::string> notes;
  if (options.stochastic) check_stochastic(options, given.tensors(), types, notes);
  if (options.clipping != Clipping::kNone || options.stochastic) {
    hooks.prepare = [&](const TensorInfo& tensor, uint64_t index, std::span<float> row, const float* importance,
                        DType to) {
      if (options.clipping != Clipping::kNone) {
        const float border = clip_border(options.clipping, row, importance, to);
        for (float& v : row) v = v > border ? border : v < -border ? -border : v;
      }
      if (options.stochastic && can_round_stochastically(to)) {
        round_stochastically(row, to, options.seed, rounding_stream(tensor.name), index * row.size());
      }
    };
  }
  const std::function<void(const std::string&)> line = [&](const std::string& text) {
    if (progress) progress(done, text);
  };
  if (is_aqlm) {
    hooks.stream =
        aqlm_encoders(*options.recipe, options.calibration != nullptr ? &calibration : nullptr, ledger, notes, line);
  }
  TranscodeReport report = transcode(
      source, types, metadata, path, ledger,
      [&](uint64_t bytes, const std::string& tensor) {
        done = bytes;
        line(tensor);
      },
      hooks);
  report.notes = std::move(notes);
  return report;
}

}  // namespace mneme
