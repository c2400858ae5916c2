#include "eval/quant_study.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>

#include "base/error.h"
#include "engine/calibration.h"
#include "eval/perplexity.h"
#include "train/abacus/program_maker.h"
#include "train/export_adapter.h"
#include "train/trainer.h"

namespace mneme {
namespace {

namespace fs = std::filesystem;

constexpr uint32_t kWindow = 256, kSequences = 32;

/// A folder that goes when the study is over, also when it fails.
class TemporaryFolder {
 public:
  explicit TemporaryFolder(const std::string& parent) {
    const fs::path base = parent.empty() ? fs::temp_directory_path() : fs::path(parent);
    fs::create_directories(base);
    path_ = (base / "mneme-quant-study-XXXXXX").string();
    if (mkdtemp(path_.data()) == nullptr) fail_errno("quant-study", path_);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  std::string file(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

/// Bits and bytes of stored tensors.
struct Sizes {
  uint64_t bytes = 0, elements = 0, matrix_bytes = 0, matrix_elements = 0;

  void add(std::string_view name, const Shape& shape, uint64_t size) {
    bytes += size;
    elements += shape.elements();
    if (!name.starts_with("blk.") || shape.rank() < 2) return;
    matrix_bytes += size;
    matrix_elements += shape.elements();
  }
  void fill(StudyRow& row, uint64_t adapter_bytes) const {
    row.bytes = bytes + adapter_bytes;
    row.saved = 1 - static_cast<double>(row.bytes) / static_cast<double>(2 * elements);
    row.bits = 8.0 * static_cast<double>(matrix_bytes + adapter_bytes) / static_cast<double>(matrix_elements);
  }
};

class Study {
 public:
  Study(const std::string& model, const QuantStudyOptions& options,
        const std::function<void(size_t, const std::string&)>& progress)
      : model_(model), options_(options), progress_(progress), folder_(options.folder) {
    if (options.widths.empty() || options.calibrations.empty() || options.n_tasks == 0) {
      fail(ErrorCode::kInvalidArgument, "[quant-study] expected widths, calibrations and tasks, found none of one");
    }
    sources_ = train::open_sources(options.texts, {});
    if (sources_.texts == nullptr || !sources_.texts->has_passages()) {
      throw Error(ErrorCode::kInvalidArgument, "[quant-study] expected texts to calibrate on and to read, found none",
                  "give a file or folder with --text");
    }
    tasks_ = train::abacus::make_tasks(options.n_tasks, options.seed);
  }

  ModelStudy run() {
    out_.model = model_;
    {
      Ledger ledger;
      const auto engine = load(model_, {}, ledger);
      read_texts(engine->tokenizer());
      Sizes sizes;
      for (const NamedTensor& tensor : engine->file().tensors()) {
        sizes.add(tensor.name, tensor.view.shape, tensor.view.bytes());
      }
      out_.parameters = sizes.elements;
      sizes.fill(out_.original, 0);
      measure(*engine, out_.original);
      ++done_;
      for (const CalibrationSet& set : sets_) {
        say("calibrate on " + std::string(calibration_name(set.kind)));
        statistics_.push_back(statistics_of(*engine, set));
      }
    }
    for (const std::string& width : options_.widths) {
      for (size_t i = 0; i < sets_.size(); ++i) variant(width, i);
    }
    for (CalibrationSet& set : sets_) set.tokens.clear();
    out_.sets = std::move(sets_);
    compare();
    out_.verdicts = study_verdicts(out_);
    return std::move(out_);
  }

 private:
  void say(const std::string& note) const { progress_(done_, note); }

  std::unique_ptr<Engine> load(const std::string& path, const std::string& adapter, Ledger& ledger) const {
    PlanRequest request;
    request.context = kWindow;
    request.n_sequences = kSequences;
    if (!adapter.empty()) request.adapters.push_back({adapter, 1.0f});
    return Engine::load(path, request, ledger);
  }

  /// Calibration sets and the texts that perplexity is measured on, in the model's tokens.
  void read_texts(const Tokenizer& tokenizer) {
    const TaskOverlap overlap(tasks_, tokenizer);
    for (const CalibrationKind kind : options_.calibrations) {
      sets_.push_back(make_calibration_set(kind, options_.seed, options_.calibration_tokens, tokenizer,
                                           sources_.texts.get(), overlap));
    }
    PhiloxStream random(options_.seed, 0x68656C64);
    const auto gather = [&](const auto& piece) {
      std::vector<TokenId> tokens;
      while (tokens.size() < options_.perplexity_tokens) {
        const std::vector<TokenId> more = tokenizer.encode(piece(), {false, false});
        tokens.insert(tokens.end(), more.begin(), more.end());
      }
      tokens.resize(options_.perplexity_tokens);
      return tokens;
    };
    text_ = gather([&] { return sources_.texts->passage(random, train::Split::kHeldOut, 2000) + "\n"; });
    code_ = gather([&] { return train::abacus::make_program(random, train::Split::kHeldOut).text() + "\n"; });
  }

  static Calibration statistics_of(Engine& engine, const CalibrationSet& set) {
    CalibrationOptions how;
    how.window = kWindow;
    how.max_windows = (set.tokens.size() + kWindow - 1) / kWindow;
    how.wants_gram = [](const std::string& name) { return name.starts_with("blk."); };
    return calibrate(engine, set.tokens, how, [](uint64_t, uint64_t) {});
  }

  void measure(Engine& engine, StudyRow& row) const {
    PerplexityOptions how;
    how.window = kWindow;
    say(label(row) + ": perplexity");
    row.text_perplexity = perplexity(engine, text_, how, [](uint64_t, uint64_t) {}).perplexity;
    row.code_perplexity = perplexity(engine, code_, how, [](uint64_t, uint64_t) {}).perplexity;
    CompletionOptions options = options_.completions;
    options.seed = options_.seed;
    row.completions = complete_tasks(engine, tasks_, options, [&](uint64_t done, uint64_t all) {
      say(fmt::format("{}: {} of {} completions", label(row), done, all));
    });
  }

  static std::string label(const StudyRow& row) {
    if (row.format.empty()) return "original";
    return fmt::format("{}, {}{}", row.format, row.calibration, row.tuned ? ", tuned" : "");
  }

  void variant(const std::string& width, size_t set) {
    StudyRow row;
    row.calibration = calibration_name(sets_[set].kind);
    const std::string path = folder_.file("model.gguf");
    Sizes sizes;
    {
      Ledger ledger;
      const auto source = open_source(model_, ledger);
      const StudyFormat format = study_format(width, source->metadata(), source->tensors());
      row.width = format.width;
      row.format = format.recipe->name;
      QuantizeOptions how;
      how.recipe = format.recipe;
      how.calibration = &statistics_[set];
      const TranscodeReport report = quantize_model(
          *source, path, how, ledger, [&](uint64_t, const std::string& tensor) { say(label(row) + ": " + tensor); });
      for (const TensorReport& tensor : report.tensors) sizes.add(tensor.name, tensor.shape, tensor.bytes_after);
    }
    sizes.fill(row, 0);
    add(row, path, {});
    if (options_.tune_steps == 0) return;
    row.tuned = true;
    const std::string adapter = tune(path, sets_[set].kind, label(row));
    sizes.fill(row, fs::file_size(adapter));
    add(row, path, adapter);
  }

  void add(StudyRow row, const std::string& path, const std::string& adapter) {
    Ledger ledger;
    const auto engine = load(path, adapter, ledger);
    measure(*engine, row);
    row.against_original = PairedOutcomes::of(out_.original.completions.passed, row.completions.passed);
    row.p = row.against_original.p_value();
    row.task_p = by_task(out_.original, row);
    out_.rows.push_back(std::move(row));
    ++done_;
  }

  /// Trains an adapter that brings the quantised model nearer to the original; returns its file.
  std::string tune(const std::string& path, CalibrationKind kind, const std::string& name) const {
    const double text_share = kind == CalibrationKind::kGeneral ? 1.0 : kind == CalibrationKind::kCode ? 0.0 : 0.5;
    constexpr size_t kBatch = 8 * kWindow;
    train::Recipe recipe;
    recipe.name = "tuned";
    recipe.seed = options_.seed;
    recipe.micro_batch_tokens = kBatch;
    recipe.base = path;
    recipe.model.context = kWindow;
    train::AdapterOptions& adapter = recipe.adapter.emplace();
    adapter.rank = 4;
    adapter.alpha = 8;
    adapter.targets = {"all"};
    adapter.start = train::AdapterOptions::Start::kSvd;
    adapter.teacher.file = model_;
    recipe.sources = options_.texts;
    recipe.mixture.generated_dialogues = false;
    recipe.mixture.generated_programs = true;
    recipe.mixture.weights.text = 1.0f;
    recipe.rate.peak = 1e-3f;
    recipe.rate.warmup_steps = 10;
    recipe.rate.total_steps = options_.tune_steps;
    recipe.optimizer.adamw.weight_decay = 0;
    recipe.eval_every = 0;
    recipe.checkpoint_minutes = 1e6;
    recipe.stages = {{options_.tune_steps, kWindow, kBatch, text_share, 0.0, 0}};
    const std::string directory = folder_.file("tuning");
    fs::remove_all(directory);
    Ledger ledger;
    train::Trainer::Callbacks callbacks;
    callbacks.step = [&](const train::StepReport& step) {
      say(fmt::format("{}: step {} of {}", name, step.step, step.total_steps));
    };
    train::Trainer trainer(ledger, recipe, "", directory, false, callbacks);
    trainer.run();
    const std::string file = folder_.file("adapter.gguf");
    const ModelFile base = open_gguf(path);
    train::export_adapter(file, recipe.name, trainer.model(), adapter, base, DType::kF16);
    return file;
  }

  double by_task(const StudyRow& first, const StudyRow& second) const {
    std::vector<double> differences(tasks_.size());
    const size_t n = options_.completions.per_task;
    for (size_t i = 0; i < differences.size() * n; ++i) {
      differences[i / n] += second.completions.passed[i] - first.completions.passed[i];
    }
    return sign_flip_p_value(differences, options_.seed);
  }

  /// Adjusted p-values, and calibrations of one width against each other.
  void compare() {
    std::vector<double> p;
    for (const StudyRow& row : out_.rows) p.push_back(row.p);
    std::vector<double> adjusted = adjust_false_discoveries(p);
    for (size_t i = 0; i < p.size(); ++i) out_.rows[i].adjusted_p = adjusted[i];
    p.clear();
    for (size_t i = 0; i < out_.rows.size(); ++i) {
      for (size_t j = i + 1; j < out_.rows.size(); ++j) {
        const StudyRow &a = out_.rows[i], &b = out_.rows[j];
        if (a.width != b.width || a.tuned != b.tuned) continue;
        CalibrationPair pair{a.width, a.calibration, b.calibration, a.tuned, {}, {}};
        pair.difference = a.completions.pass_at_1() - b.completions.pass_at_1();
        pair.pairs = PairedOutcomes::of(a.completions.passed, b.completions.passed);
        pair.p = pair.pairs.p_value();
        pair.task_p = by_task(a, b);
        p.push_back(pair.p);
        out_.pairs.push_back(std::move(pair));
      }
    }
    adjusted = adjust_false_discoveries(p);
    for (size_t i = 0; i < p.size(); ++i) out_.pairs[i].adjusted_p = adjusted[i];
  }

  const std::string& model_;
  const QuantStudyOptions& options_;
  const std::function<void(size_t, const std::string&)>& progress_;
  TemporaryFolder folder_;
  train::DataSources sources_;
  std::vector<train::abacus::Task> tasks_;
  std::vector<CalibrationSet> sets_;
  std::vector<Calibration> statistics_;
  std::vector<TokenId> text_, code_;
  ModelStudy out_;
  size_t done_ = 0;
};

}  // namespace

ModelStudy study_quantization(const std::string& model, const QuantStudyOptions& options,
                              const std::function<void(size_t, const std::string&)>& progress) {
  return Study(model, options, progress).run();
}

size_t study_rows(const QuantStudyOptions& options) {
  return 1 + options.widths.size() * options.calibrations.size() * (options.tune_steps > 0 ? 2 : 1);
}

}  // namespace mneme
