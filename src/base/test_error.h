#pragma once

#include <functional>
#include <string>

#include "base/error.h"

namespace mneme {

/// Message of the Error that `act` throws, or "no error"; for tests.
inline std::string error_of(const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

}  // namespace mneme
