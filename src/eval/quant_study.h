#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "eval/calibration_set.h"
#include "eval/completions.h"
#include "eval/paired_outcomes.h"
#include "eval/study_format.h"
#include "train/data/sources.h"

/// How few bits a model that writes code bears, and what the calibration text has to do with it: the study of arXiv
/// 2503.07103 with small models that write Abacus (train/abacus). Each model is stored in each width after each
/// calibration text, writes each task some times, and what it writes is run. Pass or fail of a completion is paired
/// with that of the original for the same task and the same draws.
///
/// Not here: Python, Java and their benchmarks; fine-tuning of codebooks, for which a low-rank adapter stands.
namespace mneme {

struct QuantStudyOptions {
  std::vector<std::string> widths = {"8", "4", "3", "2"};  ///< As study_format() takes them.
  std::vector<CalibrationKind> calibrations = {CalibrationKind::kGeneral, CalibrationKind::kCode,
                                               CalibrationKind::kMixed};
  size_t n_tasks = 200;
  uint64_t seed = 1;  ///< Of tasks, draws and calibration texts.
  CompletionOptions completions;
  size_t calibration_tokens = 16384;
  size_t perplexity_tokens = 8192;  ///< Of held-out text, and of held-out programs.
  train::SourceOptions texts;       ///< Where general text comes from.
  /// Steps of an adapter that is trained on each quantised model, on the kind of its calibration, against the
  /// original's probabilities (train/adapter.h); 0: none. Each variant then has a second row.
  uint32_t tune_steps = 0;
  std::string folder;  ///< For files that go again; empty: that for temporary files.
};

/// A model in one form.
struct StudyRow {
  std::string width, format, calibration;  ///< Empty for the original.
  bool tuned = false;
  double bits = 0;     ///< A weight of the layers' matrices, scales and codebooks included; an adapter's factors too.
  uint64_t bytes = 0;  ///< Of all tensors, and of the adapter's.
  double saved = 0;    ///< Part of what all tensors take in 16 bits.
  double text_perplexity = 0, code_perplexity = 0;
  CompletionOutcomes completions;
  PairedOutcomes against_original;  ///< First: the original.
  double p = 1;                     ///< McNemar, over completions, which of one task are not independent;
  double adjusted_p = 1;            ///< the same among all rows of the model;
  double task_p = 1;                ///< sign_flip_p_value() over tasks.
};

/// Two calibrations of one width.
struct CalibrationPair {
  std::string width, first, second;
  bool tuned = false;
  double difference = 0;  ///< pass@1 of the first less that of the second.
  PairedOutcomes pairs;
  double p = 1, adjusted_p = 1, task_p = 1;
};

/// What the paper found, and whether it is so here.
struct StudyVerdict {
  std::string text, how;
  bool holds = false;
};

struct ModelStudy {
  std::string model;
  uint64_t parameters = 0;
  StudyRow original;
  std::vector<StudyRow> rows;
  std::vector<CalibrationPair> pairs;
  std::vector<CalibrationSet> sets;  ///< Without their tokens.
  std::vector<StudyVerdict> verdicts;
};

/// Measures one model. `progress` is told rows done and what is going on. Throws Error.
ModelStudy study_quantization(const std::string& model, const QuantStudyOptions& options,
                              const std::function<void(size_t done, const std::string& note)>& progress);
/// Rows that study_quantization() measures, the original among them.
size_t study_rows(const QuantStudyOptions& options);

/// The findings of the paper about widths and calibration that `study` has rows for. Significant: adjusted p below
/// 0.05.
std::vector<StudyVerdict> study_verdicts(const ModelStudy& study);

}  // namespace mneme
