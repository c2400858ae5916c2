#include "recall/remote_embedder.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <thread>

#include "base/error.h"
#include "base/json.h"
#include "recall/index/vector_index.h"
#include "weights/store/http_client.h"

namespace mneme::recall {
namespace {

constexpr uint64_t kMostAnswerBytes = uint64_t{64} << 20;
constexpr int kFirstWaitMs = 500, kMostWaitMs = 30'000;

/// "host[:port]" of a URL.
std::string_view authority_of(std::string_view url) {
  const size_t begin = url.find("://") + 3;
  return url.substr(begin, url.find_first_of("/?#", begin) - begin);
}

bool is_this_machine(std::string_view authority) {
  const std::string_view host = authority.substr(0, authority.rfind(':'));
  return host == "localhost" || host.starts_with("127.") || host == "[::1]" || authority == "[::1]";
}

bool may_pass(long status) {
  return status == 408 || status == 429 || (status >= 500 && status <= 599);
}

/// What a server says of a refusal: error.message of the JSON, or the beginning of the text.
std::string reason_in(const std::string& answer) {
  try {
    const Json json = parse_json(answer, "answer");
    const Json* error = json.is_object() && json.contains("error") ? &json["error"] : nullptr;
    if (error != nullptr && error->is_string()) return brief_text(error->get<std::string>(), 200);
    if (error != nullptr && error->is_object() && error->contains("message") && (*error)["message"].is_string()) {
      return brief_text((*error)["message"].get<std::string>(), 200);
    }
  } catch (const Error&) {
  }
  return brief_text(answer, 120);
}

}  // namespace

std::vector<std::vector<float>> parse_embeddings(std::string_view answer, size_t n, uint32_t dimension,
                                                 std::string_view what) {
  const auto refuse = [&](const std::string& why) { fail(ErrorCode::kCorruptData, "[embed] {}: {}", what, why); };
  const SortedJson json = parse_sorted_json(answer, what, 16);
  if (!json.is_object() || !json.contains("data") || !json["data"].is_array()) {
    refuse("expected an object with an array \"data\", found other JSON");
  }
  const SortedJson& data = json["data"];
  if (data.size() != n) refuse(fmt::format("expected {} vectors, found {}", n, data.size()));
  std::vector<std::vector<float>> vectors(n);
  size_t wanted = dimension;
  for (const SortedJson& each : data) {
    if (!each.is_object() || !each.contains("index") || !each["index"].is_number_unsigned() ||
        !each.contains("embedding") || !each["embedding"].is_array()) {
      refuse("expected \"index\" and an array \"embedding\" in each element, found other JSON");
    }
    const auto index = each["index"].get<uint64_t>();
    if (index >= n) refuse(fmt::format("expected an index below {}, found {}", n, index));
    std::vector<float>& vector = vectors[index];
    if (!vector.empty()) refuse(fmt::format("expected each index once, found {} twice", index));
    const SortedJson& values = each["embedding"];
    if (wanted == 0) wanted = values.size();
    if (values.size() != wanted || wanted == 0 || wanted > ann::kMaxDimension) {
      refuse(fmt::format("expected {} numbers, found {} in vector {}",
                         wanted == 0 || wanted > ann::kMaxDimension ? fmt::format("1 to {}", ann::kMaxDimension)
                                                                    : std::to_string(wanted),
                         values.size(), index));
    }
    bool any = false;
    for (const SortedJson& value : values) {
      const double x = value.is_number() ? value.get<double>() : NAN;
      // Also what would overflow f32, or its square.
      if (!(std::abs(x) < 1e15))
        refuse(fmt::format("expected finite numbers, found {} in vector {}", brief_text(value.dump()), index));
      vector.push_back(static_cast<float>(x));
      any |= vector.back() != 0;
    }
    if (!any) refuse(fmt::format("expected a direction, found only zeros in vector {}", index));
  }
  return vectors;
}

RemoteEmbedder::RemoteEmbedder(const std::string& name, RemoteEmbedderOptions options)
    : options_(std::move(options)), client_(std::make_unique<HttpClient>()) {
  const size_t hash = name.find('#');
  const auto refuse = [&](const char* what) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("[open embedder] {}: {}", brief_text(name, 200), what),
                "e.g. https://api.openai.com/v1#text-embedding-3-small");
  };
  if (hash == name.npos || hash + 1 == name.size()) refuse("expected #MODEL at the end, found none");
  std::string base = name.substr(0, hash);
  while (base.ends_with('/')) base.pop_back();
  model_ = name.substr(hash + 1);
  const std::string_view authority = authority_of(base);
  if (authority.empty()) refuse("expected a host, found none");
  if (authority.find('@') != authority.npos) refuse("expected no password in the URL; MNEME_EMBED_KEY holds the key");
  if (base.find('?') != base.npos) refuse("expected a path without a query");
  if (options_.key.find_first_of("\r\n") != std::string::npos) refuse("expected a key of one line in MNEME_EMBED_KEY");
  if (!options_.key.empty() && base.starts_with("http://") && !is_this_machine(authority)) {
    refuse("expected https for a key to be sent, found http; unset MNEME_EMBED_KEY to go without");
  }
  if (!options_.wait) options_.wait = [](int ms) { std::this_thread::sleep_for(std::chrono::milliseconds(ms)); };
  url_ = base + "/embeddings";
  name_ = base + "#" + model_;
  dimension_ = static_cast<uint32_t>(embed(std::vector<std::string>{"a"}, Role::kPassage).front().size());
}

RemoteEmbedder::~RemoteEmbedder() = default;

std::string RemoteEmbedder::post(const std::string& body) {
  std::vector<std::string> headers = {"Content-Type: application/json", "Accept: application/json", "Expect:"};
  if (!options_.key.empty()) headers.push_back("Authorization: Bearer " + options_.key);
  for (int attempt = 1, wait = kFirstWaitMs;; ++attempt, wait = std::min(2 * wait, kMostWaitMs)) {
    std::string answer;
    const HttpResponse response = client_->post_text(url_, headers, body, options_.seconds, kMostAnswerBytes, answer);
    if (response.failure.empty() && response.status == 200) return answer;
    const bool again = !response.failure.empty() || may_pass(response.status);
    if (!again || attempt >= options_.attempts) {
      const std::string what = !response.failure.empty() ? response.failure
                                                         : fmt::format("expected status 200, found {}: {}",
                                                                       response.status, reason_in(answer));
      std::string hint;
      if (response.status == 401 || response.status == 403) hint = "MNEME_EMBED_KEY holds the key";
      if (response.status == 404) hint = "the URL ends before /embeddings, as in https://HOST/v1#MODEL";
      throw Error(ErrorCode::kIo,
                  fmt::format("[embed] {}: {}{}", url_, what,
                              attempt > 1 ? fmt::format(" ({} attempts)", attempt) : std::string()),
                  hint);
    }
    int ms = wait;
    if (const std::string* after = response.header("retry-after")) {
      if (const auto seconds = parse_decimal(*after)) {
        ms = static_cast<int>(std::clamp<uint64_t>(*seconds, 0, kMostWaitMs / 1000)) * 1000;
      }
    }
    options_.wait(ms);
  }
}

std::vector<std::vector<float>> RemoteEmbedder::embed(std::span<const std::string> texts, Role) {
  std::vector<std::vector<float>> vectors;
  for (size_t begin = 0; begin < texts.size();) {
    size_t n = 0, bytes = 0;
    SortedJson input = SortedJson::array();
    while (begin + n < texts.size() && n < options_.most_texts) {
      const std::string& text = texts[begin + n];
      if (n > 0 && bytes + text.size() > options_.most_bytes) break;
      bytes += text.size();
      // Servers refuse an empty text; records that point to a file may have none.
      input.push_back(text.empty() ? std::string(" ") : text);
      ++n;
    }
    const SortedJson body = {{"model", model_}, {"input", input}, {"encoding_format", "float"}};
    for (std::vector<float>& vector : parse_embeddings(post(body.dump()), n, dimension_, url_))
      vectors.push_back(std::move(vector));
    begin += n;
  }
  return vectors;
}

}  // namespace mneme::recall
