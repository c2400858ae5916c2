#include "weights/store/http_client.h"

#include <curl/curl.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <exception>

#include "base/error.h"

namespace mneme {
namespace {

constexpr long kConnectSeconds = 30;
constexpr long kStallSeconds = 60;
constexpr long kMaxRedirects = 10;

/// libcurl wants to be set up once, before other threads use it.
void initialize_curl() {
  static const CURLcode result = curl_global_init(CURL_GLOBAL_DEFAULT);
  if (result != CURLE_OK) fail(ErrorCode::kIo, "[http] {}", curl_easy_strerror(result));
}

std::string_view trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == text.npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1);
}

std::string lower_case(std::string_view text) {
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  return lower;
}

/// Failures that may pass; everything else would come again at once.
bool may_pass(CURLcode code) {
  switch (code) {
    case CURLE_COULDNT_CONNECT:
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_PARTIAL_FILE:
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
    case CURLE_SSL_CONNECT_ERROR:
      return true;
    default:
      return false;
  }
}

class TextSink final : public HttpSink {
 public:
  TextSink(std::string& body, uint64_t max_bytes) : body_(body), max_bytes_(max_bytes) {}
  void begin(const HttpResponse&) override { body_.clear(); }
  void body(std::span<const std::byte> bytes) override {
    if (bytes.size() > max_bytes_ - body_.size()) {
      fail(ErrorCode::kCorruptData, "[http] expected an answer of at most {} bytes", max_bytes_);
    }
    body_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }

 private:
  std::string& body_;
  uint64_t max_bytes_;
};

}  // namespace

/// One transfer in progress, as libcurl's callbacks see it. Exceptions must not pass through libcurl's C code, so that
/// they are kept and thrown again behind it.
struct HttpClient::Transfer {
  CURL* handle;
  HttpSink& sink;
  HttpResponse response;
  bool begun = false;
  bool first_answer = true;
  std::exception_ptr error;

  void begin() {
    begun = true;
    curl_easy_getinfo(handle, CURLINFO_RESPONSE_CODE, &response.status);
    const char* url = nullptr;
    curl_easy_getinfo(handle, CURLINFO_EFFECTIVE_URL, &url);
    if (url != nullptr) response.url = url;
    sink.begin(response);
  }

  void add_header(std::string_view line) {
    constexpr size_t kMostHeaders = 200;
    if (line.starts_with("HTTP/")) {
      first_answer = first_answer && response.headers.empty();
      response.headers.clear();
      return;
    }
    const size_t colon = line.find(':');
    if (colon == line.npos || response.headers.size() >= kMostHeaders) return;
    const std::string name = lower_case(trimmed(line.substr(0, colon)));
    const std::string value(trimmed(line.substr(colon + 1)));
    response.headers[name] = value;
    if (first_answer) response.first_headers[name] = value;
  }

  static size_t on_header(char* data, size_t size, size_t count, void* self) {
    auto& transfer = *static_cast<Transfer*>(self);
    return transfer.guarded(size * count, [&] { transfer.add_header({data, size * count}); });
  }

  static size_t on_body(char* data, size_t size, size_t count, void* self) {
    auto& transfer = *static_cast<Transfer*>(self);
    return transfer.guarded(size * count, [&] {
      if (!transfer.begun) transfer.begin();
      transfer.sink.body({reinterpret_cast<const std::byte*>(data), size * count});
    });
  }

  /// Runs a callback; any other number than `bytes` makes libcurl stop.
  template <typename Callback>
  size_t guarded(size_t bytes, Callback callback) {
    try {
      callback();
      return bytes;
    } catch (...) {
      error = std::current_exception();
      return bytes == 0 ? 1 : 0;
    }
  }
};

void HttpClient::Close::operator()(void* handle) const {
  curl_easy_cleanup(handle);
}

HttpClient::HttpClient() {
  initialize_curl();
  handle_.reset(curl_easy_init());
  if (handle_ == nullptr) fail(ErrorCode::kIo, "[http] libcurl could not be set up");
}

HttpClient::~HttpClient() = default;

HttpResponse HttpClient::get(const std::string& url, const std::vector<std::string>& headers, HttpSink& sink) {
  return perform(url, headers, sink, nullptr, 0);
}

HttpResponse HttpClient::perform(const std::string& url, const std::vector<std::string>& headers, HttpSink& sink,
                                 const std::string* body, long seconds) {
  if (!is_http_url(url)) fail(ErrorCode::kInvalidArgument, "[http] expected an http or https URL, got '{}'", url);
  CURL* curl = handle_.get();
  curl_easy_reset(curl);
  Transfer transfer{curl, sink, {}, false, true, nullptr};

  struct FreeList {
    void operator()(curl_slist* list) const { curl_slist_free_all(list); }
  };
  std::unique_ptr<curl_slist, FreeList> list;
  for (const std::string& header : headers) {
    curl_slist* longer = curl_slist_append(list.get(), header.c_str());
    if (longer == nullptr) fail(ErrorCode::kIo, "[http] libcurl is out of memory");
    list.release();
    list.reset(longer);
  }
  std::array<char, CURL_ERROR_SIZE> reason{};
  curl_easy_setopt(curl, CURLOPT_URL, url.c_str());
  curl_easy_setopt(curl, CURLOPT_HTTPHEADER, list.get());
  curl_easy_setopt(curl, CURLOPT_USERAGENT, "mneme");
  curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(curl, CURLOPT_REDIR_PROTOCOLS_STR, url.starts_with("https") ? "https" : "http,https");
  curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 1L);
  curl_easy_setopt(curl, CURLOPT_MAXREDIRS, kMaxRedirects);
  curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, kConnectSeconds);
  curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
  curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, kStallSeconds);
  curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, reason.data());
  curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, Transfer::on_header);
  curl_easy_setopt(curl, CURLOPT_HEADERDATA, &transfer);
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, Transfer::on_body);
  curl_easy_setopt(curl, CURLOPT_WRITEDATA, &transfer);
  if (body != nullptr) {
    curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(body->size()));
    curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body->c_str());
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, seconds);
  }

  const CURLcode code = curl_easy_perform(curl);
  curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, nullptr);
  if (transfer.error) std::rethrow_exception(transfer.error);
  if (code == CURLE_OK) {
    if (!transfer.begun) transfer.begin();
    return std::move(transfer.response);
  }
  const std::string message = reason[0] != 0 ? std::string(reason.data()) : curl_easy_strerror(code);
  if (!may_pass(code)) {
    const bool bad_url = code == CURLE_URL_MALFORMAT || code == CURLE_UNSUPPORTED_PROTOCOL;
    fail(bad_url ? ErrorCode::kInvalidArgument : ErrorCode::kIo, "[http] {}: {}", url, message);
  }
  transfer.response.failure = message;
  return std::move(transfer.response);
}

HttpResponse HttpClient::get_text(const std::string& url, const std::vector<std::string>& headers, uint64_t max_bytes,
                                  std::string& body) {
  TextSink sink(body, max_bytes);
  return get(url, headers, sink);
}

HttpResponse HttpClient::post_text(const std::string& url, const std::vector<std::string>& headers,
                                   const std::string& body, long seconds, uint64_t max_bytes, std::string& answer) {
  TextSink sink(answer, max_bytes);
  return perform(url, headers, sink, &body, seconds);
}

const std::string* HttpResponse::header(std::string_view name) const {
  const auto found = headers.find(std::string(name));
  return found == headers.end() ? nullptr : &found->second;
}

std::optional<uint64_t> HttpResponse::content_length() const {
  const std::string* length = header("content-length");
  return length == nullptr ? std::nullopt : parse_decimal(*length);
}

bool is_http_url(std::string_view text) {
  return text.starts_with("http://") || text.starts_with("https://");
}

std::optional<uint64_t> parse_decimal(std::string_view text) {
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

}  // namespace mneme
