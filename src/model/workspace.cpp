#include "model/workspace.h"

#include <cassert>

#include "base/checked_math.h"
#include "base/error.h"

namespace mneme {
namespace {

constexpr size_t kAlign = 64;

}  // namespace

Workspace::Workspace(Ledger& ledger, size_t bytes)
    : memory_(ledger, Tag::kActivation, bytes, "activations of a forward pass"), input_(ledger) {}

size_t Workspace::bytes_for(size_t n) { return round_up(n * sizeof(float), kAlign); }

float* Workspace::floats(size_t n) {
  const size_t bytes = bytes_for(n);
  assert(bytes <= memory_.size() - used_);
  if (bytes > memory_.size() - used_) {
    fail(ErrorCode::kOutOfBudget, "[workspace] planned {} bytes, needed {} more", memory_.size(), bytes);
  }
  float* out = reinterpret_cast<float*>(memory_.data() + used_);
  used_ += bytes;
  return out;
}

}  // namespace mneme
