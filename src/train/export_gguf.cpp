#include "train/export_gguf.h"

#include <vector>

#include "base/error.h"
#include "train/data/chat_encoder.h"
#include "weights/gguf_writer.h"
#include "weights/quantize.h"

namespace mneme::train {
namespace {

/// general.file_type: that of most weights.
uint32_t file_type_of(DType dtype, const WeightRounding& rounding) {
  if (rounding) {
    for (const QuantRecipe& recipe : quant_recipes()) {
      if (recipe.base == rounding.dtype) return recipe.file_type;
    }
  }
  switch (dtype) {
    case DType::kF32: return 0;
    case DType::kF16: return 1;
    case DType::kQ8_0: return 7;
    case DType::kBF16: return 32;
    default:
      fail(ErrorCode::kUnsupported, "[export] expected F32, F16, BF16 or Q8_0, found {}", dtype_info(dtype).name);
  }
}

Metadata metadata_of(const std::string& name, const LlamaModel<float>& model, DType dtype) {
  const LlamaSizes& sizes = model.sizes();
  Metadata metadata;
  const auto number = [&](const char* key, size_t value) { metadata.set_u32(key, static_cast<uint32_t>(value)); };
  metadata.set_string("general.architecture", "llama");
  metadata.set_string("general.name", name);
  number("general.file_type", file_type_of(dtype, model.weight_rounding()));
  number("llama.vocab_size", sizes.vocabulary);
  number("llama.context_length", sizes.context);
  number("llama.embedding_length", sizes.width);
  number("llama.block_count", sizes.n_layers);
  number("llama.feed_forward_length", sizes.ffn_width);
  number("llama.attention.head_count", sizes.n_heads);
  number("llama.attention.head_count_kv", sizes.n_kv_heads);
  number("llama.rope.dimension_count", sizes.head_dim());
  metadata.set_f32("llama.rope.freq_base", static_cast<float>(sizes.rope_base));
  metadata.set_f32("llama.attention.layer_norm_rms_epsilon", static_cast<float>(sizes.norm_eps));
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

/// The values of a matrix that are encoded: rounded as in training, where encoding doesn't do that by itself.
std::vector<float> exported_values(const Parameter<float>& parameter, const WeightRounding& rounding) {
  std::vector<float> values(parameter.size());
  for (size_t i = 0; i < parameter.rows; ++i) copy_row(parameter, i, values.data() + i * parameter.columns);
  if (rounding.kind != WeightRounding::Kind::kTernary && rounding.kind != WeightRounding::Kind::kFloat) return values;
  std::vector<float> rounded(values.size());
  rounding.apply(values.data(), parameter.rows, parameter.columns, rounded.data());
  return rounded;
}

bool is_linear(const Parameter<float>& parameter) {
  return parameter.role == Role::kAttention || parameter.role == Role::kFeedForward;
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
  const WeightRounding& rounding = model.weight_rounding();
  std::vector<TensorInfo> infos;
  for (const Parameter<float>& parameter : model.parameters().all()) {
    const bool matrix = parameter.is_matrix();
    const DType type = rounding && is_linear(parameter) ? rounding.dtype : dtype;
    const size_t block = dtype_info(type).block_elements;
    if (matrix && parameter.columns % block != 0) {
      fail(ErrorCode::kUnsupported, "[export] expected rows of a multiple of {} for {}, found {} in {}", block,
           dtype_info(type).name, parameter.columns, parameter.name);
    }
    infos.push_back({parameter.name, matrix ? type : DType::kF32,
                     matrix ? Shape{parameter.rows, parameter.columns} : Shape{parameter.columns}});
  }
  GgufWriter writer(path, metadata, infos);
  std::vector<std::byte> row;
  size_t index = 0;
  for (const Parameter<float>& parameter : model.parameters().all()) {
    const DTypeInfo& type = dtype_info(infos[index++].dtype);
    row.resize(row_bytes(type.dtype, parameter.columns));
    const std::vector<float> values = exported_values(parameter, is_linear(parameter) ? rounding : WeightRounding{});
    for (size_t i = 0; i < parameter.rows; ++i) {
      type.encode(values.data() + i * parameter.columns, nullptr, row.data(), parameter.columns);
      writer.write(row);
    }
  }
  writer.finish();
}

}  // namespace mneme::train
