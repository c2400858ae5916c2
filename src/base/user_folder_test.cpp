#include "base/user_folder.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <optional>
#include <string>

#include "base/error.h"

namespace mneme {
namespace {

/// Sets a variable (null: removes it) for the length of a test.
class Variable {
 public:
  Variable(const char* name, const char* value) : name_(name) {
    if (const char* before = std::getenv(name)) before_ = before;
    value != nullptr ? ::setenv(name, value, 1) : ::unsetenv(name);
  }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;
  ~Variable() { before_ ? ::setenv(name_, before_->c_str(), 1) : ::unsetenv(name_); }

 private:
  const char* name_;
  std::optional<std::string> before_;
};

TEST(UserFolder, FollowsTheEnvironment) {
  const Variable home("HOME", "/h");
  {
    const Variable data("XDG_DATA_HOME", "/d"), cache("XDG_CACHE_HOME", "/c");
    EXPECT_EQ(user_data_folder(), "/d/mneme");
    EXPECT_EQ(user_cache_folder(), "/c/mneme");
  }
  for (const char* none : {static_cast<const char*>(nullptr), "", "relative"}) {
    const Variable data("XDG_DATA_HOME", none), cache("XDG_CACHE_HOME", none);
    EXPECT_EQ(user_data_folder(), "/h/.local/share/mneme");
    EXPECT_EQ(user_cache_folder(), "/h/.cache/mneme");
  }
}

TEST(UserFolder, WithoutAnyItSaysWhatToSet) {
  const Variable home("HOME", nullptr), data("XDG_DATA_HOME", nullptr);
  try {
    user_data_folder();
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kNotFound);
    EXPECT_EQ(e.hint(), "set XDG_DATA_HOME");
  }
}

}  // namespace
}  // namespace mneme
