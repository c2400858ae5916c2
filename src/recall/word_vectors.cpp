#include "recall/word_vectors.h"

#include <xxhash.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>

#include "base/error.h"
#include "base/philox.h"
#include "base/utf8.h"
#include "recall/search/terms.h"

namespace mneme::recall {
namespace {

constexpr uint32_t kOversampling = 16;
constexpr int kIterations = 3;
constexpr int kGramEpochs = 10;
constexpr float kGramRate = 0.5F;
constexpr double kContextSmoothing = 0.75;
constexpr size_t kSentence = 16;  // words of the pieces whose common directions are taken
constexpr size_t kMostSentences = 50'000;

/// A sparse symmetric matrix by rows.
struct Sparse {
  std::vector<size_t> begin;  ///< [n + 1]
  std::vector<uint32_t> column;
  std::vector<float> value;
  size_t n() const { return begin.size() - 1; }
};

/// Distinct pairs (a, b), a <= b, with their sums. Each is packed as (a << 32 | b) and counted in steps of 1 / window.
class PairCounts {
 public:
  void add(uint32_t a, uint32_t b, uint32_t steps) {
    if (a > b) std::swap(a, b);
    fresh_.push_back({uint64_t{a} << 32 | b, steps});
    if (fresh_.size() == kRun) merge();
  }
  struct Pair {
    uint64_t key;
    uint64_t steps;
  };
  const std::vector<Pair>& finish() {
    merge();
    return all_;
  }

 private:
  static constexpr size_t kRun = size_t{1} << 23;
  void merge() {
    std::sort(fresh_.begin(), fresh_.end(), [](const Pair& x, const Pair& y) { return x.key < y.key; });
    std::vector<Pair> merged;
    merged.reserve(all_.size() + fresh_.size() / 2);
    const auto take = [&](const Pair& pair) {
      if (!merged.empty() && merged.back().key == pair.key) {
        merged.back().steps += pair.steps;
      } else {
        merged.push_back(pair);
      }
    };
    size_t i = 0;
    for (const Pair& pair : fresh_) {
      while (i < all_.size() && all_[i].key <= pair.key) take(all_[i++]);
      take(pair);
    }
    while (i < all_.size()) take(all_[i++]);
    all_ = std::move(merged);
    fresh_.clear();
  }
  std::vector<Pair> all_, fresh_;
};

/// Positive mutual information of pairs of `n` words, symmetric: the mean of M and its transpose.
Sparse mutual_information(const std::vector<PairCounts::Pair>& pairs, size_t n) {
  std::vector<double> sums(n);
  for (const auto& pair : pairs) {
    const size_t a = pair.key >> 32, b = pair.key & UINT32_MAX;
    sums[a] += static_cast<double>(pair.steps);
    sums[b] += static_cast<double>(pair.steps);
  }
  std::vector<double> smoothed(n);
  double total = 0;
  for (size_t i = 0; i < n; ++i) total += smoothed[i] = std::pow(sums[i], kContextSmoothing);
  const auto information = [&](const PairCounts::Pair& pair) {
    const size_t a = pair.key >> 32, b = pair.key & UINT32_MAX;
    // A word beside itself is counted once in a pair, but is context twice.
    const double count = static_cast<double>(pair.steps) * (a == b ? 2 : 1);
    const double ab = std::log(count * total / (sums[a] * smoothed[b]));
    const double ba = std::log(count * total / (sums[b] * smoothed[a]));
    return static_cast<float>((std::max(ab, 0.0) + std::max(ba, 0.0)) / 2);
  };
  Sparse matrix;
  std::vector<size_t> sizes(n);
  for (const auto& pair : pairs) {
    if (information(pair) <= 0) continue;
    ++sizes[pair.key >> 32];
    if (pair.key >> 32 != (pair.key & UINT32_MAX)) ++sizes[pair.key & UINT32_MAX];
  }
  matrix.begin.assign(n + 1, 0);
  for (size_t i = 0; i < n; ++i) matrix.begin[i + 1] = matrix.begin[i] + sizes[i];
  matrix.column.resize(matrix.begin[n]);
  matrix.value.resize(matrix.begin[n]);
  std::vector<size_t> next(matrix.begin.begin(), matrix.begin.end() - 1);
  for (const auto& pair : pairs) {
    const float value = information(pair);
    if (value <= 0) continue;
    const auto a = static_cast<uint32_t>(pair.key >> 32), b = static_cast<uint32_t>(pair.key & UINT32_MAX);
    const auto put = [&](uint32_t row, uint32_t column) {
      matrix.column[next[row]] = column;
      matrix.value[next[row]++] = value;
    };
    put(a, b);
    if (a != b) put(b, a);
  }
  return matrix;
}

/// [n, k] = matrix [n, n] times x [n, k].
std::vector<float> multiply(const Sparse& matrix, const std::vector<float>& x, size_t k) {
  std::vector<float> y(matrix.n() * k);
  for (size_t row = 0; row < matrix.n(); ++row) {
    float* const out = &y[row * k];
    for (size_t at = matrix.begin[row]; at < matrix.begin[row + 1]; ++at) {
      const float value = matrix.value[at];
      const float* const in = &x[matrix.column[at] * k];
      for (size_t j = 0; j < k; ++j) out[j] += value * in[j];
    }
  }
  return y;
}

/// Makes the columns of x [n, k] orthonormal: Gram-Schmidt by columns, twice, on the transpose.
void orthonormalise(std::vector<float>& x, size_t k) {
  const size_t n = x.size() / k;
  std::vector<float> t(x.size());
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j < k; ++j) t[j * n + i] = x[i * k + j];
  }
  const auto dot = [&](size_t a, size_t b) {
    double sum = 0;
    for (size_t i = 0; i < n; ++i) sum += double{t[a * n + i]} * t[b * n + i];
    return sum;
  };
  for (size_t j = 0; j < k; ++j) {
    for (int round = 0; round < 2; ++round) {
      for (size_t before = 0; before < j; ++before) {
        const auto part = static_cast<float>(dot(j, before));
        for (size_t i = 0; i < n; ++i) t[j * n + i] -= part * t[before * n + i];
      }
    }
    const double length = std::sqrt(dot(j, j));
    const float scale = length > 1e-20 ? static_cast<float>(1 / length) : 0.0F;
    for (size_t i = 0; i < n; ++i) t[j * n + i] *= scale;
  }
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j < k; ++j) x[i * k + j] = t[j * n + i];
  }
}

/// Eigenvalues and eigenvectors (columns of `vectors`) of a symmetric matrix [k, k] by cyclic Jacobi rotations.
std::vector<double> eigen(std::vector<double> a, size_t k, std::vector<double>& vectors) {
  vectors.assign(k * k, 0);
  for (size_t i = 0; i < k; ++i) vectors[i * k + i] = 1;
  for (int sweep = 0; sweep < 50; ++sweep) {
    double off = 0, all = 0;
    for (size_t i = 0; i < k; ++i) {
      for (size_t j = 0; j < k; ++j) (i == j ? all : off) += a[i * k + j] * a[i * k + j];
    }
    if (off <= 1e-18 * all) break;
    for (size_t p = 0; p < k; ++p) {
      for (size_t q = p + 1; q < k; ++q) {
        const double apq = a[p * k + q];
        if (apq == 0) continue;
        const double theta = (a[q * k + q] - a[p * k + p]) / (2 * apq);
        const double t = (theta >= 0 ? 1 : -1) / (std::abs(theta) + std::sqrt(theta * theta + 1));
        const double c = 1 / std::sqrt(t * t + 1), s = t * c;
        for (size_t i = 0; i < k; ++i) {
          const double x = a[i * k + p], y = a[i * k + q];
          a[i * k + p] = c * x - s * y;
          a[i * k + q] = s * x + c * y;
        }
        for (size_t i = 0; i < k; ++i) {
          const double x = a[p * k + i], y = a[q * k + i];
          a[p * k + i] = c * x - s * y;
          a[q * k + i] = s * x + c * y;
          const double v = vectors[i * k + p], w = vectors[i * k + q];
          vectors[i * k + p] = c * v - s * w;
          vectors[i * k + q] = s * v + c * w;
        }
      }
    }
  }
  std::vector<double> values(k);
  for (size_t i = 0; i < k; ++i) values[i] = a[i * k + i];
  return values;
}

void scale_to_one(std::span<float> vector) {
  double square = 0;
  for (const float x : vector) square += double{x} * x;
  const float scale = square > 1e-24 ? static_cast<float>(1 / std::sqrt(square)) : 0.0F;
  for (float& x : vector) x *= scale;
}

/// Rows of U |L|^power of the `d` greatest eigenvalues, each of length 1: [n, d].
std::vector<float> eigenvectors(const Sparse& matrix, uint32_t d, double power, uint64_t seed) {
  const size_t n = matrix.n(), k = d + kOversampling;
  PhiloxStream random(seed);
  std::vector<float> q(n * k);
  for (float& x : q) x = random.next_normal();
  for (int i = 0; i < kIterations; ++i) {
    q = multiply(matrix, q, k);
    orthonormalise(q, k);
  }
  const std::vector<float> mq = multiply(matrix, q, k);
  std::vector<double> small(k * k);
  for (size_t row = 0; row < n; ++row) {
    for (size_t i = 0; i < k; ++i) {
      for (size_t j = 0; j < k; ++j) small[i * k + j] += double{q[row * k + i]} * mq[row * k + j];
    }
  }
  for (size_t i = 0; i < k; ++i) {
    for (size_t j = 0; j < i; ++j) small[i * k + j] = small[j * k + i] = (small[i * k + j] + small[j * k + i]) / 2;
  }
  std::vector<double> vectors;
  const std::vector<double> values = eigen(small, k, vectors);
  std::vector<size_t> order(k);
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return std::abs(values[a]) > std::abs(values[b]); });
  std::vector<float> rows(n * d);
  for (size_t row = 0; row < n; ++row) {
    for (size_t j = 0; j < d; ++j) {
      double sum = 0;
      for (size_t i = 0; i < k; ++i) sum += q[row * k + i] * vectors[i * k + order[j]];
      rows[row * d + j] = static_cast<float>(sum * std::pow(std::abs(values[order[j]]), power));
    }
    scale_to_one(std::span(rows).subspan(row * d, d));
  }
  return rows;
}

/// Vectors of pieces of words whose mean is close to the word's vector.
std::vector<float> fit_grams(const WordVectors& words) {
  const uint32_t d = words.options.dimension, n = words.options.n_grams;
  std::vector<float> grams(size_t{n} * d);
  std::vector<size_t> order(words.words.size());
  std::iota(order.begin(), order.end(), size_t{0});
  PhiloxStream random(words.options.seed, 1);
  std::vector<float> error(d);
  for (int epoch = 0; epoch < kGramEpochs; ++epoch) {
    for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random.next_below(i)]);
    for (const size_t word : order) {
      const std::vector<uint32_t> buckets = gram_buckets(words.words[word], n);
      if (buckets.empty()) continue;
      for (uint32_t j = 0; j < d; ++j) error[j] = words.vectors[word * d + j];
      const float part = 1.0F / static_cast<float>(buckets.size());
      for (const uint32_t bucket : buckets) {
        for (uint32_t j = 0; j < d; ++j) error[j] -= part * grams[size_t{bucket} * d + j];
      }
      for (const uint32_t bucket : buckets) {
        for (uint32_t j = 0; j < d; ++j) grams[size_t{bucket} * d + j] += kGramRate * error[j];
      }
    }
  }
  return grams;
}

/// The directions that pieces of the texts have most in common: the greatest eigenvectors of their second moment.
std::vector<float> common_directions(const WordVectors& words, const std::vector<std::vector<uint32_t>>& texts) {
  const size_t d = words.options.dimension, n_common = std::min<size_t>(words.options.n_common, d);
  size_t n_pieces = 0;
  for (const auto& text : texts) n_pieces += text.size() / kSentence;
  const size_t step = std::max<size_t>(1, n_pieces / kMostSentences);
  std::vector<double> moment(d * d);
  std::vector<float> sum(d);
  size_t number = 0;
  for (const auto& text : texts) {
    for (size_t begin = 0; begin + kSentence <= text.size(); begin += kSentence) {
      if (number++ % step != 0) continue;
      std::fill(sum.begin(), sum.end(), 0.0F);
      for (size_t i = begin; i < begin + kSentence; ++i) {
        const uint32_t word = text[i];
        if (word >= words.words.size()) continue;
        for (size_t j = 0; j < d; ++j) sum[j] += words.weights[word] * words.vectors[word * d + j];
      }
      scale_to_one(sum);
      for (size_t i = 0; i < d; ++i) {
        for (size_t j = 0; j < d; ++j) moment[i * d + j] += double{sum[i]} * sum[j];
      }
    }
  }
  std::vector<double> vectors;
  const std::vector<double> values = eigen(moment, d, vectors);
  std::vector<size_t> order(d);
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return values[a] > values[b]; });
  std::vector<float> common;
  for (size_t c = 0; c < n_common; ++c) {
    for (size_t j = 0; j < d; ++j) common.push_back(static_cast<float>(vectors[j * d + order[c]]));
  }
  return common;
}

}  // namespace

std::vector<uint32_t> gram_buckets(std::string_view word, uint32_t n_grams) {
  std::vector<uint32_t> buckets;
  if (n_grams == 0 || word.empty() || word.size() > 64) return buckets;
  const std::string marked = fmt::format("<{}>", word);
  std::vector<size_t> starts;  // of characters
  for (size_t at = 0; at < marked.size(); at += decode_utf8(std::string_view(marked).substr(at)).length)
    starts.push_back(at);
  starts.push_back(marked.size());
  for (size_t length = 3; length <= 5; ++length) {
    for (size_t i = 0; i + length < starts.size(); ++i) {
      const std::string_view gram = std::string_view(marked).substr(starts[i], starts[i + length] - starts[i]);
      buckets.push_back(static_cast<uint32_t>(XXH3_64bits(gram.data(), gram.size()) % n_grams));
    }
  }
  return buckets;
}

WordVectorTrainer::WordVectorTrainer(WordVectorOptions options) : options_(options) {
  if (options_.dimension < 2 || options_.dimension > 1024 || options_.window < 1 || options_.window > 100 ||
      options_.n_grams > (1U << 20) || options_.n_common > 16) {
    fail(ErrorCode::kInvalidArgument,
         "[train embedder] expected 2 to 1024 numbers, a window of 1 to 100, at most 2^20 pieces and 16 common "
         "directions,"
         " found {}, {}, {} and {}",
         options_.dimension, options_.window, options_.n_grams, options_.n_common);
  }
}

void WordVectorTrainer::add(std::string_view text) {
  std::vector<uint32_t>& numbers = texts_.emplace_back();
  for (std::string& word : words_of(text)) {
    const auto [at, is_new] = numbers_.try_emplace(word, static_cast<uint32_t>(words_.size()));
    if (is_new) {
      words_.push_back(std::move(word));
      counts_.push_back(0);
    }
    ++counts_[at->second];
    numbers.push_back(at->second);
  }
}

WordVectors WordVectorTrainer::train(const std::function<void(const char*)>& each) {
  WordVectors out;
  out.options = options_;
  std::vector<uint32_t> order(words_.size());
  std::iota(order.begin(), order.end(), 0U);
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    return counts_[a] != counts_[b] ? counts_[a] > counts_[b] : words_[a] < words_[b];
  });
  std::vector<uint32_t> place(words_.size(), UINT32_MAX);
  for (const uint32_t word : order) {
    out.n_tokens += counts_[word];
    if (counts_[word] < options_.min_count || out.words.size() >= options_.max_words) continue;
    place[word] = static_cast<uint32_t>(out.words.size());
    out.words.push_back(words_[word]);
    out.counts.push_back(counts_[word]);
  }
  const size_t n = out.words.size();
  if (n < 4 * size_t{options_.dimension + kOversampling}) {
    fail(ErrorCode::kInvalidArgument,
         "[train embedder] expected {} words that occur {} times for vectors of {} numbers, found {}",
         4 * (options_.dimension + kOversampling), options_.min_count, options_.dimension, n);
  }
  each("counting pairs of words");
  PairCounts counts;
  for (std::vector<uint32_t>& text : texts_) {
    for (uint32_t& word : text) word = place[word];
    for (size_t i = 0; i < text.size(); ++i) {
      if (text[i] == UINT32_MAX) continue;
      for (size_t o = 1; o <= options_.window && i + o < text.size(); ++o) {
        if (text[i + o] != UINT32_MAX) counts.add(text[i], text[i + o], static_cast<uint32_t>(options_.window + 1 - o));
      }
    }
  }
  each("mutual information");
  const Sparse matrix = mutual_information(counts.finish(), n);
  each("eigenvectors");
  out.vectors = eigenvectors(matrix, options_.dimension, options_.eigenvalue_power, options_.seed);
  for (const uint64_t count : out.counts) {
    const double p = static_cast<double>(count) / static_cast<double>(out.n_tokens);
    out.weights.push_back(static_cast<float>(options_.rare_weight / (options_.rare_weight + p)));
  }
  each("pieces of words");
  out.grams = fit_grams(out);
  each("common directions");
  out.common = common_directions(out, texts_);
  texts_.clear();
  return out;
}

}  // namespace mneme::recall
