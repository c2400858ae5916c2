#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace mneme {

/// What a server answered, without the body. Names of headers are in lower case.
struct HttpResponse {
  long status = 0;
  std::string url;                                             ///< Where redirects ended.
  std::unordered_map<std::string, std::string> headers;        ///< Of the last answer.
  std::unordered_map<std::string, std::string> first_headers;  ///< Of the first answer, which may be a redirect.
  /// Why the transfer broke off in a way that may be better next time (connection lost, time-out); empty when it did
  /// not.
  std::string failure;

  /// A header of the last answer; null when it is missing.
  const std::string* header(std::string_view name) const;
  /// Content-Length of the last answer.
  std::optional<uint64_t> content_length() const;
};

/// Receives an answer while it arrives.
class HttpSink {
 public:
  virtual ~HttpSink() = default;
  /// Called once, before the body and also when there is none.
  virtual void begin(const HttpResponse& response) = 0;
  /// The next bytes of the body. An exception ends the transfer and comes out of get().
  virtual void body(std::span<const std::byte> bytes) = 0;
};

/// Fetches and posts over HTTP and HTTPS, with redirects (never from HTTPS to HTTP), certificate checks and the system's proxy
/// settings. A connection that gives nothing for a minute counts as broken. Not for use by two threads at once.
class HttpClient {
 public:
  HttpClient();
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  /// GET with further request headers ("Range: bytes=5-"); an Authorization header is not sent to another host that a
  /// redirect names. Throws Error for what no repetition will mend: a bad URL, an unknown host, a refused certificate,
  /// too many redirects.
  HttpResponse get(const std::string& url, const std::vector<std::string>& headers, HttpSink& sink);
  /// The whole body as a string, for answers of at most `max_bytes`.
  HttpResponse get_text(const std::string& url, const std::vector<std::string>& headers, uint64_t max_bytes,
                        std::string& body);
  /// POST of `body`, which is sent once to this URL and nowhere else: a redirect is an answer like others. The answer, of
  /// at most `max_bytes`, must be there after `seconds`. The same errors.
  HttpResponse post_text(const std::string& url, const std::vector<std::string>& headers, const std::string& body,
                         long seconds, uint64_t max_bytes, std::string& answer);

 private:
  HttpResponse perform(const std::string& url, const std::vector<std::string>& headers, HttpSink& sink,
                       const std::string* body, long seconds);
  struct Transfer;
  struct Close {
    void operator()(void* handle) const;
  };
  std::unique_ptr<void, Close> handle_;
};

/// Whether a text is an http:// or https:// URL.
bool is_http_url(std::string_view text);

/// Digits as a number; nothing for other text or a number that does not fit.
std::optional<uint64_t> parse_decimal(std::string_view text);

}  // namespace mneme
