#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "train/data/tokenizer_trainer.h"
#include "train/llama.h"

namespace mneme {

/// A small up-cycling experiment on a made-up language, for claims about mixtures of experts: a dense model is trained,
/// then turned into mixtures that see the same further tokens.
///
/// The language has topics; each symbol has four likely successors of its own in each topic, and the first symbol of a
/// sequence names its topic. So what a model must know grows with the topics, and a router can tell them apart.
class UpCycling {
 public:
  static constexpr size_t kSequence = 64, kBatchSequences = 8, kTopics = 8, kSymbols = 64;

  /// Trains the dense model for `dense_steps` steps and writes it into a folder of its own, which ends with this.
  UpCycling(size_t dense_steps, size_t further_steps);
  UpCycling(const UpCycling&) = delete;
  UpCycling& operator=(const UpCycling&) = delete;
  ~UpCycling();

  /// A model after the further steps; its loss on held-out sequences in nats a token, and its file with matrices in
  /// F32.
  struct Result {
    double loss = 0;
    std::string path;
    std::unique_ptr<train::LlamaModel<float>> model;
  };
  /// Null: the dense model goes on, all weights trained.
  const Result& run(const std::string& name, const train::ExpertOptions* experts, uint64_t seed);
  double dense_loss() const { return dense_loss_; }

  /// Loss of a file on the held-out sequences, as the engine runs it.
  double loss_of(const std::string& path);
  /// The same model with some matrices in other types; returns its path.
  std::string quantised(const std::string& path, const std::vector<std::pair<std::string, DType>>& types);
  /// Bytes of the feed-forward matrices of a file, routed and shared experts alike.
  static uint64_t expert_bytes(const std::string& path);
  /// Relative differences between the logits of training and of the engine, sorted, one a token of the held-out
  /// sequences, and how many tokens have another most likely id.
  std::pair<std::vector<double>, size_t> compare(const Result& result);

 private:
  std::vector<int32_t> sequence(uint64_t stream) const;
  void train(train::LlamaModel<float>& model, size_t n_steps, uint64_t seed, float rate);
  double held_out_loss(train::LlamaModel<float>& model);
  void write(const std::string& path, train::LlamaModel<float>& model);

  std::string folder_;
  size_t further_steps_;
  Ledger ledger_;
  std::vector<int32_t> successors_;  ///< [topics, symbols, 4]
  std::unique_ptr<train::TrainTokenizer> tokenizer_;
  std::unique_ptr<ModelFile> base_;
  double dense_loss_ = 0;
  std::vector<std::pair<std::string, std::unique_ptr<Result>>> results_;
};

}  // namespace mneme
