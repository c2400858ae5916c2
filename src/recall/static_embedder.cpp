#include "recall/static_embedder.h"

#include <xxhash.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>

#include "base/error.h"
#include "recall/search/terms.h"
#include "recall/word_vectors.h"
#include "weights/gguf_writer.h"

namespace mneme::recall {
namespace {

constexpr std::string_view kArchitecture = "mneme-word-vectors";

const NamedTensor& tensor(const ModelFile& file, const char* name, DType dtype, size_t rank, uint64_t rows,
                          uint64_t columns) {
  const NamedTensor* found = file.find(name);
  if (found == nullptr)
    fail(ErrorCode::kCorruptData, "[open embedder] {}: expected tensor {}, found none", file.path(), name);
  const Shape& shape = found->view.shape;
  // 0: any extent.
  if (found->view.dtype != dtype || shape.rank() != rank || (columns != 0 && shape.from_last(0) != columns) ||
      (rows != 0 && shape.from_last(1) != rows)) {
    fail(ErrorCode::kCorruptData, "[open embedder] {}: expected another type or shape of tensor {}, found {} {}",
         file.path(), name, dtype_info(found->view.dtype).name, shape.to_string());
  }
  return *found;
}

/// As many numbers as the tensor has, all finite.
std::vector<float> numbers(const ModelFile& file, const NamedTensor& tensor) {
  std::vector<float> values(tensor.view.shape.elements());
  for (uint64_t row = 0; row < tensor.view.rows(); ++row)
    decode_row(tensor.view, row, &values[row * tensor.view.columns()]);
  for (const float value : values) {
    if (!std::isfinite(value)) {
      fail(ErrorCode::kCorruptData, "[open embedder] {}: expected finite numbers in {}", file.path(), tensor.name);
    }
  }
  return values;
}

}  // namespace

bool StaticEmbedder::is_model(const std::string& path) {
  return open_gguf(path).metadata().find_string("general.architecture").value_or("") == kArchitecture;
}

StaticEmbedder::StaticEmbedder(const std::string& path) : file_(std::make_unique<ModelFile>(open_gguf(path))) {
  const Metadata& metadata = file_->metadata();
  if (metadata.find_string("general.architecture").value_or("") != kArchitecture) {
    fail(ErrorCode::kCorruptData, "[open embedder] {}: expected architecture {}, found {}", path, kArchitecture,
         brief_text(metadata.find_string("general.architecture").value_or("none")));
  }
  const uint64_t rules = metadata.get_u64("word_vectors.term_rules");
  if (rules != kTermRules) {
    fail(ErrorCode::kUnsupported, "[open embedder] {}: expected stems by rules {}, found rules {}", path, kTermRules,
         rules);
  }
  const auto stems = metadata.find_array_string("word_vectors.words");
  if (!stems || stems->empty()) fail(ErrorCode::kCorruptData, "[open embedder] {}: expected words, found none", path);
  const uint64_t n = stems->size();
  vectors_ = tensor(*file_, "words.vector", DType::kQ8_0, 2, n, 0).view;
  const uint64_t d = vectors_.columns();
  if (d < 32 || d > 1024)
    fail(ErrorCode::kCorruptData, "[open embedder] {}: expected 32 to 1024 numbers, found {}", path, d);
  dimension_ = static_cast<uint32_t>(d);
  const NamedTensor& grams = tensor(*file_, "grams.vector", DType::kQ8_0, 2, 0, d);
  grams_ = grams.view;
  if (grams_.rows() > (1U << 20)) fail(ErrorCode::kCorruptData, "[open embedder] {}: too many pieces of words", path);
  n_grams_ = static_cast<uint32_t>(grams_.rows());
  weights_ = numbers(*file_, tensor(*file_, "words.weight", DType::kF32, 1, 0, n));
  const std::vector<float> common = numbers(*file_, tensor(*file_, "common", DType::kF32, 2, 0, d));
  for (size_t at = 0; at < common.size(); at += d)
    common_.emplace_back(common.begin() + static_cast<ptrdiff_t>(at), common.begin() + static_cast<ptrdiff_t>(at + d));
  numbers(*file_, *file_->find("words.vector"));
  numbers(*file_, grams);
  stems_.assign(stems->begin(), stems->end());
  for (uint32_t i = 0; i < n; ++i) words_.try_emplace(stems_[i], i);
  name_ = fmt::format("words:{}x{}:{}", n, d, metadata.find_string("word_vectors.fingerprint").value_or("none"));
}

void StaticEmbedder::add_word(std::string_view stem, float* sum) const {
  std::vector<float> row(dimension_);
  const auto known = words_.find(stem);
  if (known != words_.end()) {
    decode_row(vectors_, known->second, row.data());
    for (uint32_t j = 0; j < dimension_; ++j) sum[j] += weights_[known->second] * row[j];
    return;
  }
  const std::vector<uint32_t> buckets = gram_buckets(stem, n_grams_);
  for (const uint32_t bucket : buckets) {
    decode_row(grams_, bucket, row.data());
    for (uint32_t j = 0; j < dimension_; ++j) sum[j] += row[j] / static_cast<float>(buckets.size());
  }
}

std::vector<float> StaticEmbedder::word(std::string_view stem) const {
  std::vector<float> vector(dimension_);
  add_word(stem, vector.data());
  return vector;
}

std::vector<std::vector<float>> StaticEmbedder::embed(std::span<const std::string> texts, Role) {
  std::vector<std::vector<float>> vectors;
  for (const std::string& text : texts) {
    std::vector<float> sum(dimension_);
    for (const std::string& word : words_of(text)) add_word(word, sum.data());
    for (const std::vector<float>& direction : common_) {
      float part = 0;
      for (uint32_t j = 0; j < dimension_; ++j) part += sum[j] * direction[j];
      for (uint32_t j = 0; j < dimension_; ++j) sum[j] -= part * direction[j];
    }
    float square = 0;
    for (const float x : sum) square += x * x;
    if (square < 1e-12F) {
      if (common_.empty()) {
        sum.assign(dimension_, 1.0F);
      } else {
        sum = common_.front();
      }
    }
    vectors.push_back(std::move(sum));
  }
  return vectors;
}

std::vector<std::pair<std::string, float>> StaticEmbedder::nearest(const std::string& text, size_t n) {
  const auto length = [](std::span<const float> v) {
    float square = 0;
    for (const float x : v) square += x * x;
    return std::sqrt(std::max(square, 1e-24F));
  };
  std::vector<float> wanted(dimension_);
  for (const std::string& word : words_of(text)) add_word(word, wanted.data());
  const float wanted_length = length(wanted);
  std::vector<std::pair<std::string, float>> all;
  std::vector<float> row(dimension_);
  for (uint32_t i = 0; i < stems_.size(); ++i) {
    decode_row(vectors_, i, row.data());
    float dot = 0;
    for (uint32_t j = 0; j < dimension_; ++j) dot += wanted[j] * row[j];
    all.emplace_back(stems_[i], dot / (wanted_length * length(row)));
  }
  n = std::min(n, all.size());
  std::partial_sort(all.begin(), all.begin() + static_cast<ptrdiff_t>(n), all.end(), [](const auto& a, const auto& b) {
    return a.second != b.second ? a.second > b.second : a.first < b.first;
  });
  all.resize(n);
  return all;
}

void write_word_vectors(const WordVectors& vectors, const std::string& path, const std::string& trained_on) {
  const uint32_t d = vectors.options.dimension;
  const DTypeInfo& q8 = dtype_info(DType::kQ8_0);
  if (d % q8.block_elements != 0) {
    fail(ErrorCode::kInvalidArgument, "[write embedder] expected a multiple of {} numbers, found {}", q8.block_elements,
         d);
  }
  const auto encoded = [&](const std::vector<float>& values) {
    std::vector<std::byte> bytes(values.size() / q8.block_elements * q8.block_bytes);
    q8.encode(values.data(), nullptr, bytes.data(), values.size());
    return bytes;
  };
  const std::vector<std::byte> words = encoded(vectors.vectors), grams = encoded(vectors.grams);
  const uint64_t n = vectors.words.size(), g = vectors.options.n_grams, c = vectors.common.size() / d;
  const std::vector<NamedTensor> tensors = {
      {"words.vector", {DType::kQ8_0, {n, d}, words.data()}},
      {"grams.vector", {DType::kQ8_0, {g, d}, grams.data()}},
      {"words.weight", {DType::kF32, {n}, reinterpret_cast<const std::byte*>(vectors.weights.data())}},
      {"common", {DType::kF32, {c, d}, reinterpret_cast<const std::byte*>(vectors.common.data())}}};
  XXH3_state_t* const state = XXH3_createState();
  XXH3_64bits_reset(state);
  for (const NamedTensor& each : tensors) XXH3_64bits_update(state, each.view.data, each.view.bytes());
  for (const std::string& word : vectors.words) XXH3_64bits_update(state, word.data(), word.size() + 1);
  const std::string fingerprint = fmt::format("{:016x}", XXH3_64bits_digest(state));
  XXH3_freeState(state);
  Metadata metadata;
  metadata.set_string("general.architecture", kArchitecture);
  metadata.set_string("general.name", "word vectors");
  metadata.set_string("general.description", "trained by mneme on " + trained_on);
  metadata.set_u32("word_vectors.term_rules", kTermRules);
  metadata.set_u32("word_vectors.window", vectors.options.window);
  metadata.set_u64("word_vectors.min_count", vectors.options.min_count);
  metadata.set_u64("word_vectors.tokens", vectors.n_tokens);
  metadata.set_u64("word_vectors.seed", vectors.options.seed);
  metadata.set_string("word_vectors.fingerprint", fingerprint);
  metadata.set_array_string("word_vectors.words", vectors.words);
  write_gguf(path, metadata, tensors);
}

std::string builtin_embedder_path() {
  namespace fs = std::filesystem;
  constexpr const char* kName = "words.gguf";
  std::vector<fs::path> places;
  if (const char* given = std::getenv("MNEME_EMBEDDER"); given != nullptr && *given != '\0') return given;
  std::error_code ignored;
  const fs::path program = fs::read_symlink("/proc/self/exe", ignored);
  if (!program.empty()) {
    fs::path folder = program.parent_path();
    places.push_back(folder.parent_path() / "share" / "mneme" / kName);
    for (int up = 0; up < 6 && !folder.empty(); ++up, folder = folder.parent_path())
      places.push_back(folder / "models" / kName);
  }
  for (const fs::path& place : places) {
    if (fs::is_regular_file(place, ignored)) return place.string();
  }
  throw Error(ErrorCode::kNotFound,
              fmt::format("[open embedder] expected models/{} beside the program, found none", kName),
              "mneme train embedder makes it; $MNEME_EMBEDDER says where it is");
}

}  // namespace mneme::recall
