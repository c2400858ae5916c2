#include "eval/format_trials.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <filesystem>
#include <utility>

#include "base/half.h"
#include "engine/calibration.h"
#include "eval/divergence.h"
#include "eval/own_text.h"

namespace mneme {
namespace {

/// A source that hands out some matrices as F32, changed.
class ChangedSource : public TensorSource {
 public:
  ChangedSource(TensorSource& source, std::vector<bool> changed, const FormatTrials::Change& change)
      : source_(source),
        changed_(std::move(changed)),
        change_(change),
        tensors_(source.tensors().begin(), source.tensors().end()) {
    for (size_t i = 0; i < tensors_.size(); ++i) {
      if (changed_[i]) tensors_[i] = {tensors_[i].name, DType::kF32, tensors_[i].shape};
    }
  }
  const Metadata& metadata() const override { return source_.metadata(); }
  std::span<const TensorInfo> tensors() const override { return tensors_; }
  std::span<const std::byte> load(size_t i) override {
    const std::span<const std::byte> stored = source_.load(i);
    if (!changed_[i]) return stored;
    const TensorView view = source_.tensors()[i].view(stored.data());
    values_.resize(view.shape.elements());
    for (uint64_t r = 0; r < view.rows(); ++r) decode_row(view, r, values_.data() + r * view.columns());
    change_(tensors_[i], values_);
    return std::as_bytes(std::span(values_));
  }

 private:
  TensorSource& source_;
  std::vector<bool> changed_;
  const FormatTrials::Change& change_;
  std::vector<TensorInfo> tensors_;
  std::vector<float> values_;
};

std::string new_folder() {
  static std::atomic<int> count = 0;
  const std::string folder = fmt::format("{}/mneme-formats-{}-{}", std::filesystem::temp_directory_path().string(),
                                         ::getpid(), count.fetch_add(1));
  std::filesystem::create_directories(folder);
  return folder;
}

float half(float x) {
  return f16_to_f32(f32_to_f16(x));
}

}  // namespace

FormatTrials::FormatTrials(std::string model, uint32_t context)
    : model_(std::move(model)), folder_(new_folder()), context_(std::max(context, kWindow)) {
  Ledger ledger;
  const auto engine = load(model_, ledger);
  const std::vector<TokenId> text = own_text(*engine, (kReadWindows + kScoredWindows) * kWindow);
  const auto middle = text.begin() + kReadWindows * kWindow;
  CalibrationOptions how;
  how.window = kWindow;
  how.max_windows = kReadWindows;
  how.wants_gram = [](const std::string& name) { return name.starts_with("blk."); };
  read_.assign(text.begin(), middle);
  calibration_ = calibrate(*engine, read_, how, [](uint64_t, uint64_t) {});
  scored_.assign(middle, text.end());
  original_ = perplexity(*engine, scored_, options(), [](uint64_t, uint64_t) {}).perplexity;
}

FormatTrials::~FormatTrials() {
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

PerplexityOptions FormatTrials::options() {
  PerplexityOptions out;
  out.window = kWindow;
  return out;
}

std::string FormatTrials::file(const std::string& recipe, QuantizeOptions how, std::string name, std::string from) {
  const std::string path = fmt::format("{}/{}.gguf", folder_, name.empty() ? recipe : name);
  if (std::filesystem::exists(path)) return path;
  Ledger ledger;
  const auto source = open_source(from.empty() ? model_ : from, ledger);
  how.recipe = find_quant_recipe(recipe);
  how.lossy = true;
  quantize_model(*source, path, how, ledger);
  return path;
}

std::string FormatTrials::calibrated_file(const std::string& recipe) {
  QuantizeOptions how;
  how.calibration = &calibration_;
  return file(recipe, how, recipe + "-calibrated");
}

QuantizeOptions FormatTrials::mixed_options(uint64_t size) const {
  QuantizeOptions how;
  how.calibration = &calibration_;
  how.size = size;
  how.candidates.push_back(DType::kBipolar2);
  return how;
}

std::string FormatTrials::changed_file(const std::string& name, const std::string& recipe, const Change& change) {
  const std::string path = fmt::format("{}/{}.gguf", folder_, name);
  if (std::filesystem::exists(path)) return path;
  Ledger ledger;
  const auto source = open_source(model_, ledger);
  const QuantRecipe& stored = *find_quant_recipe(recipe);
  std::vector<DType> types = choose_types(stored, source->metadata(), source->tensors(), false);
  std::vector<bool> changed;
  for (DType& type : types) {
    changed.push_back(type == stored.base);
    if (changed.back()) type = DType::kF32;
  }
  ChangedSource other(*source, std::move(changed), change);
  transcode(other, types, source->metadata(), path, ledger);
  return path;
}

std::unique_ptr<Engine> FormatTrials::load(const std::string& path, Ledger& ledger) const {
  PlanRequest request;
  request.context = context_;
  return Engine::load(path, request, ledger);
}

double FormatTrials::perplexity_of(const std::string& path) {
  if (const auto known = perplexities_.find(path); known != perplexities_.end()) return known->second;
  Ledger ledger;
  const auto engine = load(path, ledger);
  const double found = perplexity(*engine, scored_, options(), [](uint64_t, uint64_t) {}).perplexity;
  perplexities_[path] = found;
  return found;
}

double FormatTrials::loss_of(const std::string& path) {
  if (const auto known = losses_.find(path); known != losses_.end()) return known->second;
  Ledger first, second;
  const auto reference = load(model_, first), model = load(path, second);
  const double found = std::exp(divergence(*reference, *model, scored_, {kWindow, 0}, [](uint64_t, uint64_t) {}).kl);
  losses_[path] = found;
  return found;
}

FormatTrials& shared_trials(const std::string& model) {
  static std::map<std::string, std::unique_ptr<FormatTrials>> all;
  std::unique_ptr<FormatTrials>& trials = all[model];
  if (!trials) trials = std::make_unique<FormatTrials>(model, 1024);
  return *trials;
}

void round_to_integers(std::span<float> values, size_t group, const IntegerGrid& grid) {
  for (size_t first = 0; first < values.size(); first += group) {
    const std::span<float> part = values.subspan(first, std::min(group, values.size() - first));
    const auto [low, high] = std::minmax_element(part.begin(), part.end());
    const float top = static_cast<float>(grid.with_minimum ? (1 << grid.bits) - 1 : (1 << (grid.bits - 1)) - 1);
    const float zero = grid.with_minimum ? half(*low) : 0.0f;
    const float range = grid.with_minimum ? *high - *low : std::max(-*low, *high);
    const float scale = half(range / top), least = grid.with_minimum ? 0.0f : -top;
    for (float& w : part) {
      w = scale > 0 ? zero + scale * std::clamp(std::nearbyint((w - zero) / scale), least, top) : zero;
    }
  }
}

void round_to_levels(std::span<float> values, size_t group, std::span<const float> magnitudes) {
  for (size_t first = 0; first < values.size(); first += group) {
    const std::span<float> part = values.subspan(first, std::min(group, values.size() - first));
    float largest = 0;
    for (const float w : part) largest = std::max(largest, std::abs(w));
    const float scale = half(largest / magnitudes.back());
    if (scale <= 0) continue;
    for (float& w : part) {
      float best = magnitudes.front();
      for (const float level : magnitudes) {
        if (std::abs(std::abs(w) - scale * level) < std::abs(std::abs(w) - scale * best)) best = level;
      }
      w = std::copysign(scale * best, w);
    }
  }
}

}  // namespace mneme
