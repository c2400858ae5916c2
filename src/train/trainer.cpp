#include "train/trainer.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <numeric>
#include <utility>

#include "base/atomic_file.h"
#include "base/byte_size.h"
#include "base/error.h"
#include "base/log.h"
#include "budget/resident.h"
#include "train/activation_policy.h"
#include "train/adapter_start.h"
#include "train/data/story_source.h"
#include "train/sampler.h"

namespace mneme::train {
namespace {

constexpr uint64_t kEvalSeed = 0x6576616C;

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// The micro-batches of a step: slices of whole sequence slots. The loss is scaled by the weights of the whole step.
std::vector<Batch> micro_batches(const OwnedBatch& batch, size_t micro_tokens,
                                 std::vector<std::vector<uint32_t>>& starts) {
  const double scale = batch.view().loss_scale;
  std::vector<Batch> result;
  const size_t n = batch.tokens.size();
  starts.clear();
  for (size_t begin = 0; begin < n; begin += micro_tokens) {
    auto& own = starts.emplace_back();
    for (const uint32_t start : batch.sequence_starts) {
      if (start >= begin && start <= begin + micro_tokens) own.push_back(start - static_cast<uint32_t>(begin));
    }
  }
  for (size_t i = 0; i < starts.size(); ++i) {
    const size_t begin = i * micro_tokens;
    result.push_back({std::span(batch.tokens).subspan(begin, micro_tokens),
                      std::span(batch.targets).subspan(begin, micro_tokens),
                      std::span(batch.weights).subspan(begin, micro_tokens), starts[i], scale});
  }
  return result;
}

/// The largest part of the choices that fell on one expert of a layer, in the last micro-batch.
double busiest_expert(const LlamaModel<float>& model) {
  double most = 0;
  for (const ExpertLayer<float>& layer : model.expert_layers()) {
    for (const double share : layer.router->shares()) most = std::max(most, share);
  }
  return most;
}

}  // namespace

Trainer::Trainer(Ledger& ledger, Recipe recipe, const std::string& recipe_text, std::string directory, bool resume,
                 Callbacks callbacks)
    : ledger_(ledger), recipe_(std::move(recipe)), directory_(std::move(directory)), callbacks_(std::move(callbacks)) {
  std::filesystem::create_directories(directory_);
  if (!resume && !list_checkpoints(directory_).empty()) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("[train] expected an empty run directory, found checkpoints in {}", directory_),
                "continue with --resume or choose another --out");
  }
  AtomicFile copy(path("recipe.toml"));
  copy.write(recipe_text);
  copy.commit();
  log_ = std::make_unique<RunLog>(path("log.jsonl"));
  std::unique_ptr<ModelFile> base = open_base(recipe_);
  prepare_data();
  prepare_tokenizer(base.get());
  recipe_.model.vocabulary = tokenizer_->size();
  mixture_ = std::make_unique<Mixture>(*tokenizer_, sources_, recipe_.mixture, recipe_.seed);
  prepare_model(std::move(base));
  optimizer_ = make_optimizer(ledger_, model().trained_list(), recipe_.optimizer);
  bf16_weights_ = std::make_unique<Bf16Weights>(ledger_, model().parameters(), recipe_.seed);
  choose_saving();
  if (resume) restore();
}

Trainer::~Trainer() = default;

void Trainer::prepare_data() {
  std::vector<std::string> stories;
  if (!recipe_.story_model.empty()) {
    SampleOptions options;
    options.temperature = 0.75f;
    options.seed = recipe_.seed;
    stories = cached_stories(ledger_, recipe_path(recipe_.story_model), path("stories.txt"), recipe_.n_stories, options,
                             [&](size_t done) {
                               if (callbacks_.message)
                                 callbacks_.message(fmt::format("sampling stories: {} of {}", done, recipe_.n_stories));
                             });
  }
  sources_ = open_sources(recipe_.sources, std::move(stories));
}

void Trainer::prepare_tokenizer(const ModelFile* base) {
  const std::string file = path("tokenizer.model");
  if (std::filesystem::exists(file)) {
    tokenizer_ = std::make_unique<TrainTokenizer>(read_text_file(file));
    return;
  }
  if (base != nullptr) {
    tokenizer_ = std::make_unique<TrainTokenizer>(sentencepiece_model_of(*base));
  } else {
    if (callbacks_.message) callbacks_.message("training the tokenizer");
    const auto sample = tokenizer_sample(sources_, recipe_.mixture, recipe_.tokenizer_sample_chars, recipe_.seed);
    tokenizer_ = std::make_unique<TrainTokenizer>(TrainTokenizer::train(sample, recipe_.vocabulary));
  }
  AtomicFile out(file);
  out.write(tokenizer_->model());
  out.commit();
}

void Trainer::prepare_model(std::unique_ptr<ModelFile> base) {
  run_ = build_model(ledger_, std::move(base), recipe_);
  // Routers of experts are drawn, all else comes from the base.
  const bool loads = run_.base != nullptr && !recipe_.adapter;
  if (!loads || recipe_.experts) model().initialise(recipe_.seed);
  if (loads) load_weights(*run_.base, model());
  TeacherOptions teacher = recipe_.any_teacher();
  if (!teacher) return;
  teacher.file = recipe_path(teacher.file);
  distillation_ = std::make_unique<Distillation>(ledger_, teacher, model());
  if (recipe_.adapter && recipe_.adapter->start == AdapterOptions::Start::kSvd) {
    start_from_difference(ledger_, model(), distillation_->file(), recipe_.seed);
  }
  distillation_->prepare(recipe_.micro_batch_tokens);
}

void Trainer::choose_saving() {
  const GradientLife life = recipe_.optimizer.layerwise ? GradientLife::kUpdate : GradientLife::kStep;
  saving_name_ = fit_saving(ledger_, model(), recipe_.micro_batch_tokens, life, directory_).description();
  executor_ = std::make_unique<Executor<float>>(ledger_, model().program(), model().parameter_list(), life, directory_);
  executor_->prepare(recipe_.micro_batch_tokens, false);
  executor_->prepare(recipe_.micro_batch_tokens, true);
}

void Trainer::restore() {
  for (const std::string& file : list_checkpoints(directory_)) {
    try {
      progression_ = read_checkpoint(file, model().parameters(), optimizer_.get());
      return;
    } catch (const Error& e) {
      log().warn("{}; trying the one before", e.what());
    }
  }
  fail(ErrorCode::kNotFound, "[train] expected a valid checkpoint in {}, found none", directory_);
}

const StageOptions& Trainer::stage() const {
  const auto found = std::find_if(recipe_.stages.begin(), recipe_.stages.end(),
                                  [&](const StageOptions& s) { return progression_.step < s.until_step; });
  return found == recipe_.stages.end() ? recipe_.stages.back() : *found;
}

double Trainer::train_step() {
  const OwnedBatch batch = mixture_->batch(progression_.step, stage());
  std::vector<std::vector<uint32_t>> starts;
  const std::vector<Batch> micros = micro_batches(batch, recipe_.micro_batch_tokens, starts);
  const double loss = recipe_.optimizer.layerwise ? layerwise_step(micros) : whole_step(micros);
  progression_.step += 1;
  progression_.tokens += batch.tokens.size();
  return loss;
}

StepInfo Trainer::step_info(double norm) const {
  StepInfo info{progression_.step, recipe_.rate.at(progression_.step), 1.0f};
  if (recipe_.clip_norm > 0 && norm > recipe_.clip_norm) info.grad_scale = static_cast<float>(recipe_.clip_norm / norm);
  return info;
}

double Trainer::whole_step(const std::vector<Batch>& micros) {
  double loss = 0;
  model().parameters().start_step();
  for (const Batch& micro : micros) {
    if (distillation_ != nullptr) distillation_->see(micro);
    executor_->train(micro);
    loss += model().loss().loss();
  }
  const ParameterList parameters = model().trained_list();
  last_norm_ = gradient_norm(parameters);
  if (!std::isfinite(last_norm_)) {
    const auto bad = std::find_if(parameters.begin(), parameters.end(),
                                  [](const auto* p) { return !std::isfinite(gradient_norm(*p)); });
    refuse_not_finite(loss, bad == parameters.end() ? "the gradients" : "the gradient of " + (*bad)->name);
  }
  if (!std::isfinite(loss)) refuse_not_finite(loss, "the loss");
  const StepInfo info = step_info(last_norm_);
  for (size_t i = 0; i < parameters.size(); ++i) update(parameters, i, info);
  return loss;
}

void Trainer::update(const ParameterList& trained, size_t index, const StepInfo& info) {
  const uint64_t draw = progression_.step * trained.size() + index + 1;
  bf16_weights_->update(*trained[index], draw, [&] { optimizer_->update(index, info); });
}

double Trainer::layerwise_step(const std::vector<Batch>& micros) {
  const ParameterList parameters = model().trained_list();
  double squares = 0, loss = 0;
  for (size_t i = 0; i < micros.size(); ++i) {
    if (distillation_ != nullptr) distillation_->see(micros[i]);
    executor_->train(micros[i], [&](Parameter<float>& parameter) {
      const double norm = gradient_norm(parameter);
      if (!std::isfinite(norm)) refuse_not_finite(model().loss().loss(), "the gradient of " + parameter.name);
      squares += norm * norm;
      const auto at = std::find(parameters.begin(), parameters.end(), &parameter) - parameters.begin();
      const auto index = static_cast<size_t>(at);
      if (micros.size() == 1) {
        update(parameters, index, step_info(norm));
      } else {
        optimizer_->gather(index, step_info(norm), {i == 0, i + 1 == micros.size()});
      }
    });
    loss += model().loss().loss();
  }
  last_norm_ = std::sqrt(squares);
  if (!std::isfinite(loss)) refuse_not_finite(loss, "the loss");
  return loss;
}

void Trainer::refuse_not_finite(double loss, const std::string& where) const {
  const auto checkpoints = list_checkpoints(directory_);
  throw Error(
      ErrorCode::kCorruptData,
      fmt::format("[train] step {}: expected finite numbers, found a loss of {} and NaN or infinity in {}",
                  progression_.step, loss, where),
      checkpoints.empty() ? "no checkpoint was written yet" : "the last good checkpoint is " + checkpoints.front());
}

void Trainer::save() {
  write_checkpoint(path(checkpoint_name(progression_.step)), progression_, model().parameters(), *optimizer_);
  const auto checkpoints = list_checkpoints(directory_);
  for (size_t i = recipe_.keep_checkpoints; i < checkpoints.size(); ++i) std::filesystem::remove(checkpoints[i]);
}

double Trainer::held_out_loss(size_t n_tokens) {
  if (sources_.texts == nullptr) {
    fail(ErrorCode::kInvalidArgument, "[train] expected texts to measure a loss on, found none in the recipe");
  }
  return measure_text_loss(*executor_, model(), *tokenizer_, *sources_.texts, n_tokens, recipe_.micro_batch_tokens,
                           kEvalSeed);
}

void Trainer::evaluate() {
  const size_t batch_tokens = recipe_.micro_batch_tokens;
  Json line = {{"event", "eval"}, {"step", progression_.step}, {"tokens", progression_.tokens}};
  constexpr size_t kLossTokens = 8192;
  if (sources_.texts != nullptr) line["text_loss"] = held_out_loss(kLossTokens);
  if (sources_.chat != nullptr) {
    line["chat_loss"] =
        measure_chat_loss(*executor_, model(), *tokenizer_, *sources_.chat, kLossTokens, batch_tokens, kEvalSeed);
  }
  for (const size_t distance : recipe_.eval_distances) {
    // Distances far beyond what was trained so far say nothing and cost the most.
    if (!recipe_.mixture.generated_dialogues || distance > 2 * stage().sequence_tokens) continue;
    const RecallScore score = measure_recall(*executor_, model(), *tokenizer_, *sources_.texts, distance,
                                             recipe_.eval_probes, batch_tokens, kEvalSeed);
    line["recall"].push_back({{"distance", distance},
                              {"value", score.value},
                              {"answer", score.answer},
                              {"refusal", score.refusal},
                              {"answerable", score.n_answerable},
                              {"refusals", score.n_refusal}});
  }
  const size_t most = std::min<size_t>(recipe_.model.context, 96);
  Sampler sampler(ledger_, model(), 1, most);
  const WeightedTokens prompt =
      encode_dialogue(*tokenizer_, std::vector<Turn>{{Speaker::kUser, TurnKind::kChatter, "Tell me a story."}}, {});
  std::vector<int32_t> ids = prompt.ids;
  ids.push_back(tokenizer_->id_of(TrainTokenizer::kAssistantMark));
  SampleOptions options;
  options.seed = progression_.step;
  line["sample"] = tokenizer_->decode(sampler.run({ids}, tokenizer_->id_of(TrainTokenizer::kEndMark), options)[0]);
  log_->write(line);
}

Json Trainer::planned_bytes() const {
  Json bytes = Json::object();
  for (const Tag tag : {Tag::kWeights, Tag::kGradient, Tag::kOptimizer, Tag::kActivation, Tag::kScratch}) {
    bytes[std::string(tag_name(tag))] = ledger_.used(Tier::kRam, tag);
  }
  if (const uint64_t disk = ledger_.used(Tier::kDisk)) bytes["disk"] = disk;
  return bytes;
}

bool Trainer::run() {
  log_->write({{"event", "start"},
               {"step", progression_.step},
               {"name", recipe_.name},
               {"parameters", model().parameters().n_values()},
               {"trained", model().parameters().n_trained()},
               {"optimizer", optimizer_->name()},
               {"saving", saving_name_},
               {"quantization", recipe_.weight_rounding.name()},
               {"precision", recipe_.rounding.operands == 0 ? "" : recipe_.rounding.format.name()},
               {"plan", memory_plan()},
               {"bytes", planned_bytes()}});
  double last_save = seconds_now();
  const size_t total = recipe_.rate.total_steps;
  double recent_rate = 0;
  while (progression_.step < total) {
    const double begin = seconds_now();
    const uint64_t tokens_before = progression_.tokens;
    const float rate = recipe_.rate.at(progression_.step);
    const double loss = train_step();
    const double took = seconds_now() - begin;
    progression_.seconds += took;
    progression_.loss_average = progression_.step == 1 ? loss : 0.98 * progression_.loss_average + 0.02 * loss;
    const double tokens = static_cast<double>(progression_.tokens - tokens_before);
    recent_rate = recent_rate == 0 ? tokens / took : 0.95 * recent_rate + 0.05 * tokens / took;
    const StepReport report{progression_.step,
                            total,
                            progression_.tokens,
                            loss,
                            progression_.loss_average,
                            last_norm_,
                            recent_rate,
                            static_cast<double>(total - progression_.step) * tokens / recent_rate,
                            rate};
    Json line = {{"event", "step"},
                 {"step", report.step},
                 {"tokens", report.tokens},
                 {"loss", loss},
                 {"loss_average", report.loss_average},
                 {"gradient_norm", last_norm_},
                 {"rate", rate},
                 {"seconds", took},
                 {"resident_bytes", resident_bytes()},
                 {"sequence", stage().sequence_tokens}};
    for (const auto& [name, value] : optimizer_->measures()) line[name] = value;
    if (recipe_.experts) line["busiest_expert"] = busiest_expert(model());
    log_->write(line);
    if (callbacks_.step) callbacks_.step(report);
    if (recipe_.eval_every > 0 && progression_.step % recipe_.eval_every == 0) evaluate();
    const bool stop = callbacks_.stop && callbacks_.stop();
    if (stop || progression_.step == total || seconds_now() - last_save >= recipe_.checkpoint_minutes * 60) {
      save();
      last_save = seconds_now();
    }
    if (stop && progression_.step < total) return false;
  }
  const Json metrics = {{"steps", progression_.step},
                        {"tokens", progression_.tokens},
                        {"seconds", progression_.seconds},
                        {"loss_average", progression_.loss_average}};
  AtomicFile out(path("metrics.json"));
  out.write(metrics.dump(2) + "\n");
  out.commit();
  return true;
}

std::string Trainer::memory_plan() const {
  const auto used = [&](Tag tag) { return format_byte_size(ledger_.used(Tier::kRam, tag)); };
  const uint64_t disk = ledger_.used(Tier::kDisk, Tag::kActivation);
  return fmt::format("weights {}, gradients {}, optimizer {}, activations {} ({}), scratch {}{}", used(Tag::kWeights),
                     used(Tag::kGradient), used(Tag::kOptimizer), used(Tag::kActivation), saving_name_,
                     used(Tag::kScratch), disk == 0 ? "" : ", activations on disk " + format_byte_size(disk));
}

}  // namespace mneme::train
