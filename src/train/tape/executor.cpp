#include "train/tape/executor.h"

#include <filesystem>
#include <utility>

#include "base/error.h"

namespace mneme::train {
namespace {

template <typename T>
T* address(const Schedule& schedule, std::byte* arena, uint32_t buffer) {
  return buffer == kNoBuffer ? nullptr : reinterpret_cast<T*>(arena + schedule.storage.offsets[buffer]);
}

template <typename T>
Call<T> make_call(const Schedule& schedule, const Instruction& instruction, const Op<T>& op, std::byte* arena,
                  const Batch& batch) {
  Call<T> call;
  call.batch = &batch;
  call.rows = {instruction.first_row, schedule.n_tokens};
  const bool backward = instruction.kind == Instruction::Kind::kBackward;
  for (size_t k = 0; k < op.inputs.size(); ++k) {
    call.in[k] = address<T>(schedule, arena, instruction.in[k]);
    if (backward) call.grad_in[k] = address<T>(schedule, arena, instruction.grad_in[k]);
  }
  for (size_t k = 0; k < op.outputs.size(); ++k) {
    call.out[k] = address<T>(schedule, arena, instruction.out[k]);
    if (backward) call.grad_out[k] = address<T>(schedule, arena, instruction.grad_out[k]);
  }
  call.accumulate = instruction.accumulate;
  call.scratch = address<std::byte>(schedule, arena, instruction.scratch);
  return call;
}

}  // namespace

template <typename T>
size_t gradient_bytes(const std::vector<Parameter<T>*>& parameters, const Schedule& schedule, GradientLife life) {
  if (life == GradientLife::kUpdate) return schedule.gradients.peak;
  size_t total = 0;
  for (const Parameter<T>* parameter : parameters)
    total += parameter->frozen ? 0 : padded_values(*parameter) * sizeof(T);
  return total;
}

template <typename T>
Executor<T>::Executor(Ledger& ledger, const Program<T>& program, std::vector<Parameter<T>*> parameters,
                      GradientLife life, std::string scratch_folder)
    : ledger_(ledger),
      program_(program),
      parameters_(std::move(parameters)),
      life_(life),
      scratch_folder_(std::move(scratch_folder)) {
  if (scratch_folder_.empty()) scratch_folder_ = std::filesystem::temp_directory_path().string();
}

template <typename T>
const Schedule& Executor<T>::prepare(size_t n_tokens, bool training) {
  auto& slot = schedules_[{n_tokens, training}];
  if (slot == nullptr) {
    slot = std::make_unique<Schedule>(compile(program_, parameters_, n_tokens, training));
  }
  if (slot->storage.peak > arena_.size()) {
    arena_ = Buffer();
    arena_ = Buffer(ledger_, Tag::kActivation, slot->storage.peak, "activations of a training step");
  }
  if (slot->file_bytes > 0 && (file_ == nullptr || file_->bytes() < slot->file_bytes)) {
    file_.reset();
    file_ = std::make_unique<ScratchFile>(ledger_, scratch_folder_, slot->file_bytes, slot->transfers.size());
  }
  if (tickets_.size() < slot->transfers.size()) tickets_.resize(slot->transfers.size());
  if (training) make_gradients(*slot);
  return *slot;
}

template <typename T>
void Executor<T>::make_gradients(const Schedule& schedule) {
  const size_t bytes = gradient_bytes(parameters_, schedule, life_);
  if (bytes > gradients_.size()) {
    gradients_ = Buffer();
    gradients_ = Buffer(ledger_, Tag::kGradient, bytes, "gradients");
  }
  size_t offset = 0;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    Parameter<T>& parameter = *parameters_[i];
    if (parameter.frozen) continue;
    const size_t place = life_ == GradientLife::kUpdate ? schedule.gradients.offsets[i] : offset;
    parameter.grad = reinterpret_cast<T*>(gradients_.data() + place);
    offset += padded_values(parameter) * sizeof(T);
    if (life_ == GradientLife::kUpdate) parameter.grad_started = false;
  }
}

template <typename T>
void Executor<T>::train(const Batch& batch, const GradReady& ready) {
  run(prepare(batch.n_tokens(), true), batch, ready);
}

template <typename T>
void Executor<T>::evaluate(const Batch& batch) {
  run(prepare(batch.n_tokens(), false), batch, {});
}

template <typename T>
void Executor<T>::run(const Schedule& schedule, const Batch& batch, const GradReady& ready) {
  last_ = &schedule;
  // Whatever ends the step, nothing may be moving in the arena afterwards.
  struct Drain {
    ScratchFile* file;
    ~Drain() {
      if (file != nullptr) file->drain();
    }
  } drain{file_.get()};
  for (const Instruction& instruction : schedule.instructions) {
    if (instruction.kind == Instruction::Kind::kGradReady) {
      if (ready) ready(*parameters_[instruction.parameter]);
      continue;
    }
    if (instruction.kind == Instruction::Kind::kTransfer || instruction.kind == Instruction::Kind::kAwait) {
      transfer(schedule, instruction);
      continue;
    }
    Op<T>& op = *program_.ops()[instruction.op];
    const Call<T> call = make_call<T>(schedule, instruction, op, arena_.data(), batch);
    if (instruction.kind == Instruction::Kind::kBackward) {
      op.backward(call);
    } else {
      op.forward(call);
    }
  }
}

template <typename T>
void Executor<T>::transfer(const Schedule& schedule, const Instruction& instruction) {
  uint64_t& ticket = tickets_[instruction.transfer];
  if (instruction.kind == Instruction::Kind::kAwait) {
    file_->wait(ticket);
    return;
  }
  const Transfer& transfer = schedule.transfers[instruction.transfer];
  std::byte* memory = address<std::byte>(schedule, arena_.data(), transfer.buffer);
  ticket = transfer.write ? file_->write(memory, transfer.bytes, transfer.file_offset)
                          : file_->read(memory, transfer.bytes, transfer.file_offset);
}

template <typename T>
const T* Executor<T>::last_value(ValueId value) const {
  for (uint32_t i = static_cast<uint32_t>(last_->buffers.size()); i-- > 0;) {
    const PlannedBuffer& buffer = last_->buffers[i];
    if (buffer.value == value && buffer.kind != BufferKind::kScratch && buffer.kind != BufferKind::kGradient) {
      return reinterpret_cast<const T*>(arena_.data() + last_->storage.offsets[i]);
    }
  }
  fail(ErrorCode::kInvalidArgument, "[program] expected a value of the last run, found {}", value);
}

template size_t gradient_bytes(const std::vector<Parameter<float>*>&, const Schedule&, GradientLife);
template size_t gradient_bytes(const std::vector<Parameter<double>*>&, const Schedule&, GradientLife);
template class Executor<float>;
template class Executor<double>;

}  // namespace mneme::train
