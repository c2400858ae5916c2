#include "eval/study_format.h"

#include <array>
#include <vector>

#include "base/error.h"

namespace mneme {
namespace {

struct Settings {
  std::string_view width;
  double bits;
  std::array<std::string_view, 4> names;
};

constexpr Settings kSettings[] = {
    {"8", 8, {"AQLM4x15g8", "AQLM8x8g8", "AQLM4x8g4", "AQLM2x8g2"}},
    {"4", 4, {"AQLM2x15g8", "AQLM4x8g8", "AQLM2x8g4", "AQLM1x8g2"}},
    {"3", 3, {"AQLM2x12g8", "AQLM3x8g8", "AQLM2x6g4", "AQLM1x6g2"}},
    {"2", 2, {"AQLM1x15g8", "AQLM2x8g8", "AQLM1x8g4", "AQLM1x4g2"}},
};
constexpr double kMostBeyondWidth = 0.5;

}  // namespace

double aqlm_bits(const QuantRecipe& recipe, const Metadata& metadata, std::span<const TensorInfo> tensors) {
  const std::vector<DType> types = choose_types(recipe, metadata, tensors, false);
  uint64_t bytes = 0, elements = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (types[i] != DType::kAqlm) continue;
    const uint64_t columns = tensors[i].shape.from_last(0), rows = tensors[i].shape.elements() / columns;
    bytes += aqlm::layout_for(rows, columns, aqlm::capped(recipe.scheme, rows, columns)).bytes();
    elements += tensors[i].shape.elements();
  }
  return elements == 0 ? 0 : 8.0 * static_cast<double>(bytes) / static_cast<double>(elements);
}

StudyFormat study_format(std::string_view width, const Metadata& metadata, std::span<const TensorInfo> tensors) {
  for (const Settings& settings : kSettings) {
    if (settings.width != width) continue;
    StudyFormat format{std::string(width), nullptr};
    for (const std::string_view name : settings.names) {
      format.recipe = find_quant_recipe(name);
      if (aqlm_bits(*format.recipe, metadata, tensors) <= settings.bits + kMostBeyondWidth) break;
    }
    return format;
  }
  const QuantRecipe* recipe = find_quant_recipe(width);
  if (recipe == nullptr) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("[quant-study] expected 8, 4, 3, 2 or the name of a format, found '{}'", width),
                "mneme quantize --help lists the formats");
  }
  return {std::string(width), recipe};
}

}  // namespace mneme
