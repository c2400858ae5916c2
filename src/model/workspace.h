#pragma once

#include <cstddef>
#include <string>

#include "budget/buffer.h"
#include "kernels/matmul.h"

namespace mneme {

/// Working memory of a forward pass: one block, planned before it starts, handed out from the bottom and taken back in
/// scopes. One forward pass at a time.
class Workspace {
 public:
  /// Throws Error(kOutOfBudget). `bytes` must cover the largest nesting of floats() calls.
  Workspace(Ledger& ledger, size_t bytes);

  /// n floats, 64-byte aligned, not initialised; valid until the enclosing Scope ends.
  float* floats(size_t n);
  /// Bytes that floats(n) takes.
  static size_t bytes_for(size_t n);

  /// The prepared activations of the product at hand; set() anew for each layer input.
  kernels::MatmulInput& input() { return input_; }

  /// Gives everything handed out during its life back.
  class Scope {
   public:
    explicit Scope(Workspace& workspace) : workspace_(workspace), used_(workspace.used_) {}
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;
    ~Scope() { workspace_.used_ = used_; }

   private:
    Workspace& workspace_;
    size_t used_;
  };

 private:
  Buffer memory_;
  size_t used_ = 0;
  kernels::MatmulInput input_;
};

}  // namespace mneme
