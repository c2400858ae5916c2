#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace mneme::recall {

/// How word vectors are trained.
struct WordVectorOptions {
  uint32_t dimension = 128;     ///< Numbers of a vector.
  uint32_t window = 5;          ///< Words on each side that count as context.
  uint64_t min_count = 5;       ///< Rarer words get no vector of their own.
  uint32_t max_words = 30'000;  ///< The most frequent ones are kept.
  uint32_t n_grams = 4096;      ///< Vectors for pieces of words, shared by hash.
  double eigenvalue_power = 0.5;
  double rare_weight = 1e-3;  ///< a of the weight a / (a + p) of a word with frequency p.
  uint32_t n_common = 1;      ///< Directions that all texts share, taken out.
  uint64_t seed = 1;
};

/// Vectors of word stems and of pieces of words, before they are rounded.
struct WordVectors {
  WordVectorOptions options;
  std::vector<std::string> words;  ///< Stems as words_of() makes them, the most frequent first.
  std::vector<uint64_t> counts;
  std::vector<float> vectors;  ///< [words, dimension], of length 1 or 0.
  std::vector<float> weights;  ///< [words]: rare_weight / (rare_weight + p).
  std::vector<float> grams;    ///< [n_grams, dimension]
  std::vector<float> common;   ///< [n_common, dimension], orthonormal.
  uint64_t n_tokens = 0;       ///< Words that were read.
};

/// Buckets of the pieces of a word: its 3 to 5 characters in a row, with '<' before and '>' after it, hashed. For words
/// of one script without blanks the same. Empty for words over 64 bytes.
std::vector<uint32_t> gram_buckets(std::string_view word, uint32_t n_grams);

/// Trains vectors of words by counting.
///
/// 1. Co-occurrence: each pair of words at most `window` apart counts 1 - (distance - 1) / window.
/// 2. Positive pointwise mutual information with a smoothed context distribution (Levy, Goldberg and Dagan, "Improving
///    Distributional Similarity with Lessons Learned from Word Embeddings", TACL 2015):
///      M[w, c] = max(0, ln(#(w, c) S / (#(w) #(c)^.75))), S = sum over c of #(c)^.75; [n, n], sparse.
/// 3. The greatest eigenvectors of the symmetric part of M by randomised subspace iteration (Halko, Martinsson and
/// Tropp,
///    arXiv 0909.4061): rows of U |L|^p, scaled to length 1; p is eigenvalue_power.
/// 4. Vectors of pieces of words such that their mean is close to the vectors of the words that they are in (as in
///    Bojanowski and others, arXiv 1607.04606, but fitted afterwards by gradient steps): for words that were not seen.
/// 5. A text's vector is the weighted sum of its words' vectors without the directions that all texts share (Arora,
/// Liang
///    and Ma, "A simple but tough-to-beat baseline for sentence embeddings", ICLR 2017); these are found here from the
///    texts of the training.
///
/// The same texts, options and machine type give the same numbers: one thread, seeded, fixed order. It knows no word
/// order and one sense a word.
class WordVectorTrainer {
 public:
  explicit WordVectorTrainer(WordVectorOptions options);
  /// Reads a text; words of different texts are no neighbours. Texts are kept as numbers of words, 4 bytes each.
  void add(std::string_view text);
  /// `each(step)` is called before each step with what it does. Throws Error(kInvalidArgument) when there is too little
  /// text for the dimension.
  WordVectors train(const std::function<void(const char*)>& each);

 private:
  WordVectorOptions options_;
  std::unordered_map<std::string, uint32_t> numbers_;
  std::vector<std::string> words_;
  std::vector<uint64_t> counts_;
  std::vector<std::vector<uint32_t>> texts_;
};

/// Writes vectors as a GGUF file, rounded to 8 bits (static_embedder.h describes it). Throws Error(kIo).
void write_word_vectors(const WordVectors& vectors, const std::string& path, const std::string& trained_on);

}  // namespace mneme::recall
