#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "budget/buffer.h"
#include "model/model.h"
#include "weights/adapter_file.h"

namespace mneme {

/// An adapter as a user names it.
struct AdapterChoice {
  std::string path;
  float scale = 1;  ///< Factor of the adapter's own scale; 0 switches it off.

  /// "FILE" or "FILE:SCALE". Throws Error(kInvalidArgument).
  static AdapterChoice parse(const std::string& text);
};

/// The adapters of a running model. Several for one matrix are one of the sum of their ranks:
/// sum_i s_i B_i (A_i x) = [s_1 B_1, s_2 B_2, ...] ([A_1; A_2; ...] x).
class Adapters {
 public:
  /// Opens all of them and checks them against the base and the model made of it; reads headers only. Sets
  /// model.widest_adapter, so that plans count the working memory. Throws Error, kUnsupported for a matrix that is not
  /// multiplied with (a token table, a stack of experts).
  Adapters(std::span<const AdapterChoice> choices, const ModelFile& base, Model& model);
  Adapters(const Adapters&) = delete;
  Adapters& operator=(const Adapters&) = delete;

  /// Tells combinations of adapters and scales apart; empty without adapters.
  const std::string& identity() const { return identity_; }
  /// Bytes of all factors as f32.
  uint64_t bytes() const { return bytes_; }
  /// Decodes the factors into memory of `ledger` and hangs them on the model's matrices; to be called once, before the
  /// model runs. Throws Error.
  void load(Ledger& ledger);

 private:
  struct Loaded {
    std::unique_ptr<AdapterFile> file;
    float scale;
  };
  /// One matrix and the pairs for it.
  struct Target {
    WeightMatrix* matrix = nullptr;
    size_t rank = 0;
    std::vector<std::pair<size_t, const AdapterFile::Pair*>> pairs;  ///< Index of the file and its pair.
  };

  std::vector<Loaded> files_;    ///< Until load().
  std::vector<Target> targets_;  ///< Likewise.
  uint64_t bytes_ = 0;
  std::string identity_;
  Buffer memory_;
};

}  // namespace mneme
