#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "train/optim/optimizer.h"
#include "train/tape/parameter.h"

/// Checkpoints of a training run: parameters that are not frozen, optimiser state and counters in one file, each array
/// with an XXH64 checksum, written completely or not at all. docs/formats/checkpoint.md has the byte layout.
namespace mneme::train {

/// Counters that belong to a checkpoint.
struct Progression {
  uint64_t step = 0;          ///< Optimiser steps done.
  uint64_t tokens = 0;        ///< Tokens trained on.
  double seconds = 0;         ///< Time spent training.
  double loss_average = 0;    ///< Running average for the log.
};

/// Writes a checkpoint. Throws Error(kIo); an older file under this path then stays valid.
void write_checkpoint(const std::string& path, const Progression& progression, const ParameterSet<float>& parameters,
                      Optimizer& optimizer);

/// Fills parameters and optimiser from a checkpoint of the same model and optimiser. Throws Error(kCorruptData) that names
/// the array when a checksum, size or name does not match; the contents are then undefined.
Progression read_checkpoint(const std::string& path, ParameterSet<float>& parameters, Optimizer* optimizer);

/// "checkpoint-00001200.bin" of a step.
std::string checkpoint_name(uint64_t step);
/// Paths of the checkpoints in a folder, newest first.
std::vector<std::string> list_checkpoints(const std::string& folder);

}  // namespace mneme::train
