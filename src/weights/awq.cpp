#include "weights/awq.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "base/error.h"
#include "base/parallel.h"
#include "tensor/weight_format.h"

namespace mneme {
namespace {

/// Matrices that read one input, and what makes it: a vector (a norm's weight, and bias) or the rows of a matrix.
struct InputGroup {
  std::vector<size_t> readers;
  std::vector<size_t> vectors;
  std::optional<size_t> row_maker;
};

std::vector<InputGroup> input_groups(std::span<const TensorInfo> tensors) {
  std::map<std::string_view, size_t> by_name;
  for (size_t i = 0; i < tensors.size(); ++i) by_name[tensors[i].name] = i;
  const auto find = [&](const std::string& name) -> std::optional<size_t> {
    const auto found = by_name.find(name);
    return found == by_name.end() ? std::nullopt : std::optional(found->second);
  };
  std::vector<InputGroup> groups;
  for (size_t layer = 0;; ++layer) {
    const std::string p = fmt::format("blk.{}.", layer);
    if (!find(p + "attn_norm.weight") && !find(p + "ffn_norm.weight")) break;
    const auto from_norm = [&](const std::string& norm, std::initializer_list<const char*> names) {
      InputGroup group;
      if (const auto weight = find(p + norm + ".weight")) group.vectors.push_back(*weight);
      if (const auto bias = find(p + norm + ".bias")) group.vectors.push_back(*bias);
      for (const char* name : names) {
        if (const auto i = find(p + name + ".weight"); i && tensors[*i].shape.rank() == 2) group.readers.push_back(*i);
      }
      if (!group.vectors.empty() && !group.readers.empty()) groups.push_back(group);
    };
    from_norm("attn_norm", {"attn_q", "attn_k", "attn_v", "attn_qkv"});
    // A router or a stack of experts reads the norm's output too and would have to be scaled with it.
    if (!find(p + "ffn_gate_inp.weight")) from_norm("ffn_norm", {"ffn_gate", "ffn_up"});
    const auto up = find(p + "ffn_up.weight"), down = find(p + "ffn_down.weight"), gate = find(p + "ffn_gate.weight");
    if (up && down && gate && !find(p + "ffn_up.bias") && tensors[*up].shape.rank() == 2 &&
        tensors[*down].shape.rank() == 2 && tensors[*up].shape[0] == tensors[*down].shape[1]) {
      groups.push_back({{*down}, {}, up});
    }
  }
  return groups;
}

std::vector<float> scales_for(const InputStatistics& statistics, double power) {
  std::vector<float> s(statistics.magnitudes.size());
  const double n = static_cast<double>(statistics.n_rows);
  double least = HUGE_VAL, most = 0;
  for (size_t j = 0; j < s.size(); ++j) {
    const double value = std::pow(std::max(statistics.magnitudes[j] / n, 1e-4), power);
    least = std::min(least, value);
    most = std::max(most, value);
    s[j] = static_cast<float>(value);
  }
  const auto middle = static_cast<float>(std::sqrt(least * most));
  for (float& v : s) v /= middle;
  return s;
}

/// Rows that stand for a matrix in the search.
constexpr uint64_t kSampleRows = 256;

std::vector<float> sample_rows(const TensorView& matrix) {
  const uint64_t rows = std::min(kSampleRows, matrix.rows()), columns = matrix.columns();
  std::vector<float> values(rows * columns);
  for (uint64_t r = 0; r < rows; ++r) decode_row(matrix, r * matrix.rows() / rows, values.data() + r * columns);
  return values;
}

double scaled_error(std::span<const float> w, std::span<const float> s, std::span<const float> importance, DType to) {
  const size_t columns = s.size(), rows = w.size() / columns;
  const DTypeInfo& info = dtype_info(to);
  std::vector<float> weights(columns);
  for (size_t j = 0; j < columns; ++j) weights[j] = importance[j] / (s[j] * s[j]);
  std::vector<double> errors(rows);
  parallel_dynamic(rows, [&](size_t r) {
    std::vector<float> row(columns), back(columns);
    std::vector<std::byte> blocks(row_bytes(to, columns));
    for (size_t j = 0; j < columns; ++j) row[j] = w[r * columns + j] * s[j];
    info.encode(row.data(), weights.data(), blocks.data(), columns);
    info.decode(blocks.data(), back.data(), columns);
    for (size_t j = 0; j < columns; ++j) {
      const double e = static_cast<double>(row[j]) - static_cast<double>(back[j]);
      errors[r] += static_cast<double>(weights[j]) * e * e;
    }
  });
  double sum = 0;
  for (double error : errors) sum += error;
  return sum;
}

void multiply(std::vector<float>& to, const std::vector<float>& s, bool invert) {
  if (to.empty()) to.assign(s.size(), 1.0f);
  for (size_t j = 0; j < s.size(); ++j) to[j] *= invert ? 1.0f / s[j] : s[j];
}

}  // namespace

ScalesByName awq_scales(TensorSource& source, std::span<const DType> types, const Calibration& calibration,
                        const std::function<void(size_t, size_t)>& progress) {
  const std::span<const TensorInfo> tensors = source.tensors();
  const std::vector<InputGroup> groups = input_groups(tensors);
  ScalesByName out;
  for (size_t g = 0; g < groups.size(); ++g) {
    const InputGroup& group = groups[g];
    progress(g, groups.size());
    const InputStatistics* statistics = calibration.find(tensors[group.readers.front()].name);
    if (statistics == nullptr || statistics->magnitudes.empty()) continue;
    std::vector<std::vector<float>> samples;
    std::vector<DType> to;
    for (size_t i : group.readers) {
      if (is_stream(types[i]) || dtype_info(types[i]).block_elements == 1) continue;
      samples.push_back(sample_rows(tensors[i].view(source.load(i).data())));
      to.push_back(types[i]);
    }
    const std::vector<float> importance = statistics->importance();
    std::vector<float> best;
    double least = HUGE_VAL;
    for (int step = 0; step < 20; ++step) {
      const std::vector<float> s = scales_for(*statistics, step / 20.0);
      double error = 0;
      for (size_t m = 0; m < samples.size(); ++m) error += scaled_error(samples[m], s, importance, to[m]);
      if (error >= least) continue;
      least = error;
      best = s;
    }
    if (best.empty()) continue;
    for (size_t i : group.readers) multiply(out[tensors[i].name].columns, best, false);
    for (size_t i : group.vectors) multiply(out[tensors[i].name].columns, best, true);
    if (group.row_maker) multiply(out[tensors[*group.row_maker].name].rows, best, true);
  }
  progress(groups.size(), groups.size());
  return out;
}

Calibration scaled(const Calibration& calibration, const ScalesByName& scales, std::span<const TensorInfo> tensors) {
  Calibration out;
  std::map<const InputStatistics*, std::shared_ptr<InputStatistics>>
      done;  // matrices that share an input stay together
  for (const TensorInfo& tensor : tensors) {
    const InputStatistics* from = calibration.find(tensor.name);
    if (from == nullptr) continue;
    std::shared_ptr<InputStatistics>& to = done[from];
    if (to == nullptr) {
      to = std::make_shared<InputStatistics>(*from);
      const auto found = scales.find(tensor.name);
      if (found != scales.end() && !found->second.columns.empty()) {
        const std::vector<float>& s = found->second.columns;
        for (size_t j = 0; j < s.size(); ++j) {
          const double inverse = 1 / static_cast<double>(s[j]);
          to->squares[j] *= inverse * inverse;
          if (!to->magnitudes.empty()) to->magnitudes[j] *= inverse;
          if (!to->largest.empty()) to->largest[j] /= s[j];
        }
        for (size_t i = 0; !to->gram.empty() && i < s.size(); ++i) {
          for (size_t j = 0; j < s.size(); ++j) to->gram[i * s.size() + j] /= s[i] * s[j];
        }
      }
    }
    out.set(tensor.name, to);
  }
  return out;
}

ScaledSource::ScaledSource(TensorSource& source, const ScalesByName& scales) : source_(source), scales_(scales) {
  for (const TensorInfo& tensor : source.tensors()) {
    tensors_.push_back(tensor);
    if (scales.contains(tensor.name)) tensors_.back() = {tensor.name, DType::kF32, tensor.shape};
  }
}

std::span<const std::byte> ScaledSource::load(size_t i) {
  const std::span<const std::byte> bytes = source_.load(i);
  const auto found = scales_.find(tensors_[i].name);
  if (found == scales_.end()) return bytes;
  const TensorView from = source_.tensors()[i].view(bytes.data());
  const size_t columns = from.columns();
  const TensorScales& scales = found->second;
  values_.resize(from.rows() * columns);
  parallel_for(from.rows(), 16, [&](size_t begin, size_t end) {
    for (size_t r = begin; r < end; ++r) {
      float* const row = values_.data() + r * columns;
      decode_row(from, r, row);
      const float factor = scales.rows.empty() ? 1.0f : scales.rows[r];
      for (size_t j = 0; j < columns; ++j) row[j] *= factor * (scales.columns.empty() ? 1.0f : scales.columns[j]);
    }
  });
  return std::as_bytes(std::span(values_));
}

}  // namespace mneme
