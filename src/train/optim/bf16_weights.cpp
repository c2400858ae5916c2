#include "train/optim/bf16_weights.h"

#include <algorithm>
#include <bit>

#include "base/parallel.h"
#include "base/philox.h"

namespace mneme::train {

void round_stochastically(const float* x, size_t n, uint64_t seed, uint64_t stream, uint16_t* y) {
  PhiloxStream random(seed, stream);
  uint32_t word = 0;
  for (size_t i = 0; i < n; ++i) {
    word = i % 2 == 0 ? random.next_u32() : word >> 16;
    // Adding up to one step less a bit and cutting off the lower half carries with the right probability.
    y[i] = static_cast<uint16_t>((std::bit_cast<uint32_t>(x[i]) + (word & 0xffffu)) >> 16);
  }
}

Bf16Weights::Bf16Weights(Ledger& ledger, const ParameterSet<float>& parameters, uint64_t seed) : seed_(seed) {
  size_t largest = 0;
  for (const Parameter<float>& p : parameters.all()) largest = std::max(largest, p.stored != nullptr ? p.size() : 0);
  if (largest > 0) values_ = Buffer(ledger, Tag::kScratch, largest * sizeof(float), "a matrix in f32 for its update");
}

void Bf16Weights::update(Parameter<float>& parameter, uint64_t draw, const std::function<void()>& update) {
  if (parameter.stored == nullptr) {
    update();
    return;
  }
  float* const values = values_.as<float>().data();
  const size_t columns = parameter.columns, grain = std::max<size_t>(1, 16384 / columns);
  parallel_for(parameter.rows, grain, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) copy_row(parameter, i, values + i * columns);
  });
  parameter.value = values;
  update();
  parameter.value = nullptr;
  auto* const stored = reinterpret_cast<uint16_t*>(parameter.stored);
  parallel_for(parameter.rows, grain, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) {
      round_stochastically(values + i * columns, columns, seed_ ^ (draw << 20), i, stored + i * columns);
    }
  });
}

}  // namespace mneme::train
