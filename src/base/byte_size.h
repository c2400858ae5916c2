#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace mneme {

/// Parses a size in bytes: "4096", "512K", "1.5G", "2GiB" (powers of 1024; "GB" and "G" mean GiB here).
/// Throws Error(kInvalidArgument) that names the text when it is not a size or does not fit.
uint64_t parse_byte_size(std::string_view text);

/// Parses a count of tokens: "4096", "32k", "1M" (powers of 1024). Throws Error(kInvalidArgument).
uint64_t parse_token_count(std::string_view text);

/// "1.50 GiB", "312.0 MiB", "17 B": three significant digits for a person.
std::string format_byte_size(uint64_t bytes);

}  // namespace mneme
