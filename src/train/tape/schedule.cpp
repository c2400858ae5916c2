#include "train/tape/schedule.h"

#include <algorithm>

#include "base/checked_math.h"
#include "base/error.h"
#include "train/tape/scratch_file.h"

namespace mneme::train {
namespace {

constexpr uint32_t kNoLayer = ~uint32_t{0};
constexpr size_t kRowBlock = 64;  ///< Parts of a value are whole blocks of rows.
constexpr size_t kSearchMoves = 300;

bool has_bit(uint32_t bits, size_t i) {
  return ((bits >> i) & 1u) != 0;
}

template <typename T>
class Compiler {
 public:
  Compiler(const Program<T>& program, const std::vector<Parameter<T>*>& parameters, size_t n_tokens, bool training)
      : program_(program), parameters_(parameters), training_(training) {
    schedule_.n_tokens = n_tokens;
    const size_t n_values = program.values().size();
    current_.assign(n_values, kNoBuffer);
    grad_.assign(n_values, kNoBuffer);
    producer_.assign(n_values, kNoBuffer);
    needed_.assign(n_values, false);
    first_needed_.assign(n_values, 0);
    valid_from_.assign(n_values, n_tokens);
    read_.assign(n_values, kNoBuffer);
    file_offset_.assign(n_values, 0);
    for (uint32_t i = 0; i < program.ops().size(); ++i) {
      const Op<T>& op = *program.ops()[i];
      if (op.inputs.size() > kMaxOperands || op.outputs.size() > kMaxOperands) {
        fail(ErrorCode::kInvalidArgument, "[program] expected at most {} operands, found more in op {}", kMaxOperands,
             op.kind());
      }
      for (const ValueId out : op.outputs) producer_[out] = i;
      for (size_t k = 0; k < op.inputs.size(); ++k) {
        if (has_bit(op.needs_inputs(), k)) note_need(op.inputs[k], op.layer);
      }
      for (size_t k = 0; k < op.outputs.size(); ++k) {
        if (has_bit(op.needs_outputs(), k)) note_need(op.outputs[k], op.layer);
      }
    }
  }

  Schedule run() {
    const auto n_ops = static_cast<uint32_t>(program_.ops().size());
    for (uint32_t i = 0; i < n_ops; ++i) {
      if (training_ && program_.ops()[i]->forward_in_backward()) continue;
      if (training_) await_writes(program_.ops()[i]->layer);
      emit_forward(i, Instruction::Kind::kForward, 0);
      if (training_) start_writes(*program_.ops()[i]);
    }
    if (training_) {
      await_writes(kNoLayer);
      drop_values_to_recompute();
      find_last_gradients();
      gradients_.resize(parameters_.size());
      for (uint32_t i = n_ops; i-- > 0;) {
        // What the layer below needs is read while this one is computed.
        const uint32_t layer = program_.ops()[i]->layer;
        start_reads(layer == 0 ? 0 : layer - 1);
        emit_backward(i);
      }
    }
    std::vector<StorageRequest> requests;
    requests.reserve(schedule_.buffers.size());
    for (const PlannedBuffer& buffer : schedule_.buffers) requests.push_back(buffer.request);
    schedule_.storage = schedule_.file_bytes == 0 ? plan_storage(requests)
                                                  : plan_storage(requests, kSearchMoves, kTransferAlign);
    schedule_.gradients = plan_storage(gradients_);
    return std::move(schedule_);
  }

 private:
  uint32_t now() const { return static_cast<uint32_t>(schedule_.instructions.size()); }

  uint32_t new_buffer(BufferKind kind, ValueId value, size_t bytes) {
    schedule_.buffers.push_back({kind, value, {bytes, now(), now()}});
    return static_cast<uint32_t>(schedule_.buffers.size() - 1);
  }

  uint32_t new_value_buffer(BufferKind kind, ValueId value) {
    return new_buffer(kind, value, schedule_.n_tokens * program_.values()[value].columns * sizeof(T));
  }

  /// Notes that the instruction being built uses the buffer.
  uint32_t use(uint32_t buffer) {
    schedule_.buffers[buffer].request.end = now();
    return buffer;
  }

  /// Computes the rows from first_row on. Outputs whose first rows came from the file go to the buffer of those.
  void emit_forward(uint32_t index, Instruction::Kind kind, size_t first_row) {
    const Op<T>& op = *program_.ops()[index];
    Instruction instruction{kind, index};
    instruction.first_row = first_row;
    for (size_t k = 0; k < op.inputs.size(); ++k) instruction.in[k] = use(current_[op.inputs[k]]);
    for (size_t k = 0; k < op.outputs.size(); ++k) {
      const ValueId out = op.outputs[k];
      const bool was_read = read_[out] != kNoBuffer;
      if (!was_read) {
        const bool saved = training_ && needed_[out];
        current_[out] = new_value_buffer(saved ? BufferKind::kSaved : BufferKind::kTemporary, out);
      }
      instruction.out[k] = use(current_[out]);
      valid_from_[out] = was_read && offloaded_rows(out) >= first_row ? 0 : first_row;
    }
    const size_t scratch = op.forward_scratch_bytes(schedule_.n_tokens);
    if (scratch > 0) instruction.scratch = new_buffer(BufferKind::kScratch, 0, scratch);
    schedule_.instructions.push_back(instruction);
  }

  /// After forward, values that are not kept are unknown until they are computed again.
  void drop_values_to_recompute() {
    for (ValueId value = 0; value < current_.size(); ++value) {
      if (needed_[value] && program_.values()[value].saving == Saving::kKeep) continue;
      current_[value] = kNoBuffer;
      valid_from_[value] = schedule_.n_tokens;
    }
  }

  void note_need(ValueId value, uint32_t layer) {
    needed_[value] = true;
    first_needed_[value] = std::max(first_needed_[value], layer);
  }

  /// Rows of a value that wait in the file.
  size_t offloaded_rows(ValueId value) const {
    const ValueInfo& info = program_.values()[value];
    if (!needed_[value] || info.saving != Saving::kOffload || producer_[value] == kNoBuffer) return 0;
    const size_t n = schedule_.n_tokens;
    if (!program_.ops()[producer_[value]]->row_wise()) return n;
    const auto rows = static_cast<size_t>(std::clamp(info.offloaded_share, 0.0, 1.0) * static_cast<double>(n));
    return rows == n ? n : rows / kRowBlock * kRowBlock;
  }

  /// Starts a transfer of the first rows of a value's buffer.
  void emit_transfer(ValueId value, bool write) {
    const size_t bytes = offloaded_rows(value) * program_.values()[value].columns * sizeof(T);
    Instruction instruction{Instruction::Kind::kTransfer};
    instruction.transfer = static_cast<uint32_t>(schedule_.transfers.size());
    schedule_.transfers.push_back(
        {use(current_[value]), round_up(bytes, kTransferAlign), file_offset_[value], write});
    schedule_.instructions.push_back(instruction);
  }

  /// The buffer stays until here.
  void emit_await(uint32_t transfer) {
    use(schedule_.transfers[transfer].buffer);
    Instruction instruction{Instruction::Kind::kAwait};
    instruction.transfer = transfer;
    schedule_.instructions.push_back(instruction);
  }

  void start_writes(const Op<T>& op) {
    for (const ValueId out : op.outputs) {
      const size_t rows = offloaded_rows(out);
      if (rows == 0) continue;
      file_offset_[out] = schedule_.file_bytes;
      schedule_.file_bytes += round_up(rows * program_.values()[out].columns * sizeof(T), kTransferAlign);
      pending_writes_.push_back({op.layer, static_cast<uint32_t>(schedule_.transfers.size())});
      emit_transfer(out, true);
    }
  }

  /// Before an op of `layer`: the buffers of layers two below must be free, as if two took turns.
  void await_writes(uint32_t layer) {
    size_t n = 0;
    while (n < pending_writes_.size() && (layer == kNoLayer || pending_writes_[n].first + 2 <= layer)) ++n;
    if (n == 0) return;
    for (size_t i = 0; i < n; ++i) use(schedule_.transfers[pending_writes_[i].second].buffer);
    emit_await(pending_writes_[n - 1].second);
    pending_writes_.erase(pending_writes_.begin(), pending_writes_.begin() + static_cast<std::ptrdiff_t>(n));
  }

  /// Starts to read what backward needs in layers from `layer` up, in the order of need.
  void start_reads(uint32_t layer) {
    if (layer >= reads_started_) return;
    reads_started_ = layer;
    for (auto value = static_cast<ValueId>(current_.size()); value-- > 0;) {
      if (first_needed_[value] >= layer && read_[value] == kNoBuffer && offloaded_rows(value) > 0) start_read(value);
    }
  }

  void start_read(ValueId value) {
    current_[value] = new_value_buffer(BufferKind::kSaved, value);
    read_[value] = static_cast<uint32_t>(schedule_.transfers.size());
    emit_transfer(value, false);
  }

  /// Makes the rows of a value from first_row on available for backward: reads them and computes them, and what they
  /// depend on, again where they were dropped.
  void ensure(ValueId value, size_t first_row) {
    if (current_[value] != kNoBuffer && valid_from_[value] <= first_row) return;
    const size_t n_read = offloaded_rows(value);
    if (n_read > 0) {
      if (read_[value] == kNoBuffer) start_read(value);
      emit_await(read_[value]);
      valid_from_[value] = n_read == schedule_.n_tokens ? 0 : schedule_.n_tokens;
      if (valid_from_[value] == 0) return;
      first_row = n_read;
    }
    const Op<T>& op = *program_.ops()[producer_[value]];
    if (!op.row_wise()) first_row = 0;
    for (const ValueId input : op.inputs) ensure(input, first_row);
    // A transfer into another output must not come after its rows were computed.
    for (const ValueId out : op.outputs) {
      if (out != value && read_[out] != kNoBuffer) emit_await(read_[out]);
    }
    emit_forward(producer_[value], Instruction::Kind::kRecompute, first_row);
  }

  void find_last_gradients() {
    last_gradient_.assign(parameters_.size(), kNoBuffer);
    for (uint32_t i = static_cast<uint32_t>(program_.ops().size()); i-- > 0;) {
      for (const Parameter<T>* parameter : program_.ops()[i]->parameters) {
        last_gradient_[index_of(parameter)] = i;
      }
    }
  }

  size_t index_of(const Parameter<T>* parameter) const {
    const auto found = std::find(parameters_.begin(), parameters_.end(), parameter);
    if (found == parameters_.end()) {
      fail(ErrorCode::kInvalidArgument, "[program] expected a parameter of the model, found {}", parameter->name);
    }
    return static_cast<size_t>(found - parameters_.begin());
  }

  void emit_backward(uint32_t index) {
    const Op<T>& op = *program_.ops()[index];
    for (size_t k = 0; k < op.inputs.size(); ++k) {
      if (has_bit(op.needs_inputs(), k)) ensure(op.inputs[k], 0);
    }
    for (size_t k = 0; k < op.outputs.size(); ++k) {
      if (has_bit(op.needs_outputs(), k)) ensure(op.outputs[k], 0);
    }
    Instruction instruction{Instruction::Kind::kBackward, index};
    instruction.in.fill(kNoBuffer);
    instruction.out.fill(kNoBuffer);
    instruction.grad_in.fill(kNoBuffer);
    instruction.grad_out.fill(kNoBuffer);
    for (size_t k = 0; k < op.inputs.size(); ++k) {
      if (has_bit(op.needs_inputs(), k)) instruction.in[k] = use(current_[op.inputs[k]]);
    }
    for (size_t k = 0; k < op.outputs.size(); ++k) {
      if (has_bit(op.needs_outputs(), k)) instruction.out[k] = use(current_[op.outputs[k]]);
      if (has_bit(op.outputs_without_grad(), k)) continue;
      if (grad_[op.outputs[k]] == kNoBuffer) {
        fail(ErrorCode::kInvalidArgument, "[program] expected value {} to reach the loss, found no gradient for it",
             program_.values()[op.outputs[k]].name);
      }
      instruction.grad_out[k] = use(grad_[op.outputs[k]]);
    }
    for (size_t k = 0; k < op.inputs.size(); ++k) {
      const ValueId in = op.inputs[k];
      instruction.accumulate[k] = grad_[in] != kNoBuffer;
      if (grad_[in] == kNoBuffer) grad_[in] = new_value_buffer(BufferKind::kGradient, in);
      instruction.grad_in[k] = use(grad_[in]);
    }
    const size_t scratch = op.backward_scratch_bytes(schedule_.n_tokens);
    if (scratch > 0) instruction.scratch = new_buffer(BufferKind::kScratch, 0, scratch);
    for (const Parameter<T>* parameter : op.parameters) use_gradient(*parameter);
    schedule_.instructions.push_back(instruction);
    for (uint32_t p = 0; p < parameters_.size(); ++p) {
      if (last_gradient_[p] != index || parameters_[p]->frozen) continue;
      Instruction ready{Instruction::Kind::kGradReady};
      ready.parameter = p;
      gradients_[p].end = now();
      schedule_.instructions.push_back(ready);
    }
  }

  /// Notes that the instruction being built adds to a gradient.
  void use_gradient(const Parameter<T>& parameter) {
    if (parameter.frozen) return;
    StorageRequest& request = gradients_[index_of(&parameter)];
    if (request.bytes == 0) request = {parameter.size() * sizeof(T), now(), now()};
  }

  const Program<T>& program_;
  const std::vector<Parameter<T>*>& parameters_;
  bool training_;
  Schedule schedule_;
  std::vector<uint32_t> current_, grad_, producer_, last_gradient_;
  std::vector<bool> needed_;
  std::vector<uint32_t> first_needed_;  ///< Layer of the first op of backward that needs the value.
  std::vector<size_t> valid_from_;      ///< First row of current_ that holds the value.
  std::vector<uint32_t> read_;          ///< Transfer that brings the value back, once it was started.
  std::vector<size_t> file_offset_;
  std::vector<std::pair<uint32_t, uint32_t>> pending_writes_;  ///< Layer and transfer.
  uint32_t reads_started_ = kNoLayer;   ///< Values needed in this layer and above were asked for.
  std::vector<StorageRequest> gradients_;
};

}  // namespace

size_t Schedule::peak_of(BufferKind kind) const {
  std::vector<StorageRequest> of_kind;
  for (const PlannedBuffer& buffer : buffers) {
    if (buffer.kind == kind) of_kind.push_back(buffer.request);
  }
  return plan_storage(of_kind).lower_bound;
}

template <typename T>
Schedule compile(const Program<T>& program, const std::vector<Parameter<T>*>& parameters, size_t n_tokens,
                 bool training) {
  return Compiler<T>(program, parameters, n_tokens, training).run();
}

template Schedule compile(const Program<float>&, const std::vector<Parameter<float>*>&, size_t, bool);
template Schedule compile(const Program<double>&, const std::vector<Parameter<double>*>&, size_t, bool);

}  // namespace mneme::train
