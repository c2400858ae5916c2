#include "train/export_gguf.h"

#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "tensor/bipolar.h"
#include "train/data/chat_encoder.h"
#include "train/ops/learned_steps.h"
#include "weights/gguf_writer.h"
#include "weights/quantize.h"

namespace mneme::train {
namespace {

/// general.file_type: that of most weights.
uint32_t file_type_of(DType dtype, const LlamaModel<float>& model) {
  std::optional<DType> trained_for;
  if (model.weight_rounding()) trained_for = model.weight_rounding().dtype;
  if (model.experts() && model.experts()->ternary) trained_for = DType::kTQ2_0;
  if (trained_for) {
    for (const QuantRecipe& recipe : quant_recipes()) {
      if (recipe.base == *trained_for) return recipe.file_type;
    }
  }
  switch (dtype) {
    case DType::kF32:
      return 0;
    case DType::kF16:
      return 1;
    case DType::kQ8_0:
      return 7;
    case DType::kBF16:
      return 32;
    default:
      fail(ErrorCode::kUnsupported, "[export] expected F32, F16, BF16 or Q8_0, found {}", dtype_info(dtype).name);
  }
}

/// The architecture that says what the model computes, and under whose name programs know it. That of DeepSeekMoE
/// (arXiv 2401.06066) is a llama with shared experts and routed ones whose probabilities are not divided by their sum;
/// experts without shared ones are a llama's, divided by their sum.
const char* architecture_of(const LlamaModel<float>& model) {
  return model.experts() && model.experts()->shared != ExpertOptions::Shared::kNone ? "deepseek" : "llama";
}

void add_experts(const LlamaModel<float>& model, Metadata& metadata) {
  const ExpertOptions& experts = *model.experts();
  const std::string prefix = std::string(architecture_of(model)) + ".";
  metadata.set_u32(prefix + "expert_count", static_cast<uint32_t>(experts.count));
  metadata.set_u32(prefix + "expert_used_count", static_cast<uint32_t>(experts.used));
  if (experts.shared == ExpertOptions::Shared::kNone) return;
  metadata.set_u32(prefix + "expert_feed_forward_length", static_cast<uint32_t>(model.sizes().ffn_width));
  metadata.set_u32(prefix + "expert_shared_count", 1);
  metadata.set_f32(prefix + "expert_weights_scale", 1.0f);
  metadata.set_u32(prefix + "leading_dense_block_count", static_cast<uint32_t>(model.expert_layers().at(0).layer));
}

Metadata metadata_of(const std::string& name, const LlamaModel<float>& model, DType dtype) {
  const LlamaSizes& sizes = model.sizes();
  Metadata metadata;
  const std::string architecture = architecture_of(model);
  const auto number = [&](const char* key, size_t value) {
    metadata.set_u32(architecture + key, static_cast<uint32_t>(value));
  };
  metadata.set_string("general.architecture", architecture);
  metadata.set_string("general.name", name);
  metadata.set_u32("general.file_type", file_type_of(dtype, model));
  number(".vocab_size", sizes.vocabulary);
  number(".context_length", sizes.context);
  number(".embedding_length", sizes.width);
  number(".block_count", sizes.n_layers);
  number(".feed_forward_length", sizes.ffn_width);
  number(".attention.head_count", sizes.n_heads);
  number(".attention.head_count_kv", sizes.n_kv_heads);
  number(".rope.dimension_count", sizes.head_dim());
  metadata.set_f32(architecture + ".rope.freq_base", static_cast<float>(sizes.rope_base));
  metadata.set_f32(architecture + ".attention.layer_norm_rms_epsilon", static_cast<float>(sizes.norm_eps));
  if (model.experts()) add_experts(model, metadata);
  return metadata;
}

/// Types of pieces as GGUF numbers them.
constexpr int32_t kNormal = 1, kUnknown = 2, kControl = 3, kByte = 6;

void add_vocabulary(const TrainTokenizer& tokenizer, Metadata& metadata) {
  std::vector<std::string> pieces;
  std::vector<float> scores;
  std::vector<int32_t> types;
  for (int32_t id = 0; id < static_cast<int32_t>(tokenizer.size()); ++id) {
    pieces.push_back(tokenizer.piece(id));
    scores.push_back(tokenizer.score(id));
    types.push_back(id == TrainTokenizer::kUnknown ? kUnknown
                    : tokenizer.is_control(id)     ? kControl
                    : tokenizer.is_byte(id)        ? kByte
                                                   : kNormal);
  }
  metadata.set_string("tokenizer.ggml.model", "llama");
  metadata.set_array_string("tokenizer.ggml.tokens", pieces);
  metadata.set_array_f32("tokenizer.ggml.scores", scores);
  metadata.set_array_i32("tokenizer.ggml.token_type", types);
  metadata.set_u32("tokenizer.ggml.bos_token_id", TrainTokenizer::kBos);
  metadata.set_u32("tokenizer.ggml.eos_token_id", TrainTokenizer::kEos);
  metadata.set_u32("tokenizer.ggml.unknown_token_id", TrainTokenizer::kUnknown);
  metadata.set_u32("tokenizer.ggml.eot_token_id", static_cast<uint32_t>(tokenizer.id_of(TrainTokenizer::kEndMark)));
  metadata.set_bool("tokenizer.ggml.add_bos_token", true);
  metadata.set_bool("tokenizer.ggml.add_eos_token", false);
  metadata.set_bool("tokenizer.ggml.add_space_prefix", false);
  metadata.set_string("tokenizer.chat_template", chat_template());
}

/// Values as training saw them: with adapters added, W + s B A, and rounded where encoding doesn't do so by itself.
std::vector<float> exported_values(const LlamaModel<float>& model, const Parameter<float>& parameter,
                                   const WeightRounding& rounding) {
  std::vector<float> values(parameter.size());
  for (size_t i = 0; i < parameter.rows; ++i) copy_row(parameter, i, values.data() + i * parameter.columns);
  for (const LowRank<float>& term : model.low_rank_of(parameter)) term.add_to(values.data());
  if (rounding.kind != WeightRounding::Kind::kTernary && rounding.kind != WeightRounding::Kind::kFloat) return values;
  std::vector<float> rounded(values.size());
  rounding.apply(values.data(), parameter.rows, parameter.columns, rounded.data());
  return rounded;
}

/// What training rounds a matrix to.
WeightRounding rounding_of(const LlamaModel<float>& model, const Parameter<float>& parameter) {
  const bool linear = parameter.role == Role::kAttention || parameter.role == Role::kFeedForward;
  if (!linear || parameter.frozen) return {};
  if (!model.experts()) return model.weight_rounding();
  const bool shared = parameter.name.find("_shexp.") != std::string::npos;
  const bool ternary = is_routed_expert(parameter.name) ? model.experts()->ternary : shared;
  return ternary ? WeightRounding::parse("ternary") : WeightRounding();
}

/// Frozen matrices that lie in blocks stay as they are.
bool keeps_blocks(const Parameter<float>& parameter) {
  return parameter.frozen && parameter.is_packed() && is_quantized(parameter.packed.dtype);
}

DType type_of(const LlamaModel<float>& model, const Parameter<float>& parameter, DType dtype) {
  if (!parameter.is_matrix() || parameter.role == Role::kRouter) return DType::kF32;
  if (keeps_blocks(parameter)) return parameter.packed.dtype;
  const WeightRounding rounding = rounding_of(model, parameter);
  const DType type = rounding ? rounding.type_for(parameter.columns) : dtype;
  const size_t block = dtype_info(type).block_elements;
  if (parameter.columns % block != 0) {
    fail(ErrorCode::kUnsupported, "[export] expected rows of a multiple of {} for {}, found {} in {}", block,
         dtype_info(type).name, parameter.columns, parameter.name);
  }
  return type;
}

/// A tensor of the file: one parameter, or the experts of a stack in order.
struct Exported {
  TensorInfo info;
  std::vector<const Parameter<float>*> parts;
};

std::vector<Exported> tensors_of(LlamaModel<float>& model, DType dtype) {
  std::vector<Exported> tensors;
  for (const Parameter<float>& p : model.parameters().all()) {
    if (p.role == Role::kAdapter || p.role == Role::kStep) continue;
    const std::string name = stored_name(p.name);
    if (is_routed_expert(p.name) && !tensors.empty() && tensors.back().info.name == name) {
      tensors.back().parts.push_back(&p);
      continue;
    }
    const bool stacked = is_routed_expert(p.name), is_vector = p.rows == 1 && !stacked && p.role != Role::kRouter;
    const Shape shape = stacked     ? Shape{model.experts()->count, p.rows, p.columns}
                        : is_vector ? Shape{p.columns}
                                    : Shape{p.rows, p.columns};
    tensors.push_back({{name, type_of(model, p, dtype), shape}, {&p}});
  }
  // Readers of the deepseek architecture expect an output matrix of its own.
  if (model.sizes().tied_head && std::string_view(architecture_of(model)) == "deepseek") {
    Exported output = tensors.front();
    output.info.name = "output.weight";
    tensors.push_back(output);
  }
  return tensors;
}

void write_matrix(const LlamaModel<float>& model, const Parameter<float>& parameter, DType dtype, GgufWriter& writer) {
  if (keeps_blocks(parameter)) {
    writer.write({parameter.packed.data, parameter.packed.bytes()});
    return;
  }
  const DTypeInfo& type = dtype_info(dtype);
  std::vector<std::byte> row(row_bytes(dtype, parameter.columns));
  if (const Parameter<float>* steps = model.steps_of(parameter)) {
    const size_t n_groups = parameter.columns / bipolar::kGroup;
    for (size_t i = 0; i < parameter.rows; ++i) {
      encode_steps(bipolar::bits_of(dtype), parameter.value + i * parameter.columns, steps->value + i * n_groups,
                   parameter.columns, row.data());
      writer.write(row);
    }
    return;
  }
  const std::vector<float> values = exported_values(model, parameter, rounding_of(model, parameter));
  for (size_t i = 0; i < parameter.rows; ++i) {
    type.encode(values.data() + i * parameter.columns, nullptr, row.data(), parameter.columns);
    writer.write(row);
  }
}

}  // namespace

void export_gguf(const std::string& path, const std::string& name, LlamaModel<float>& model,
                 const TrainTokenizer& tokenizer, DType dtype, const ModelFile* base) {
  if (tokenizer.size() != model.sizes().vocabulary) {
    fail(ErrorCode::kInvalidArgument, "[export] expected a vocabulary of {} pieces, found {}", model.sizes().vocabulary,
         tokenizer.size());
  }
  Metadata metadata = metadata_of(name, model, dtype);
  if (base == nullptr) {
    add_vocabulary(tokenizer, metadata);
  } else {
    for (const Metadata::Entry& entry : base->metadata().entries()) {
      if (entry.key.starts_with("tokenizer.")) metadata.set(entry.key, entry.value);
    }
  }
  const std::vector<Exported> tensors = tensors_of(model, dtype);
  std::vector<TensorInfo> infos;
  for (const Exported& tensor : tensors) infos.push_back(tensor.info);
  GgufWriter writer(path, metadata, infos);
  for (const Exported& tensor : tensors) {
    for (const Parameter<float>* part : tensor.parts) write_matrix(model, *part, tensor.info.dtype, writer);
  }
  writer.finish();
}

}  // namespace mneme::train
