#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace mneme::recall {

/// Turns texts into vectors. A store remembers the name and dimension of the first embedder that it is used with and
/// refuses others, since vectors of two models cannot be compared.
class Embedder {
 public:
  virtual ~Embedder() = default;
  /// Name that changes whenever the vectors would.
  virtual const std::string& model() const = 0;
  virtual uint32_t dimension() const = 0;
  /// What a text is for; some models embed questions and passages differently.
  enum class Role { kPassage, kQuery };
  /// One vector of `dimension()` numbers for each text; their length does not matter. Throws Error.
  virtual std::vector<std::vector<float>> embed(std::span<const std::string> texts, Role role) = 0;
};

}  // namespace mneme::recall
