#pragma once

#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "budget/buffer.h"
#include "train/tape/schedule.h"
#include "train/tape/scratch_file.h"

namespace mneme::train {

/// How long gradients of parameters are kept.
enum class GradientLife : uint8_t {
  kStep,    ///< All of them until the next step, so that several micro-batches add up.
  kUpdate,  ///< Each until `ready` has been called for it; its memory then serves the next one. One micro-batch a step.
};

/// Runs compiled steps of a program in one arena, which is as large as the largest schedule compiled so far.
/// Not thread-safe; the ops are parallel inside.
template <typename T>
class Executor {
 public:
  using GradReady = std::function<void(Parameter<T>&)>;

  /// The program and parameters must outlive the executor. Memory is taken from `ledger` under Tag::kActivation and,
  /// for training, under Tag::kGradient; Parameter::grad points there. Values with Saving::kOffload wait in a file in
  /// `scratch_folder`; empty: the folder of temporary files.
  Executor(Ledger& ledger, const Program<T>& program, std::vector<Parameter<T>*> parameters,
           GradientLife life = GradientLife::kStep, std::string scratch_folder = {});

  /// Compiles for batches of n_tokens if not done yet, and makes room for it. Throws Error(kOutOfBudget).
  const Schedule& prepare(size_t n_tokens, bool training);
  /// Forward and backward of one micro-batch; with GradientLife::kStep gradients are added to those of earlier calls
  /// since start_step(). `ready` (may be empty) is called for each parameter whose gradient is final for this
  /// micro-batch. Throws Error(kIo) when the scratch file fails; gradients are then undefined.
  void train(const Batch& batch, const GradReady& ready = {});
  /// Forward alone.
  void evaluate(const Batch& batch);

  /// The arena's address of a value after evaluate(), valid until the next call; for tests and samplers. The value must
  /// still be alive at the end of the schedule (an output of the last op).
  const T* last_value(ValueId value) const;

 private:
  void make_gradients(const Schedule& schedule);
  void run(const Schedule& schedule, const Batch& batch, const GradReady& ready);
  void transfer(const Schedule& schedule, const Instruction& instruction);

  Ledger& ledger_;
  const Program<T>& program_;
  std::vector<Parameter<T>*> parameters_;
  std::map<std::pair<size_t, bool>, std::unique_ptr<Schedule>> schedules_;
  const Schedule* last_ = nullptr;
  GradientLife life_;
  Buffer arena_, gradients_;
  std::string scratch_folder_;
  std::unique_ptr<ScratchFile> file_;  ///< Ends before the arena does.
  std::vector<uint64_t> tickets_;      ///< Of the transfers of the step.
};

/// Bytes that gradients take while one step of `schedule` runs.
template <typename T>
size_t gradient_bytes(const std::vector<Parameter<T>*>& parameters, const Schedule& schedule, GradientLife life);

extern template size_t gradient_bytes(const std::vector<Parameter<float>*>&, const Schedule&, GradientLife);
extern template size_t gradient_bytes(const std::vector<Parameter<double>*>&, const Schedule&, GradientLife);
extern template class Executor<float>;
extern template class Executor<double>;

}  // namespace mneme::train
