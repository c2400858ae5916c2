#pragma once

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "eval/perplexity.h"
#include "weights/calibration.h"
#include "weights/quantize.h"

namespace mneme {

/// A trained model in other formats, and what each loses on text that the model makes up itself, one part of which is
/// kept for calibration. Files lie in a folder that ends with this; measurements are made when first asked for.
class FormatTrials {
 public:
  static constexpr uint32_t kWindow = 512;
  static constexpr uint64_t kScoredWindows = 4, kReadWindows = 8;

  /// Changes the values of a matrix [rows, columns] in place.
  using Change = std::function<void(const TensorInfo& tensor, std::span<float> values)>;

  /// `context` is the longest that load() makes room for, kWindow at least. Throws Error.
  explicit FormatTrials(std::string model, uint32_t context = kWindow);
  FormatTrials(const FormatTrials&) = delete;
  FormatTrials& operator=(const FormatTrials&) = delete;
  ~FormatTrials();

  const std::string& model() const { return model_; }
  /// Inputs of the matrices on the part that is not scored, with gram matrices.
  const Calibration& calibration() const { return calibration_; }
  std::span<const TokenId> read_text() const { return read_; }
  std::span<const TokenId> scored_text() const { return scored_; }
  static PerplexityOptions options();
  /// Perplexity of the model as it is.
  double original() const { return original_; }

  /// The model, or another file `from`, quantised to a recipe's name with `how` (whose recipe and leave to lose are set
  /// here); `name` tells files apart and is that of the recipe when it is empty. Returns the path.
  std::string file(const std::string& recipe, QuantizeOptions how = {}, std::string name = {}, std::string from = {});
  /// file() with scales that the calibration chooses.
  std::string calibrated_file(const std::string& recipe);
  /// For files of at most `size` bytes with a type for each matrix; calibrated, and BIPOLAR2 is among the types.
  QuantizeOptions mixed_options(uint64_t size) const;
  /// The model with the matrices that a recipe stores in its base type changed instead, and kept as F32. The others are
  /// as the recipe stores them, so that this file and file(recipe) differ in nothing else.
  std::string changed_file(const std::string& name, const std::string& recipe, const Change& change);

  std::unique_ptr<Engine> load(const std::string& path, Ledger& ledger) const;
  /// Perplexity of a file on the scored text.
  double perplexity_of(const std::string& path);
  /// exp of the mean KL divergence of a file from the model on the scored text. The text is the model's own, so this is
  /// what the perplexity is multiplied by in the mean over such texts, with far less noise than on one of them.
  double loss_of(const std::string& path);

 private:
  std::string model_, folder_;
  uint32_t context_;
  Calibration calibration_;
  std::vector<TokenId> read_, scored_;
  double original_ = 0;
  std::map<std::string, double> perplexities_, losses_;
};

/// The trials of a model with room for 1024 tokens, made when first asked for and kept, so that claims share them.
FormatTrials& shared_trials(const std::string& model);

/// How integers are laid over values, for round_to_integers().
struct IntegerGrid {
  int bits = 4;
  bool with_minimum =
      false;  ///< q = round((w - min) / s), s = (max - min) / (2^bits - 1); else s = max|w| / (2^(bits-1) - 1).
};

/// Rounds each group of consecutive values to nearest on a grid of its own, scale and minimum in half precision.
void round_to_integers(std::span<float> values, size_t group, const IntegerGrid& grid);
/// The same on the levels +-`magnitudes` times s, s = max|w| / the largest of them, which come last.
void round_to_levels(std::span<float> values, size_t group, std::span<const float> magnitudes);

}  // namespace mneme
