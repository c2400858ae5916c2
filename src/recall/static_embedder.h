#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "recall/embedder.h"
#include "weights/model_file.h"

namespace mneme::recall {

/// Embeds a text as the weighted sum of the vectors of its words, without the directions that all texts share
/// (word_vectors.h has the method and its papers). Words that the model does not know get the mean of the vectors of
/// their pieces. It needs no neural network and takes microseconds; it knows no word order.
///
/// The model is a GGUF file. Keys: general.architecture = "mneme-word-vectors", word_vectors.words (strings: stems of
/// the term rules word_vectors.term_rules). Tensors: words.vector [n, d] and grams.vector [g, d] in Q8_0, words.weight
/// [n] in F32, common [c, d] in F32, whose rows are orthonormal.
class StaticEmbedder final : public Embedder {
 public:
  /// True for a file that holds such a model. Throws Error when it is no GGUF file.
  static bool is_model(const std::string& path);
  /// Opens a model file. Throws Error(kCorruptData) when it is none, kUnsupported for stems by other rules.
  explicit StaticEmbedder(const std::string& path);

  const std::string& model() const override { return name_; }
  uint32_t dimension() const override { return dimension_; }
  /// A text without any word gets the direction that all texts share, which is like none of them.
  std::vector<std::vector<float>> embed(std::span<const std::string> texts, Role role) override;

  /// The vector of one word, known or not; zeros when nothing of it is known. Its form is that of words_of().
  std::vector<float> word(std::string_view stem) const;
  /// The known words with the greatest cosine to a text, best first.
  std::vector<std::pair<std::string, float>> nearest(const std::string& text, size_t n);

 private:
  void add_word(std::string_view stem, float* sum) const;

  std::unique_ptr<ModelFile> file_;
  std::string name_;
  uint32_t dimension_ = 0, n_grams_ = 0;
  std::vector<std::string_view> stems_;
  std::unordered_map<std::string_view, uint32_t> words_;
  TensorView vectors_, grams_;
  std::vector<float> weights_;
  std::vector<std::vector<float>> common_;
};

/// The model that comes with mneme, models/words.gguf: $MNEME_EMBEDDER, or looked for beside the program, in the
/// folders above it, and in share/mneme beside its folder. Throws Error(kNotFound).
std::string builtin_embedder_path();

}  // namespace mneme::recall
