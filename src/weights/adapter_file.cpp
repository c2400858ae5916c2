#include "weights/adapter_file.h"

#include <xxhash.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <span>

#include "base/error.h"

namespace mneme {
namespace {

constexpr std::string_view kA = ".lora_a", kB = ".lora_b";

/// Checks a metadata string of the file.
void expect_text(const ModelFile& file, const char* key, std::string_view expected) {
  const auto found = file.metadata().find_string(key);
  if (found == expected) return;
  fail(ErrorCode::kInvalidArgument, "[adapter] {}: expected {} = {}, found {}", file.path(), key, expected,
       found ? *found : "none");
}

}  // namespace

AdapterFile::AdapterFile(const std::string& path) : file_(open_gguf(path)) {
  expect_text(file_, "general.type", "adapter");
  expect_text(file_, "adapter.type", "lora");
  architecture_ = file_.metadata().get_string("general.architecture");
  alpha_ = static_cast<float>(file_.metadata().find_f64("adapter.lora.alpha").value_or(0.0));
  if (!std::isfinite(alpha_)) fail(ErrorCode::kCorruptData, "[adapter] {}: expected a finite alpha", path);

  std::map<std::string, Pair> pairs;
  for (const NamedTensor& tensor : file_.tensors()) {
    const std::string_view name = tensor.name;
    const bool is_a = name.ends_with(kA);
    if (!is_a && !name.ends_with(kB)) {
      fail(ErrorCode::kUnsupported, "[adapter] {}: expected tensors named *{} and *{}, found {}", path, kA, kB, name);
    }
    if (dtype_info(tensor.view.dtype).decode == nullptr || tensor.view.shape.rank() != 2) {
      fail(ErrorCode::kUnsupported, "[adapter] {}: expected a matrix of a readable type, found {} {} {}", path, name,
           dtype_info(tensor.view.dtype).name, tensor.view.shape.to_string());
    }
    Pair& pair = pairs[std::string(name.substr(0, name.size() - kA.size()))];
    (is_a ? pair.a : pair.b) = tensor.view;
  }
  for (auto& [target, pair] : pairs) {
    if (pair.a.data == nullptr || pair.b.data == nullptr) {
      fail(ErrorCode::kCorruptData, "[adapter] {}: expected both factors for {}, found one", path, target);
    }
    if (pair.a.rows() != pair.b.columns()) {
      fail(ErrorCode::kCorruptData, "[adapter] {}: expected factors of one rank for {}, found {} and {}", path, target,
           pair.a.rows(), pair.b.columns());
    }
    pair.target = target;
    pair.scale = alpha_ != 0 ? alpha_ / static_cast<float>(pair.rank()) : 1.0f;
    pairs_.push_back(pair);
  }
  if (pairs_.empty()) fail(ErrorCode::kCorruptData, "[adapter] {}: expected at least one pair of factors", path);
}

void AdapterFile::check_base(const ModelFile& base) const {
  const std::string_view base_architecture = base.metadata().get_string("general.architecture");
  if (architecture_ != base_architecture) {
    fail(ErrorCode::kInvalidArgument, "[adapter] {}: expected an adapter for {} models such as {}, found one for {}",
         path(), base_architecture, base.path(), architecture_);
  }
  for (const Pair& pair : pairs_) {
    const NamedTensor* tensor = base.find(pair.target);
    if (tensor == nullptr) {
      fail(ErrorCode::kInvalidArgument, "[adapter] {}: expected matrices that {} has, found {}", path(), base.path(),
           pair.target);
    }
    const TensorView& w = tensor->view;
    if (w.shape.rank() != 2 || pair.a.columns() != w.columns() || pair.b.rows() != w.rows()) {
      fail(ErrorCode::kInvalidArgument, "[adapter] {}: expected factors of {} {} in {}, found {} and {}", path(),
           pair.target, w.shape.to_string(), base.path(), pair.b.shape.to_string(), pair.a.shape.to_string());
    }
  }
  const auto fingerprint = file_.metadata().find_string(kBaseFingerprintKey);
  if (fingerprint && *fingerprint != base_fingerprint(base)) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("[adapter] {}: expected the base {}, whose rounding it corrects, found {} with {}", path(),
                            *fingerprint, base.path(), base_fingerprint(base)),
                "run it with the file that it was trained on");
  }
}

void AdapterFile::decode(const TensorView& factor, float* out) const {
  const size_t columns = factor.columns();
  for (size_t i = 0; i < factor.rows(); ++i) decode_row(factor, i, out + i * columns);
  const std::span values(out, factor.rows() * columns);
  if (!std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); })) {
    fail(ErrorCode::kCorruptData, "[adapter] {}: expected finite factors, found NaN or infinity", path());
  }
}

std::string base_fingerprint(const ModelFile& base) {
  constexpr size_t kSampledBytes = 4096;
  XXH64_hash_t hash = 0;
  for (const NamedTensor& tensor : base.tensors()) {
    const std::string head =
        fmt::format("{} {} {}", tensor.name, dtype_info(tensor.view.dtype).name, tensor.view.shape.to_string());
    hash = XXH64(head.data(), head.size(), hash);
    hash = XXH64(tensor.view.data, std::min(kSampledBytes, tensor.view.bytes()), hash);
  }
  return fmt::format("{:016x}", hash);
}

}  // namespace mneme
