#include "train/tape/schedule.h"

#include <algorithm>

#include "base/error.h"

namespace mneme::train {
namespace {

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
    for (uint32_t i = 0; i < program.ops().size(); ++i) {
      const Op<T>& op = *program.ops()[i];
      if (op.inputs.size() > kMaxOperands || op.outputs.size() > kMaxOperands) {
        fail(ErrorCode::kInvalidArgument, "[program] expected at most {} operands, found more in op {}", kMaxOperands,
             op.kind());
      }
      for (const ValueId out : op.outputs) producer_[out] = i;
      for (size_t k = 0; k < op.inputs.size(); ++k) {
        if (has_bit(op.needs_inputs(), k)) needed_[op.inputs[k]] = true;
      }
      for (size_t k = 0; k < op.outputs.size(); ++k) {
        if (has_bit(op.needs_outputs(), k)) needed_[op.outputs[k]] = true;
      }
    }
  }

  Schedule run() {
    const auto n_ops = static_cast<uint32_t>(program_.ops().size());
    for (uint32_t i = 0; i < n_ops; ++i) {
      if (training_ && program_.ops()[i]->forward_in_backward()) continue;
      emit_forward(i, Instruction::Kind::kForward);
    }
    if (training_) {
      drop_values_to_recompute();
      find_last_gradients();
      gradients_.resize(parameters_.size());
      for (uint32_t i = n_ops; i-- > 0;) emit_backward(i);
    }
    std::vector<StorageRequest> requests;
    requests.reserve(schedule_.buffers.size());
    for (const PlannedBuffer& buffer : schedule_.buffers) requests.push_back(buffer.request);
    schedule_.storage = plan_storage(requests);
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

  void emit_forward(uint32_t index, Instruction::Kind kind) {
    const Op<T>& op = *program_.ops()[index];
    Instruction instruction{kind, index};
    for (size_t k = 0; k < op.inputs.size(); ++k) instruction.in[k] = use(current_[op.inputs[k]]);
    for (size_t k = 0; k < op.outputs.size(); ++k) {
      const ValueId out = op.outputs[k];
      const bool saved = training_ && needed_[out];
      current_[out] = new_value_buffer(saved ? BufferKind::kSaved : BufferKind::kTemporary, out);
      instruction.out[k] = current_[out];
    }
    const size_t scratch = op.forward_scratch_bytes(schedule_.n_tokens);
    if (scratch > 0) instruction.scratch = new_buffer(BufferKind::kScratch, 0, scratch);
    schedule_.instructions.push_back(instruction);
  }

  /// After forward, values that are not kept are unknown until they are computed again.
  void drop_values_to_recompute() {
    for (ValueId value = 0; value < current_.size(); ++value) {
      if (!needed_[value] || program_.values()[value].saving == Saving::kRecompute) current_[value] = kNoBuffer;
    }
  }

  /// Makes a value available for backward, computing it and what it depends on again where it was dropped.
  void ensure(ValueId value) {
    if (current_[value] != kNoBuffer) return;
    const uint32_t op = producer_[value];
    for (const ValueId input : program_.ops()[op]->inputs) ensure(input);
    emit_forward(op, Instruction::Kind::kRecompute);
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
      if (has_bit(op.needs_inputs(), k)) ensure(op.inputs[k]);
    }
    for (size_t k = 0; k < op.outputs.size(); ++k) {
      if (has_bit(op.needs_outputs(), k)) ensure(op.outputs[k]);
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
