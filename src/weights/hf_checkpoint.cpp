#include "weights/hf_checkpoint.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <filesystem>
#include <unordered_map>
#include <utility>

#include "base/atomic_file.h"
#include "base/checked_math.h"
#include "base/error.h"
#include "weights/hf_tokenizer.h"
#include "weights/quantize.h"

namespace mneme {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxConfigBytes = uint64_t{16} << 20;

fs::path folder_of(const std::string& path) {
  const fs::path given(path);
  return fs::is_directory(given) ? given : given.parent_path();
}

SortedJson read_json(const fs::path& path) {
  return parse_sorted_json(read_text_file(path.string(), kMaxConfigBytes), path.string());
}

[[noreturn]] void fail_shape(std::string_view name, std::string_view expected, const SafeTensor& found,
                             const std::string& where) {
  std::string shape;
  for (uint64_t extent : found.shape) shape += fmt::format("{}{}", shape.empty() ? "" : ", ", extent);
  fail(ErrorCode::kCorruptData, "[import] tensor '{}' for '{}': expected {}, found [{}] of {}, in {}", found.name, name,
       expected, shape, found.dtype_name, where);
}

/// The shape of a tensor that can be computed with: one to four extents above zero.
Shape shape_of(const SafeTensor& tensor, std::string_view name, const std::string& where) {
  Shape shape;
  const bool whole = std::all_of(tensor.shape.begin(), tensor.shape.end(), [](uint64_t extent) { return extent > 0; });
  if (!whole || tensor.shape.empty() || tensor.shape.size() > Shape::kMaxRank) {
    fail_shape(name, "one to four extents above zero", tensor, where);
  }
  for (size_t i = tensor.shape.size(); i > 0; --i) shape.push_outer(tensor.shape[i - 1]);
  return shape;
}

/// Sentence-transformers keep the pooling of embedding models in a folder of their own. GGUF: 1 mean, 2 first, 3 last.
void import_pooling(const fs::path& folder, Metadata& metadata) {
  const fs::path path = folder / "1_Pooling" / "config.json";
  if (!fs::exists(path)) return;
  const SortedJson json = read_json(path);
  const auto is_set = [&](const char* key) {
    const auto found = json.is_object() ? json.find(key) : json.end();
    return json.is_object() && found != json.end() && found->is_boolean() && found->get<bool>();
  };
  const std::string key = fmt::format("{}.pooling_type", metadata.get_string("general.architecture"));
  if (is_set("pooling_mode_mean_tokens")) {
    metadata.set_u32(key, 1);
  } else if (is_set("pooling_mode_cls_token")) {
    metadata.set_u32(key, 2);
  } else if (is_set("pooling_mode_lasttoken")) {
    metadata.set_u32(key, 3);
  } else {
    fail(ErrorCode::kUnsupported, "[import] expected pooling over the mean, first or last token, found another, in {}",
         path.string());
  }
}

/// Rows of each head from halves (i, i + D/2) to pairs (2i, 2i + 1): row 2i + j comes from row j D/2 + i.
void permute_rows(const std::byte* in, std::byte* out, uint64_t n_rows, uint64_t n_heads, size_t row_bytes) {
  const uint64_t head_dim = n_rows / n_heads, half = head_dim / 2;
  for (uint64_t head = 0; head < n_heads; ++head) {
    for (uint64_t i = 0; i < half; ++i) {
      for (uint64_t j = 0; j < 2; ++j) {
        std::memcpy(out + (head * head_dim + 2 * i + j) * row_bytes, in + (head * head_dim + j * half + i) * row_bytes,
                    row_bytes);
      }
    }
  }
}

/// [rows, columns] to [columns, rows], in tiles that stay in the cache.
void transpose(const std::byte* in, std::byte* out, uint64_t rows, uint64_t columns, size_t element_bytes) {
  constexpr uint64_t kTile = 32;
  for (uint64_t r0 = 0; r0 < rows; r0 += kTile) {
    for (uint64_t c0 = 0; c0 < columns; c0 += kTile) {
      for (uint64_t r = r0; r < std::min(rows, r0 + kTile); ++r) {
        for (uint64_t c = c0; c < std::min(columns, c0 + kTile); ++c) {
          std::memcpy(out + (c * rows + r) * element_bytes, in + (r * columns + c) * element_bytes, element_bytes);
        }
      }
    }
  }
}

}  // namespace

bool is_hf_checkpoint(const std::string& path) {
  return fs::is_directory(path) || path.ends_with(".safetensors") || path.ends_with(".safetensors.index.json");
}

HfCheckpoint::HfCheckpoint(const std::string& path, Ledger& ledger) : path_(path), ledger_(ledger) {
  const fs::path folder = folder_of(path);
  const fs::path config_path = folder / "config.json";
  const SortedJson config = read_json(config_path);
  config_ = read_hf_config(config, config_path.string());
  config_.metadata.set_string("general.name", fs::weakly_canonical(config_path).parent_path().filename().string());
  import_hf_tokenizer(folder.string(), config, config_.n_vocab, config_.metadata);
  if (config_.architecture == "bert" || config_.architecture == "nomic-bert") import_pooling(folder, config_.metadata);
  set_ = SafetensorsSet::open(path);
  plan_tensors();
}

void HfCheckpoint::plan_tensors() {
  std::unordered_map<std::string, size_t> by_name;
  for (const GeneratedTensor& generated : config_.generated) {
    by_name.emplace(generated.name, infos_.size());
    infos_.push_back({generated.name, DType::kF32, Shape{generated.values.size()}});
    plans_.push_back({});
    plans_.back().generated = &generated;
  }
  std::unordered_map<std::string, uint64_t> filled;  // Experts found of each stack.
  for (const SafeTensor& tensor : set_.tensors()) {
    const auto name = gguf_name_of(config_.architecture, tensor.name);
    if (!name) {
      fail(ErrorCode::kUnsupported, "[import] tensor '{}': expected a name of architecture {}, found another, in {}",
           tensor.name, config_.architecture, path_);
    }
    if (name->form == HfForm::kSkip || (name->gguf == "output.weight" && config_.tied_output)) continue;
    const auto [place, is_new] = by_name.emplace(name->gguf, infos_.size());
    if (is_new) {
      infos_.push_back({name->gguf, DType::kF32, {}});
      plans_.push_back({});
      plans_.back().form = name->form;
      if (name->form == HfForm::kExpert) plans_.back().parts.resize(config_.n_experts);
    }
    Plan& plan = plans_[place->second];
    if (name->form != HfForm::kExpert) {
      if (!is_new) {
        fail(ErrorCode::kCorruptData, "[import] tensor '{}': expected one tensor for '{}', found two, in {}",
             tensor.name, name->gguf, path_);
      }
      plan.parts = {&tensor};
      continue;
    }
    if (name->expert >= plan.parts.size() || plan.parts[name->expert] != nullptr) {
      fail(ErrorCode::kCorruptData, "[import] tensor '{}': expected each of {} experts once, found expert {}, in {}",
           tensor.name, config_.n_experts, name->expert, path_);
    }
    plan.parts[name->expert] = &tensor;
    ++filled[name->gguf];
  }
  for (size_t i = 0; i < infos_.size(); ++i) {
    if (plans_[i].form == HfForm::kExpert && filled[infos_[i].name] != plans_[i].parts.size()) {
      fail(ErrorCode::kCorruptData, "[import] tensor '{}': expected {} experts, found {}, in {}", infos_[i].name,
           plans_[i].parts.size(), filled[infos_[i].name], path_);
    }
    if (plans_[i].generated == nullptr) finish_plan(infos_[i], plans_[i]);
  }
}

/// Settles shape, type and whether the stored bytes will do.
void HfCheckpoint::finish_plan(TensorInfo& info, Plan& plan) const {
  const SafeTensor& first = *plan.parts.front();
  const bool is_float = first.dtype == DType::kF32 || first.dtype == DType::kF16 || first.dtype == DType::kBF16 ||
                        first.dtype == DType::kF64;
  if (!is_float) fail_shape(info.name, "F32, F16, BF16 or F64", first, path_);
  info.shape = shape_of(first, info.name, path_);
  for (const SafeTensor* part : plan.parts) {
    if (part->dtype != first.dtype || part->shape != first.shape)
      fail_shape(info.name, "experts of one shape and type", *part, path_);
  }
  const uint64_t rows = first.shape.front();
  switch (plan.form) {
    case HfForm::kPermuteQ:
    case HfForm::kPermuteK:
      plan.n_heads = plan.form == HfForm::kPermuteQ ? config_.n_heads : config_.n_kv_heads;
      if (rows % (2 * plan.n_heads) != 0) {
        fail_shape(info.name, fmt::format("an even number of rows for each of {} heads", plan.n_heads), first, path_);
      }
      break;
    case HfForm::kTranspose:
      if (first.shape.size() != 2) fail_shape(info.name, "two extents", first, path_);
      info.shape = Shape{first.shape[1], first.shape[0]};
      break;
    case HfForm::kExpert: {
      if (first.shape.size() != 2) fail_shape(info.name, "two extents", first, path_);
      const auto elements = checked_mul(info.shape.elements() * sizeof(double), uint64_t{plan.parts.size()});
      if (!elements) fail_shape(info.name, "a stack of experts that fits memory", first, path_);
      info.shape.push_outer(plan.parts.size());
      break;
    }
    case HfForm::kAsIs:
    case HfForm::kPlusOne:
    case HfForm::kSkip:
      break;
  }
  info.dtype =
      plan.form == HfForm::kPlusOne || first.dtype == DType::kF64 || stays_f32(info) ? DType::kF32 : *first.dtype;
  const bool aligned = reinterpret_cast<uintptr_t>(first.bytes.data()) % dtype_info(*first.dtype).block_bytes == 0;
  plan.mapped = plan.form == HfForm::kAsIs && info.dtype == *first.dtype && aligned;
}

void HfCheckpoint::make(size_t i, std::byte* out) const {
  const TensorInfo& info = infos_[i];
  const Plan& plan = plans_[i];
  if (plan.generated != nullptr) {
    std::memcpy(out, plan.generated->values.data(), info.bytes());
    return;
  }
  for (const SafeTensor* part : plan.parts) {
    const uint64_t n = info.shape.elements() / plan.parts.size();
    const size_t element_bytes = dtype_info(info.dtype).block_bytes;
    const std::byte* in = part->bytes.data();
    const bool reorders =
        plan.form == HfForm::kPermuteQ || plan.form == HfForm::kPermuteK || plan.form == HfForm::kTranspose;
    Buffer widened;
    if (reorders && info.dtype != *part->dtype) {
      widened = Buffer(ledger_, Tag::kScratch, n * sizeof(float), info.name);
      dtype_info(*part->dtype).decode(in, widened.as<float>().data(), n);
      in = widened.data();
    }
    if (plan.form == HfForm::kTranspose) {
      transpose(in, out, part->shape[0], part->shape[1], element_bytes);
    } else if (reorders) {
      permute_rows(in, out, part->shape.front(), plan.n_heads, n / part->shape.front() * element_bytes);
    } else if (info.dtype != *part->dtype) {
      dtype_info(*part->dtype).decode(in, reinterpret_cast<float*>(out), n);
    } else {
      std::memcpy(out, in, n * element_bytes);
    }
    if (plan.form == HfForm::kPlusOne) {
      for (float& value : std::span(reinterpret_cast<float*>(out), n)) value += 1.0f;
    }
    out += n * element_bytes;
  }
}

std::span<const std::byte> HfCheckpoint::load(size_t i) {
  if (plans_[i].mapped) return plans_[i].parts.front()->bytes;
  made_ = Buffer();  // Give the last one back before asking for the next.
  made_ = Buffer(ledger_, Tag::kScratch, infos_[i].bytes(), infos_[i].name);
  make(i, made_.data());
  return {made_.data(), made_.size()};
}

ModelFile HfCheckpoint::to_model_file() && {
  constexpr size_t kAlignment = 64;
  uint64_t owned = 0;
  for (size_t i = 0; i < infos_.size(); ++i) {
    if (!plans_[i].mapped) owned += round_up<uint64_t>(infos_[i].bytes(), kAlignment);
  }
  ModelFile::Parts parts;
  if (owned > 0) parts.buffers.emplace_back(ledger_, Tag::kWeights, owned, "converted tensors of " + path_);
  uint64_t at = 0;
  for (size_t i = 0; i < infos_.size(); ++i) {
    NamedTensor tensor{infos_[i].name, {infos_[i].dtype, infos_[i].shape}};
    if (plans_[i].mapped) {
      tensor.view.data = plans_[i].parts.front()->bytes.data();
    } else {
      tensor.view.data = parts.buffers.front().data() + at;
      make(i, parts.buffers.front().data() + at);
      at += round_up<uint64_t>(infos_[i].bytes(), kAlignment);
    }
    parts.tensors.push_back(std::move(tensor));
  }
  parts.path = path_;
  parts.metadata = std::move(config_.metadata);
  parts.files = set_.take_files();
  return ModelFile(std::move(parts));
}

}  // namespace mneme
