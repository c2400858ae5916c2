#pragma once

#include <algorithm>
#include <bit>
#include <limits>
#include <utility>

#include "kernels/products/product_table.h"

// Products with AQLM matrices (tensor/aqlm.h) by tables: y[r] = s[r] * sum over groups j and codebooks m of
// table[j, m][code[r, j, m]] with table[j, m][k] = C_m[k] . x[group j]. The tables of an input serve all rows. They are
// kept as bytes: kTablesAScale tables share a scale, the largest magnitude among them over 127. Compiled once a target;
// the same integers on all.
namespace mneme::kernels::products::MNEME_TARGET {

/// Makes the tables of one block for one token.
inline void make_look_up_tables(const LookUpBooks& books, const float* x, size_t columns, size_t block, int8_t* tables,
                                float* scale) {
  const size_t first = block * kTablesAScale, n = std::min(kTablesAScale, books.n_tables - first), size = books.size;
  alignas(64) float values[kTablesAScale][kMostTableEntries];
  uint32_t largest = 0;
  for (size_t t = 0; t < n; ++t) {
    const size_t j = (first + t) / books.n_books, m = (first + t) % books.n_books;
    float* const to = values[t];
    for (size_t k = 0; k < size; ++k) to[k] = 0;
    for (size_t i = 0; i < books.group && j * books.group + i < columns; ++i) {
      const float factor = x[j * books.group + i];
      const float* from = books.values + (m * books.group + i) * size;
      for (size_t k = 0; k < size; ++k) to[k] += factor * from[k];
    }
    for (size_t k = 0; k < size; ++k) {
      const uint32_t magnitude = std::bit_cast<uint32_t>(to[k]) & 0x7fffffffu;
      largest = magnitude > largest ? magnitude : largest;
    }
  }
  const float most = std::bit_cast<float>(largest);
  // Below it 127 / most would overflow; such products are zero for all purposes.
  constexpr float kLeast = 0x1p-100f;
  if (!(most <= std::numeric_limits<float>::max()) || most < kLeast) {
    std::memset(tables, 0, n * size);
    *scale = most < kLeast ? 0.0f : std::numeric_limits<float>::quiet_NaN();
    return;
  }
  *scale = most / 127;
  const float inverse = 127 / most;
  for (size_t t = 0; t < n; ++t) {
    for (size_t k = 0; k < size; ++k) {
      constexpr float kRound = 0x1.8p23f;  // adding it leaves the nearest integer in the low bits
      const uint32_t bits = std::bit_cast<uint32_t>(values[t][k] * inverse + kRound);
      tables[t * size + k] = static_cast<int8_t>(bits - std::bit_cast<uint32_t>(kRound));
    }
  }
}

template <unsigned kBits>
void look_up_rows(const LookUpJob& job) {
  constexpr size_t kRunBytes = aqlm::kStripe * kBits / 8;
  for (size_t stripe = job.first_stripe; stripe < job.last_stripe; ++stripe) {
    const uint8_t* const codes = job.codes + stripe * job.n_tables * kRunBytes;
    for (size_t token = 0; token < job.n_tokens; ++token) {
      const int8_t* table = job.tables + token * job.token_bytes;
      const float* scale = job.scales + token * job.n_blocks;
      const uint8_t* run = codes;
      alignas(64) float sums[aqlm::kStripe] = {};
      for (size_t first = 0; first < job.n_tables; first += kTablesAScale, ++scale) {
        const size_t n = std::min(kTablesAScale, job.n_tables - first);
        LookUp::Sums part = LookUp::zero();
        for (size_t t = 0; t < n; ++t, table += job.size, run += kRunBytes) LookUp::add<kBits>(table, run, part);
        LookUp::flush(part, *scale, sums);
      }
      const size_t first_row = stripe * aqlm::kStripe, n_rows = std::min(aqlm::kStripe, job.n_rows - first_row);
      float* const y = job.y + token * job.y_stride + first_row;
      for (size_t r = 0; r < n_rows; ++r) {
        uint16_t half = 0;
        std::memcpy(&half, job.row_scales + 2 * (first_row + r), sizeof half);
        y[r] = f16_to_f32(half) * sums[r] + (job.bias != nullptr ? job.bias[first_row + r] : 0.0f);
      }
    }
  }
}

inline void look_up(const LookUpJob& job) {
  const auto run = [&]<size_t... kBits>(std::index_sequence<kBits...>) {
    static constexpr std::array kFunctions = {&look_up_rows<kBits + 1>...};
    kFunctions[job.bits - 1](job);
  };
  run(std::make_index_sequence<8>());
}

}  // namespace mneme::kernels::products::MNEME_TARGET
