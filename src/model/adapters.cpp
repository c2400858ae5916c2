#include "model/adapters.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/checked_math.h"
#include "base/error.h"
#include "weights/model_fingerprint.h"

namespace mneme {
namespace {

constexpr size_t kAlignFloats = 16;

/// Floats of the two factors of a matrix, each on its own cache lines.
size_t floats_of(size_t rank, size_t columns) {
  return round_up(rank * columns, kAlignFloats);
}

}  // namespace

AdapterChoice AdapterChoice::parse(const std::string& text) {
  AdapterChoice choice{text, 1};
  const size_t colon = text.rfind(':');
  if (colon != std::string::npos) {
    const std::string_view number = std::string_view(text).substr(colon + 1);
    const auto [end, status] = std::from_chars(number.data(), number.data() + number.size(), choice.scale);
    if (status != std::errc{} || end != number.data() + number.size() || !std::isfinite(choice.scale)) {
      fail(ErrorCode::kInvalidArgument, "[adapter] expected FILE or FILE:SCALE, found {}", text);
    }
    choice.path = text.substr(0, colon);
  }
  if (choice.path.empty()) fail(ErrorCode::kInvalidArgument, "[adapter] expected FILE or FILE:SCALE, found '{}'", text);
  return choice;
}

Adapters::Adapters(std::span<const AdapterChoice> choices, const ModelFile& base, Model& model) {
  for (const AdapterChoice& choice : choices) {
    auto file = std::make_unique<AdapterFile>(choice.path);
    file->check_base(base);
    identity_ += fmt::format("+{}*{}", model_fingerprint(file->file()), choice.scale);
    for (const AdapterFile::Pair& pair : file->pairs()) {
      const auto matrix = std::find_if(model.weights.matrices.begin(), model.weights.matrices.end(),
                                       [&](const auto& m) { return m->name == pair.target; });
      if (matrix == model.weights.matrices.end() || matrix->get() == model.token_embedding ||
          matrix->get() == model.position_embedding) {
        fail(ErrorCode::kUnsupported, "[adapter] {}: expected matrices of linear layers, found {}", choice.path,
             pair.target);
      }
      auto target =
          std::find_if(targets_.begin(), targets_.end(), [&](const Target& t) { return t.matrix == matrix->get(); });
      if (target == targets_.end()) target = targets_.insert(targets_.end(), Target{matrix->get(), 0, {}});
      target->rank += static_cast<size_t>(pair.rank());
      target->pairs.emplace_back(files_.size(), &pair);
      model.widest_adapter = std::max(model.widest_adapter, target->rank);
    }
    files_.push_back({std::move(file), choice.scale});
  }
  for (const Target& t : targets_) {
    bytes_ += (floats_of(t.rank, t.matrix->columns()) + floats_of(t.rank, t.matrix->rows())) * sizeof(float);
  }
}

void Adapters::load(Ledger& ledger) {
  if (targets_.empty()) return;
  memory_ = Buffer(ledger, Tag::kWeights, bytes(), "adapters");
  float* next = memory_.as<float>().data();
  std::vector<float> b;
  for (const Target& target : targets_) {
    const size_t rows = target.matrix->rows(), columns = target.matrix->columns();
    float* const a = next;
    float* const b_transposed = a + floats_of(target.rank, columns);
    next = b_transposed + floats_of(target.rank, rows);
    size_t first = 0;
    for (const auto& [index, pair] : target.pairs) {
      const AdapterFile& file = *files_[index].file;
      const auto rank = static_cast<size_t>(pair->rank());
      const float scale = files_[index].scale * pair->scale;
      file.decode(pair->a, a + first * columns);
      b.resize(rank * rows);
      file.decode(pair->b, b.data());
      for (size_t r = 0; r < rows; ++r) {
        for (size_t k = 0; k < rank; ++k) b_transposed[(first + k) * rows + r] = scale * b[r * rank + k];
      }
      first += rank;
    }
    target.matrix->low_rank = {
        {DType::kF32, kernels::Layout::kPlain, target.rank, columns, reinterpret_cast<std::byte*>(a)}, b_transposed};
  }
  targets_.clear();
  files_.clear();
}

}  // namespace mneme
