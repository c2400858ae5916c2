#pragma once

#include <span>
#include <string>

#include "base/json.h"
#include "eval/quant_study.h"

namespace mneme::cli {

/// The results of `mneme eval quant-study` as text for a terminal, as JSON and as a page of its own.
std::string quant_study_text(const ModelStudy& study);
Json quant_study_json(std::span<const ModelStudy> studies, const QuantStudyOptions& options);
std::string quant_study_page(std::span<const ModelStudy> studies, const QuantStudyOptions& options);

}  // namespace mneme::cli
