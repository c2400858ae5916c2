#include <algorithm>
#include <cmath>
#include <vector>

#include "base/error.h"
#include "tensor/weight_format.h"
#include "train/sampler.h"
#include "weights/model_file.h"

namespace mneme::train {

LlamaSizes llama_sizes_of(const ModelFile& file) {
  const Metadata& metadata = file.metadata();
  const std::string_view architecture = metadata.get_string("general.architecture");
  if (architecture != "llama") {
    fail(ErrorCode::kUnsupported, "[load] {}: expected architecture llama, found {}", file.path(), architecture);
  }
  const NamedTensor* embedding = file.find("token_embd.weight");
  if (embedding == nullptr)
    fail(ErrorCode::kCorruptData, "[load] {}: expected token_embd.weight, found none", file.path());
  LlamaSizes sizes;
  sizes.vocabulary = embedding->view.rows();
  sizes.width = metadata.get_u64("llama.embedding_length");
  sizes.n_layers = metadata.get_u64("llama.block_count");
  sizes.n_heads = metadata.get_u64("llama.attention.head_count");
  sizes.n_kv_heads = metadata.find_u64("llama.attention.head_count_kv").value_or(sizes.n_heads);
  sizes.ffn_width = metadata.get_u64("llama.feed_forward_length");
  sizes.context = metadata.get_u64("llama.context_length");
  sizes.norm_eps = metadata.get_f64("llama.attention.layer_norm_rms_epsilon");
  sizes.rope_base = metadata.find_f64("llama.rope.freq_base").value_or(10000);
  sizes.tied_head = file.find("output.weight") == nullptr;
  // Counts from a file: nothing is allocated that the file's own tensors do not account for.
  if (sizes.n_layers > file.tensors().size() || sizes.n_heads == 0 || sizes.n_heads > sizes.width) {
    fail(ErrorCode::kCorruptData, "[load] {}: expected sizes that fit its tensors, found {} layers and {} heads",
         file.path(), sizes.n_layers, sizes.n_heads);
  }
  sizes.check();
  return sizes;
}

template <typename T>
const TensorView& tensor_of(const ModelFile& file, const Parameter<T>& parameter) {
  const std::string name = dense_name(parameter.name);
  const NamedTensor* tensor = file.find(name);
  if (tensor == nullptr) fail(ErrorCode::kNotFound, "[load] {}: expected tensor {}, found none", file.path(), name);
  if (tensor->view.columns() != parameter.columns || tensor->view.rows() != parameter.rows) {
    fail(ErrorCode::kCorruptData, "[load] {}: expected {} of [{}, {}], found {}", file.path(), name, parameter.rows,
         parameter.columns, tensor->view.shape.to_string());
  }
  if (!can_decode(tensor->view.dtype)) {
    fail(ErrorCode::kUnsupported, "[load] {}: expected {} in a readable type, found {}", file.path(), name,
         dtype_info(tensor->view.dtype).name);
  }
  return tensor->view;
}

template const TensorView& tensor_of(const ModelFile&, const Parameter<float>&);
template const TensorView& tensor_of(const ModelFile&, const Parameter<double>&);

void load_weights(const ModelFile& file, LlamaModel<float>& model) {
  for (Parameter<float>& parameter : model.parameters().all()) {
    if (parameter.frozen || parameter.role == Role::kStep) continue;
    const bool draws = model.experts() && model.experts()->start == ExpertOptions::Start::kRandom;
    if (parameter.role == Role::kRouter || (draws && is_routed_expert(parameter.name))) continue;
    const TensorView& stored = tensor_of(file, parameter);
    std::vector<float> row(parameter.columns);
    for (size_t i = 0; i < parameter.rows; ++i) {
      decode_row(stored, i, row.data());
      set_row(parameter, i, row.data());
    }
  }
  model.start_steps();
}

void blend_with_base(const ModelFile& base, float share, LlamaModel<float>& model) {
  if (share < 0 || share > 1)
    fail(ErrorCode::kInvalidArgument, "[blend] expected a share from 0 to 1, found {}", share);
  if (model.weight_rounding() || model.experts()) {
    fail(ErrorCode::kUnsupported, "[blend] expected a dense model whose weights are not rounded in training, found {}",
         model.experts() ? "experts" : model.weight_rounding().name());
  }
  for (Parameter<float>* parameter : model.trained_list()) {
    const TensorView& before = tensor_of(base, *parameter);
    std::vector<float> from(parameter->columns), row(parameter->columns);
    for (size_t i = 0; i < parameter->rows; ++i) {
      decode_row(before, i, from.data());
      copy_row(*parameter, i, row.data());
      for (size_t c = 0; c < row.size(); ++c) row[c] = from[c] + share * (row[c] - from[c]);
      set_row(*parameter, i, row.data());
    }
  }
}

}  // namespace mneme::train
