#pragma once

#include <gtest/gtest.h>
#include <httplib.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "weights/store/http_client.h"

namespace mneme {

/// A file on the test server and how the server (mis)behaves for it.
struct ServedFile {
  std::string content, etag;
  std::string sha256_header;  ///< X-Linked-Etag, without quotes.
  std::string last_modified;
  bool knows_ranges = true;
  bool ignores_if_range = false;  ///< Sends a range although the file is another now.
  size_t cut_after = SIZE_MAX;    ///< Bytes of each answer's body after which the connection breaks.
  int refusals = 0;               ///< Answers "503" so many times first.
  int refusal_status = 503;
};

/// HTTP server on loopback, in a thread of its own.
class TestServer {
 public:
  TestServer() {
    ::setenv("no_proxy", "127.0.0.1", 1);
    port_ = server_.bind_to_any_port("127.0.0.1");
    thread_ = std::thread([this] { server_.listen_after_bind(); });
    while (!server_.is_running()) std::this_thread::yield();
  }
  ~TestServer() {
    server_.stop();
    thread_.join();
  }

  std::string url(const std::string& path) const { return "http://127.0.0.1:" + std::to_string(port_) + path; }
  httplib::Server& routes() { return server_; }

  /// Serves `file` at a path; the test may change it between requests.
  void serve(const std::string& path, ServedFile& file) {
    server_.Get(path, [this, &file](const httplib::Request& request, httplib::Response& response) {
      const std::lock_guard lock(mutex_);
      ranges_.push_back(request.get_header_value("Range"));
      authorizations_.push_back(request.get_header_value("Authorization"));
      answer(file, request, response);
    });
  }

  /// "Range" headers of all requests so far.
  std::vector<std::string> ranges() const {
    const std::lock_guard lock(mutex_);
    return ranges_;
  }
  std::vector<std::string> authorizations() const {
    const std::lock_guard lock(mutex_);
    return authorizations_;
  }
  size_t n_requests() const { return ranges().size(); }

 private:
  static void answer(ServedFile& file, const httplib::Request& request, httplib::Response& response) {
    // The server would cut the body to the range by itself; these tests do it by hand.
    const_cast<httplib::Request&>(request).ranges.clear();
    response.status = 200;
    if (file.refusals > 0) {
      --file.refusals;
      response.status = file.refusal_status;
      return;
    }
    if (!file.etag.empty()) response.set_header("ETag", file.etag);
    if (!file.last_modified.empty()) response.set_header("Last-Modified", file.last_modified);
    if (!file.sha256_header.empty()) response.set_header("X-Linked-Etag", "\"" + file.sha256_header + "\"");
    if (!file.etag.empty() && request.get_header_value("If-None-Match") == file.etag) {
      response.status = 304;
      return;
    }
    size_t first = 0;
    const std::string range = request.get_header_value("Range");
    const std::string condition = request.get_header_value("If-Range");
    const bool same = condition.empty() || condition == file.etag || condition == file.last_modified;
    if (file.knows_ranges && range.starts_with("bytes=") && (same || file.ignores_if_range)) {
      first = parse_decimal(range.substr(6, range.size() - 7)).value_or(0);
      if (first >= file.content.size()) {
        response.status = 416;
        return;
      }
      response.status = 206;
      response.set_header("Content-Range", "bytes " + std::to_string(first) + "-" +
                                               std::to_string(file.content.size() - 1) + "/" +
                                               std::to_string(file.content.size()));
    }
    const std::string body = file.content.substr(first);
    if (file.cut_after >= body.size()) {
      response.set_content(body, "application/octet-stream");
      return;
    }
    const size_t sent = file.cut_after;
    response.set_content_provider(body.size(), "application/octet-stream",
                                  [body, sent](size_t offset, size_t, httplib::DataSink& sink) {
                                    if (offset < sent) sink.write(body.data() + offset, sent - offset);
                                    return offset < sent;
                                  });
  }

  httplib::Server server_;
  int port_ = 0;
  std::thread thread_;
  mutable std::mutex mutex_;
  std::vector<std::string> ranges_, authorizations_;
};

/// A fresh folder for each test.
class FolderTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = std::filesystem::temp_directory_path() /
              ("mneme_" + std::to_string(::getpid()) + "_" + test->test_suite_name() + "_" + test->name());
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string path(const std::string& name) const { return (folder_ / name).string(); }

  std::filesystem::path folder_;
};

}  // namespace mneme
