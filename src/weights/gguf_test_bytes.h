#pragma once

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "weights/metadata.h"

namespace mneme {

/// Little-endian fields put together by hand, so that tests of the reader do not depend on the writer.
class GgufTestBytes {
 public:
  template <typename T>
  GgufTestBytes& number(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  GgufTestBytes& string(std::string_view text) {
    number<uint64_t>(text.size());
    bytes_.append(text);
    return *this;
  }
  GgufTestBytes& header(uint64_t n_tensors, uint64_t n_entries, uint32_t version = 3) {
    bytes_.append("GGUF");
    return number(version).number(n_tensors).number(n_entries);
  }
  GgufTestBytes& key(std::string_view name, ValueType type) { return string(name).number(static_cast<uint32_t>(type)); }
  GgufTestBytes& array(std::string_view name, ValueType type, uint64_t count) {
    return key(name, ValueType::kArray).number(static_cast<uint32_t>(type)).number(count);
  }
  /// Dimensions innermost first, as in the file.
  GgufTestBytes& tensor(std::string_view name, const std::vector<uint64_t>& dims, uint32_t type, uint64_t offset) {
    string(name).number(static_cast<uint32_t>(dims.size()));
    for (uint64_t extent : dims) number(extent);
    return number(type).number(offset);
  }
  /// Fills with `fill` up to `n` bytes.
  GgufTestBytes& pad_to(size_t n, char fill = 0) {
    if (bytes_.size() < n) bytes_.resize(n, fill);
    return *this;
  }
  GgufTestBytes& align(size_t alignment = 32) {
    return pad_to((bytes_.size() + alignment - 1) / alignment * alignment);
  }
  GgufTestBytes& zeros(size_t n) { return pad_to(bytes_.size() + n); }

  size_t size() const { return bytes_.size(); }
  const std::string& text() const { return bytes_; }
  std::span<const std::byte> bytes() const { return std::as_bytes(std::span(bytes_.data(), bytes_.size())); }

 private:
  std::string bytes_;
};

/// A folder that is removed at the end of the test.
class TestFolder {
 public:
  TestFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "mneme-test-XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  TestFolder(const TestFolder&) = delete;
  TestFolder& operator=(const TestFolder&) = delete;
  ~TestFolder() { std::filesystem::remove_all(path_); }

  std::string file(const std::string& name) const { return (path_ / name).string(); }
  /// Writes a file and returns its path.
  std::string write(const std::string& name, std::string_view content) const {
    std::ofstream out(path_ / name, std::ios::binary);
    out.write(content.data(), static_cast<std::streamsize>(content.size()));
    return file(name);
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace mneme
