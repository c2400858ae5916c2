#include "weights/model_summary.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <map>

#include "base/checked_math.h"
#include "base/error.h"
#include "base/parallel.h"

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
    type.elements += tensor.view.shape.elements();
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
  constexpr size_t kSegment = 4096;  // A multiple of every block size.
  for (const NamedTensor& tensor : model.tensors()) {
    const DTypeInfo& info = dtype_info(tensor.view.dtype);
    if (info.decode == nullptr) continue;
    const uint64_t n = tensor.view.shape.elements();
    std::atomic<uint64_t> first_bad = n;
    parallel_dynamic(div_up<uint64_t>(n, kSegment), [&](size_t segment) {
      std::array<float, kSegment> values;
      const uint64_t begin = segment * kSegment;
      const size_t count = std::min<uint64_t>(kSegment, n - begin);
      info.decode(tensor.view.data + begin / info.block_elements * info.block_bytes, values.data(), count);
      for (size_t i = 0; i < count; ++i) {
        if (std::isfinite(values[i])) continue;
        uint64_t known = first_bad.load();
        while (begin + i < known && !first_bad.compare_exchange_weak(known, begin + i)) {
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
