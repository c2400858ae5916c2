#include "train/experts.h"

namespace mneme::train {

bool ExpertOptions::freezes(std::string_view name) const {
  if (is_routed_expert(name) || name.find("ffn_gate_inp") != std::string_view::npos) return false;
  if (name.find("_shexp.") != std::string_view::npos) return shared == Shared::kFrozen;
  return !trains_all;
}

bool is_routed_expert(std::string_view name) {
  return name.ends_with(']');
}

std::string stored_name(std::string_view name) {
  return std::string(is_routed_expert(name) ? name.substr(0, name.rfind('[')) : name);
}

std::string dense_name(std::string_view name) {
  std::string dense = stored_name(name);
  for (const std::string_view part : {"_exps.", "_shexp."}) {
    const size_t at = dense.find(part);
    if (at != std::string::npos) dense = dense.substr(0, at) + "." + dense.substr(at + part.size());
  }
  return dense;
}

}  // namespace mneme::train
