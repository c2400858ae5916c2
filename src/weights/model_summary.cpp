#include "weights/model_summary.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <map>

#include "base/checked_math.h"
#include "base/error.h"
#include "base/parallel.h"
#include "tensor/weight_format.h"
#include "weights/stack_file.h"

namespace mneme {
namespace {

/// First element of a key that may be one number or one for each layer.
std::optional<uint64_t> first_number(const Metadata& metadata, const std::string& key) {
  if (!metadata.is_array(key)) return metadata.find_u64(key);
  const auto values = metadata.find_array_u64(key);
  return values->empty() ? std::nullopt : std::optional(values->front());
}

}  // namespace

double ModelSummary::bits_per_weight() const {
  return parameters == 0 ? 0.0 : 8.0 * static_cast<double>(tensor_bytes) / static_cast<double>(parameters);
}

ModelSummary summarize(const ModelFile& model) {
  const Metadata& metadata = model.metadata();
  ModelSummary s;
  s.architecture = metadata.find_string("general.architecture").value_or("");
  s.name = metadata.find_string("general.name").value_or("");
  s.file_bytes = model.file_bytes();
  s.n_files = model.files().size();
  s.n_tensors = model.tensors().size();
  std::map<DType, TypeSummary> by_type;
  for (const NamedTensor& tensor : model.tensors()) {
    TypeSummary& type = by_type[tensor.view.dtype];
    type.dtype = tensor.view.dtype;
    ++type.n_tensors;
    // Blocks belong to the matrices whose directories are counted.
    if (tensor.name != bitstack::kBlocksName) type.elements += tensor.view.shape.elements();
    type.bytes += tensor.view.bytes();
  }
  for (const auto& [dtype, type] : by_type) {
    s.parameters += type.elements;
    s.tensor_bytes += type.bytes;
    s.types.push_back(type);
  }
  std::stable_sort(s.types.begin(), s.types.end(),
                   [](const TypeSummary& a, const TypeSummary& b) { return a.bytes > b.bytes; });
  const auto number = [&](const char* key) { return first_number(metadata, s.architecture + "." + key); };
  s.n_layers = number("block_count");
  s.width = number("embedding_length");
  s.n_heads = number("attention.head_count");
  s.n_kv_heads = number("attention.head_count_kv");
  s.hidden = number("feed_forward_length");
  s.context = number("context_length");
  s.n_experts = number("expert_count");
  s.n_experts_used = number("expert_used_count");
  if (const auto tokens = metadata.find_array_string("tokenizer.ggml.tokens")) s.n_vocab = tokens->size();
  s.tokenizer = metadata.find_string("tokenizer.ggml.model").value_or("");
  if (const auto pre = metadata.find_string("tokenizer.ggml.pre")) s.tokenizer += fmt::format(" ({})", *pre);
  s.has_chat_template = metadata.has("tokenizer.chat_template");
  return s;
}

void check_tensor_values(const ModelFile& model) {
  for (const NamedTensor& tensor : model.tensors()) {
    const TensorView& view = tensor.view;
    if (!can_decode(view.dtype)) continue;
    const WeightFormat& format = weight_format(view.dtype);
    format.validate(view, tensor.name);
    // A stream decodes sixteen rows at a time.
    const uint64_t n = view.shape.elements(), unit = std::max<uint64_t>(16, 4096 / view.columns());
    std::atomic<uint64_t> first_bad = n;
    parallel_dynamic(div_up<uint64_t>(view.rows(), unit), [&](size_t item) {
      const uint64_t first = item * unit, n_rows = std::min(unit, view.rows() - first);
      std::vector<float> values(n_rows * view.columns());
      format.decode_tile(view, {first, n_rows, 0, view.columns()}, values.data(), view.columns());
      for (size_t i = 0; i < values.size(); ++i) {
        if (std::isfinite(values[i])) continue;
        const uint64_t at = first * view.columns() + i;
        uint64_t known = first_bad.load();
        while (at < known && !first_bad.compare_exchange_weak(known, at)) {
        }
        break;
      }
    });
    if (first_bad < n) {
      fail(ErrorCode::kCorruptData, "[check] tensor '{}': expected finite values, found another in row {} of {}, in {}",
           tensor.name, first_bad / tensor.view.columns(), tensor.view.rows(), model.path());
    }
  }
}

}  // namespace mneme
