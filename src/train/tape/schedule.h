#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "train/tape/program.h"
#include "train/tape/storage_plan.h"

namespace mneme::train {

/// What a planned buffer holds.
enum class BufferKind : uint8_t { kSaved, kTemporary, kGradient, kScratch };

/// A buffer of the arena and the instructions between which it is in use.
struct PlannedBuffer {
  BufferKind kind;
  ValueId value;  ///< Unused for scratch.
  StorageRequest request;
};

constexpr uint32_t kNoBuffer = ~uint32_t{0};

/// One entry of a compiled step. Operands are indices of planned buffers.
struct Instruction {
  enum class Kind : uint8_t {
    kForward,
    kRecompute,
    kBackward,
    kGradReady,
    kTransfer,  ///< Starts a transfer between arena and file.
    kAwait,     ///< Waits for a transfer and all before it.
  } kind;
  uint32_t op = 0;         ///< kForward, kRecompute, kBackward
  uint32_t parameter = 0;  ///< kGradReady: index in the order given to compile()
  uint32_t transfer = 0;   ///< kTransfer, kAwait: index in Schedule::transfers
  size_t first_row = 0;    ///< kRecompute: rows before this one are there already.
  std::array<uint32_t, kMaxOperands> in{}, out{}, grad_in{}, grad_out{};
  std::array<bool, kMaxOperands> accumulate{};
  uint32_t scratch = kNoBuffer;
};

/// The first rows of a buffer, to the file or back.
struct Transfer {
  uint32_t buffer;
  size_t bytes, file_offset;  ///< Multiples of kTransferAlign.
  bool write;
};

/// A program compiled for one number of tokens: the instructions of a step and a fixed address for every buffer.
struct Schedule {
  size_t n_tokens = 0;
  std::vector<Instruction> instructions;
  std::vector<PlannedBuffer> buffers;
  StoragePlan storage;
  /// Places of parameter gradients, in the order given to compile(), when each is used up at its kGradReady: it lives
  /// from the first op that adds to it. Frozen parameters have none.
  StoragePlan gradients;
  std::vector<Transfer> transfers;  ///< In the order in which they start.
  size_t file_bytes = 0;            ///< Size of the scratch file.

  /// Most bytes alive at one instruction that belong to buffers of `kind`.
  size_t peak_of(BufferKind kind) const;
};

/// Compiles forward and backward with the values' saving policies, or forward alone when `training` is false.
/// `parameters` gives the numbering for kGradReady, which follows the last backward op that writes the gradient.
template <typename T>
Schedule compile(const Program<T>& program, const std::vector<Parameter<T>*>& parameters, size_t n_tokens,
                 bool training);

extern template Schedule compile(const Program<float>&, const std::vector<Parameter<float>*>&, size_t, bool);
extern template Schedule compile(const Program<double>&, const std::vector<Parameter<double>*>&, size_t, bool);

}  // namespace mneme::train
