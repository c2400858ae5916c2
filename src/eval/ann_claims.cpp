#include "eval/ann_claims.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>
#include <numeric>
#include <string>

#include "eval/ann_benchmark.h"
#include "recall/index/durable_file.h"
#include "recall/index/spann_index.h"
#include "recall/index/vector_mixture.h"

namespace mneme {
namespace {

using namespace ann;

constexpr const char* kPaper = "arXiv 2111.08566";

/// Vectors [n, dimension] of a mixture and 500 questions with their right answers.
AnnDataset mixture(size_t n, const MixtureOptions& options) {
  AnnDataset data;
  data.dimension = options.dimension;
  data.base.resize(n * data.dimension);
  data.queries.resize(500 * data.dimension);
  const VectorMixture rows(options);
  rows.rows(0, data.base);
  rows.rows(uint64_t{1} << 40, data.queries);
  find_ann_truth(data);
  return data;
}

/// 30000 vectors of 32 values in modes of one spread, or of spreads from 0.1 to 1.1.
AnnDataset small_mixture(bool mixed) {
  return mixture(30000, {.dimension = 32,
                         .least_spread = mixed ? 0.1f : 0.6f,
                         .most_spread = mixed ? 1.1f : 0.6f,
                         .centre_scale = 1,
                         .decay = 0});
}

/// An index over a data set, in a folder that goes with it.
class BuiltIndex {
 public:
  BuiltIndex(const AnnDataset& data, SpannOptions options) : data_(data) {
    static int count = 0;
    folder_ = (std::filesystem::temp_directory_path() / fmt::format("mneme_claim_{}_{}", ::getpid(), count++)).string();
    options.sync = false;
    index_ = SpannIndex::create(ledger_, folder_, data.dimension, data.metric, options);
    std::vector<uint64_t> ids(data.n_base());
    std::iota(ids.begin(), ids.end(), uint64_t{0});
    index_->add(ids, data.base);
    index_->save(folder_);
  }
  BuiltIndex(const BuiltIndex&) = delete;
  BuiltIndex& operator=(const BuiltIndex&) = delete;
  ~BuiltIndex() {
    index_.reset();
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }

  /// Recall and mean number of stored vectors that a question was compared with, heads left out.
  struct Point {
    double recall, scanned, pages;
  };
  Point ask(size_t lists, float prune) const {
    SearchParameters parameters;
    parameters.k = data_.k;
    parameters.lists = lists;
    parameters.prune = prune;
    const AnnPoint point = measure_ann(data_, 1, 0, [&](size_t i) {
      return index_->search(std::span(data_.queries).subspan(i * data_.dimension, data_.dimension), parameters);
    });
    const double n = static_cast<double>(point.n_queries);
    return {point.recall, static_cast<double>(point.cost.vectors_compared - point.cost.heads_visited) / n,
            static_cast<double>(point.cost.bytes_read) / n / kPageBytes};
  }
  const SpannIndex& index() const { return *index_; }

 private:
  const AnnDataset& data_;
  std::string folder_;
  Ledger ledger_;
  std::unique_ptr<SpannIndex> index_;
};

constexpr float kNoPruning = 1e30f;

SpannOptions with_copies(size_t copies, float rng_factor = SpannOptions().closure.rng_factor) {
  SpannOptions options;
  options.values = VectorType::kF32;
  options.closure.copies = copies;
  options.closure.rng_factor = rng_factor;
  options.closure.reach = kNoPruning;
  return options;
}

/// What a curve of growing cost has at `scanned`, between its points.
double recall_at(const std::vector<BuiltIndex::Point>& curve, double scanned) {
  for (size_t i = 1; i < curve.size(); ++i) {
    if (curve[i].scanned < scanned) continue;
    const double part = (scanned - curve[i - 1].scanned) / (curve[i].scanned - curve[i - 1].scanned);
    return curve[i - 1].recall + part * (curve[i].recall - curve[i - 1].recall);
  }
  return curve.back().recall;
}

/// The cost at which such a curve has `recall`; 0 when it never has.
double scanned_for(const std::vector<BuiltIndex::Point>& curve, double recall) {
  for (size_t i = 1; i < curve.size(); ++i) {
    if (curve[i].recall < recall) continue;
    const double part = (recall - curve[i - 1].recall) / (curve[i].recall - curve[i - 1].recall);
    return curve[i - 1].scanned + part * (curve[i].scanned - curve[i - 1].scanned);
  }
  return 0;
}

ClaimMeasurement closure_gain() {
  const AnnDataset data = small_mixture(false);
  const double with = BuiltIndex(data, with_copies(8)).ask(8, kNoPruning).recall;
  const double without = BuiltIndex(data, with_copies(1)).ask(8, kNoPruning).recall;
  return {with - without,
          fmt::format("{:.3f} over {:.3f}; 30000 vectors of 32 values, 8 lists read", with, without)};
}

ClaimMeasurement copies_saved() {
  const AnnDataset data = small_mixture(false);
  const BuiltIndex rule(data, with_copies(8)), nearest(data, with_copies(8, kNoPruning));
  std::vector<BuiltIndex::Point> curve;
  for (size_t lists = 1; lists <= 64; lists *= 2) curve.push_back(nearest.ask(lists, kNoPruning));
  const BuiltIndex::Point point = rule.ask(16, kNoPruning);
  return {point.recall - recall_at(curve, point.scanned),
          fmt::format("{:.2f} copies against {:.2f}, at {:.0f} vectors scanned; 30000 vectors of 32 values",
                      rule.index().stats().copies, nearest.index().stats().copies, point.scanned)};
}

ClaimMeasurement pruning_gain() {
  const AnnDataset data = small_mixture(true);
  const BuiltIndex index(data, with_copies(8));
  std::vector<BuiltIndex::Point> fixed;
  for (size_t lists = 4; lists <= 128; lists *= 2) fixed.push_back(index.ask(lists, kNoPruning));
  const BuiltIndex::Point pruned = index.ask(64, 2);
  const double without = recall_at(fixed, pruned.scanned), work = scanned_for(fixed, pruned.recall);
  // Fixed lists that never come so near are counted as the most that were tried.
  return {pruned.scanned / (work > 0 ? work : fixed.back().scanned),
          fmt::format("{:.0f} vectors against {} at recall@10 {:.4f}; at {:.0f} vectors misses {:.4f} against {:.4f}; 30000 "
                      "vectors, modes of unequal spread",
                      pruned.scanned, work > 0 ? fmt::format("{:.0f}", work) : "more than 128 lists have", pruned.recall,
                      pruned.scanned, 1 - pruned.recall, 1 - without)};
}

/// 60000 vectors of 128 values, uneven.
const AnnDataset& wide_data() {
  static const AnnDataset data = mixture(60000, {});
  return data;
}

ClaimMeasurement ram_share() {
  const AnnDataset& data = wide_data();
  const BuiltIndex built(data, {});
  const double raw = static_cast<double>(data.n_base() * data.dimension * sizeof(float));
  return {static_cast<double>(built.index().stats().ram_bytes) / raw,
          "by the ledger, over the bytes of 60000 vectors of 128 values in f32"};
}

ClaimMeasurement lists_for_recall() {
  const AnnDataset& data = wide_data();
  const BuiltIndex built(data, {});
  size_t lists = 1;
  while (lists < 1024 && built.ask(lists, 2).recall < 0.9) ++lists;
  const BuiltIndex::Point point = built.ask(lists, 2);
  return {static_cast<double>(lists),
          fmt::format("recall@10 {:.3f}, {:.1f} pages and {:.0f} vectors a question; 60000 vectors of 128 values",
                      point.recall, point.pages, point.scanned)};
}

ClaimMeasurement list_balance() {
  const BuiltIndex built(wide_data(), {});
  built.index().verify();  // throws when a vector has no copy
  const IndexStats stats = built.index().stats();
  return {static_cast<double>(stats.largest_list) / static_cast<double>(built.index().options().list_limit),
          fmt::format("{} lists, the longest of {}; every vector has a copy", stats.heads, stats.largest_list)};
}

}  // namespace

std::vector<Claim> ann_claims() {
  return {
      {"spann", kPaper, "Closure assignment finds what lies at the border of lists", "points of recall@10 at 8 lists",
       "0.82 to 0.97 in a trial of the method", 0.10, false, closure_gain},
      {"spann", kPaper, "The rule of relative neighbourhoods spends copies at least as well as the nearest lists do",
       "recall@10 more at equal vectors scanned", "within 0.01 or better", -0.01, false, copies_saved},
      {"spann", kPaper, "Reading fewer lists where the nearest head is near finds as much with less work",
       "of the vectors scanned with a fixed number of lists, at equal recall@10",
       "half to three quarters of queries need few lists", 0.6, true,
       pruning_gain},
      {"spann", kPaper, "Lists stay short", "of the limit", "posting limit", 1, true, list_balance},
      {"spann", kPaper, "Heads in RAM are a small part of the vectors", "of the bytes of the vectors",
       "12-16 % of the vectors as heads", 0.25, true, ram_share},
      {"spann", kPaper, "Nine of ten neighbours come from a few lists", "lists read for recall@10 0.9",
       "90 % of queries need 12", 16, true, lists_for_recall},
  };
}

}  // namespace mneme
