#pragma once

#include <vector>

#include "base/half.h"
#include "base/philox.h"
#include "tensor/aqlm.h"

/// Matrices for tests of AQLM.
namespace mneme::aqlm {

/// A matrix of random codes, codebooks and scales.
struct TestMatrix {
  TestMatrix(uint64_t rows, uint64_t columns, const Scheme& scheme, Entries entries, uint64_t seed)
      : layout{rows, columns, scheme, entries}, bytes(layout.bytes()) {
    PhiloxStream random(seed);
    std::vector<float> values(scheme.codebooks * layout.book_values());
    for (float& v : values) v = random.next_normal();
    books = rounded(layout, values);
    scales.resize(rows);
    for (float& s : scales) s = f16_to_f32(f32_to_f16(0.1f * random.next_normal()));
    write_head(layout, books, scales, bytes.data());
    for (uint64_t stripe = 0; stripe < layout.stripes(); ++stripe) {
      for (uint64_t j = 0; j < layout.groups(); ++j) {
        for (uint32_t m = 0; m < scheme.codebooks; ++m) {
          uint16_t run[kStripe];
          for (uint16_t& code : run) {
            code = static_cast<uint16_t>(random.next_below(uint64_t{1} << scheme.bits));
            codes.push_back(code);  // [stripe][group][codebook][row]
          }
          pack_run(scheme.bits, run, bytes.data() + layout.run(stripe, j, m));
        }
      }
    }
  }
  TensorView view() const { return {DType::kAqlm, Shape{layout.rows, layout.columns}, bytes.data(), bytes.size()}; }
  float at(uint64_t r, uint64_t c) const {
    const uint64_t g = layout.scheme.group, n_books = layout.scheme.codebooks;
    float sum = 0;
    for (uint64_t m = 0; m < n_books; ++m) {
      const uint64_t code = codes[((r / kStripe * layout.groups() + c / g) * n_books + m) * kStripe + r % kStripe];
      sum += books.values[(m << layout.scheme.bits | code) * g + c % g];
    }
    return scales[r] * sum;
  }

  Layout layout;
  Codebooks books;
  std::vector<float> scales;
  std::vector<uint16_t> codes;
  std::vector<std::byte> bytes;
};

}  // namespace mneme::aqlm
