#pragma once

#include <span>
#include <string_view>

/// Everyday words that serve as values of generated facts.
namespace mneme::train {

std::span<const std::string_view> colour_words();
std::span<const std::string_view> food_words();
std::span<const std::string_view> job_words();
std::span<const std::string_view> animal_words();
std::span<const std::string_view> month_words();
std::span<const std::string_view> container_words();
std::span<const std::string_view> hobby_words();

}  // namespace mneme::train
