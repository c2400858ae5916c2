#include "context/kv_choices.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <initializer_list>
#include <map>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/nearest_name.h"

namespace mneme {
namespace {

using kernels::CodedFormat;

/// One part of the text: name:positional,key=value,...
class Part {
 public:
  explicit Part(std::string_view text) : text_(text) {
    const size_t colon = text.find(':');
    name_ = text.substr(0, colon);
    if (colon == std::string_view::npos) return;
    std::string_view rest = text.substr(colon + 1);
    bool first = true;
    while (true) {
      const size_t comma = rest.find(',');
      const std::string_view item = rest.substr(0, comma);
      const size_t equals = item.find('=');
      if (equals == std::string_view::npos) {
        if (!first || item.empty()) wrong("key=value", item);
        positional_ = item;
      } else {
        const std::string key(item.substr(0, equals));
        values_.emplace(key, item.substr(equals + 1));
      }
      first = false;
      if (comma == std::string_view::npos) break;
      rest = rest.substr(comma + 1);
    }
  }

  const std::string& name() const { return name_; }

  /// The value of `key`, or the positional one when `key` is the part's main argument.
  std::optional<std::string> take(const std::string& key, bool main = false) {
    known_.push_back(key);
    if (main && !positional_.empty()) return std::exchange(positional_, {});
    const auto found = values_.find(key);
    if (found == values_.end()) return std::nullopt;
    if (values_.count(key) > 1) wrong("each key once", key);
    std::string value = found->second;
    values_.erase(found);
    return value;
  }

  /// All values of a key that may be repeated, the positional one first.
  std::vector<std::string> take_all(const std::string& key) {
    known_.push_back(key);
    std::vector<std::string> out;
    if (!positional_.empty()) out.push_back(std::exchange(positional_, {}));
    const auto [begin, end] = values_.equal_range(key);
    for (auto it = begin; it != end; ++it) out.push_back(it->second);
    values_.erase(begin, end);
    return out;
  }

  uint32_t count(const std::string& key, uint32_t otherwise, uint32_t least, uint32_t most, bool main = false) {
    const std::optional<std::string> text = take(key, main);
    if (!text) return otherwise;
    uint32_t value = 0;
    const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
    if (error != std::errc{} || end != text->data() + text->size() || value < least || value > most) {
      wrong(fmt::format("{} of {} to {}", key, least, most), *text);
    }
    return value;
  }

  float fraction(const std::string& key, std::optional<float> otherwise, bool main = false) {
    const std::optional<std::string> text = take(key, main);
    if (!text && otherwise) return *otherwise;
    float value = 0;
    const std::string given = text.value_or("");
    const auto [end, error] = std::from_chars(given.data(), given.data() + given.size(), value);
    if (error != std::errc{} || end != given.data() + given.size() || !(value > 0 && value < 1)) {
      wrong(fmt::format("a {} between 0 and 1", key), given.empty() ? "none" : given);
    }
    return value;
  }

  template <size_t N>
  size_t choice(const std::string& key, const std::array<std::string_view, N>& names, size_t otherwise) {
    const std::optional<std::string> text = take(key);
    if (!text) return otherwise;
    const auto found = std::find(names.begin(), names.end(), *text);
    if (found == names.end()) wrong(fmt::format("{} as one of {}", key, fmt::join(names, ", ")), *text);
    return static_cast<size_t>(found - names.begin());
  }

  /// Refuses what nobody asked for.
  void finish() const {
    if (!positional_.empty()) wrong("no value without a key", positional_);
    for (const auto& [key, value] : values_) wrong(fmt::format("keys {}", fmt::join(known_, ", ")), key);
  }

  [[noreturn]] void wrong(std::string_view expected, std::string_view found) const {
    fail(ErrorCode::kInvalidArgument, "[kv policy] expected {} in '{}', found '{}'", expected, text_, found);
  }

 private:
  std::string_view text_;
  std::string name_, positional_;
  std::multimap<std::string, std::string, std::less<>> values_;
  std::vector<std::string> known_;
};

uint8_t bits_of(Part& part) {
  const uint32_t bits = part.count("bits", 0, 2, 8, true);
  if (bits != 2 && bits != 3 && bits != 4 && bits != 8) part.wrong("2, 3, 4 or 8 bits", std::to_string(bits));
  return static_cast<uint8_t>(bits);
}

uint32_t group_of(Part& part, const std::string& key, uint32_t otherwise) {
  const uint32_t group = part.count(key, otherwise, 32, 512);
  if (group % 32 != 0) part.wrong(fmt::format("a {} that is a multiple of 32", key), std::to_string(group));
  return group;
}

/// Codecs of keys and values, and the tail before them.
void read_codec(Part& part, KvChoices& out) {
  // Keys are matrices [tokens, channels] and values [channels, tokens]: "per channel" lies along the lanes of one and along the
  // depth of the other.
  const auto per_channel = [](bool keys, bool channel) {
    return keys == channel ? CodedFormat::Groups::kAlongLanes : CodedFormat::Groups::kAlongDepth;
  };
  const uint8_t bits = bits_of(part);
  constexpr std::array<std::string_view, 2> kAxes = {"token", "channel"};
  CodedFormat format;
  format.bits = bits;
  bool keys_per_channel = false, values_per_channel = false;
  if (part.name() == "bfp") {
    format.scales = CodedFormat::Scales::kExponent;
    format.group = group_of(part, "block", 32);
    constexpr std::array<std::string_view, 2> kSwitch = {"off", "on"};
    out.sort = part.choice("sort", kSwitch, 1) == 1;
  } else {
    format.group = group_of(part, "group", 32);
    if (part.name() == "kivi") {
      keys_per_channel = part.choice("keys", kAxes, 1) == 1;
      values_per_channel = part.choice("values", kAxes, 0) == 1;
    }
  }
  out.residual = part.count("residual", out.residual, 1, 1u << 20);
  format.groups = per_channel(true, keys_per_channel);
  out.keys = {true, format};
  format.groups = per_channel(false, values_per_channel);
  out.values = {true, format};
}

/// High and low bits of tokens by importance.
void read_importance(Part& part, KvChoices& out) {
  KvChoices::Importance importance;
  constexpr std::array<std::string_view, 2> kSwitch = {"off", "on"};
  importance.keep = part.fraction("keep", importance.keep, true);
  const auto bits = [&](const std::string& key, uint8_t otherwise, std::initializer_list<uint32_t> allowed) {
    const uint32_t value = part.count(key, otherwise, 2, 16);
    if (std::find(allowed.begin(), allowed.end(), value) == allowed.end()) {
      part.wrong(fmt::format("{} of {} bits", key, fmt::join(allowed, ", ")), std::to_string(value));
    }
    return static_cast<uint8_t>(value);
  };
  if (part.name() == "h2o") {
    importance.low_bits = 0;
  } else {
    importance.high_bits = bits("hi", importance.high_bits, {4, 8, 16});
    importance.low_bits = bits("lo", importance.low_bits, {2, 3, 4});
    if (importance.low_bits >= importance.high_bits) part.wrong("hi above lo", fmt::format("lo={}", importance.low_bits));
    importance.balance = part.choice("balance", kSwitch, 1) == 1;
  }
  out.residual = part.count("residual", out.residual, 64, 1u << 20);
  if (out.residual % 64 != 0) part.wrong("a residual that is a multiple of 64", std::to_string(out.residual));
  out.importance = importance;
}

/// Rank, budget and tiers of ShadowKV.
void read_shadow(Part& part, KvChoices& out) {
  KvChoices::Shadow shadow;
  constexpr std::array<std::string_view, 2> kTiers = {"ram", "disk"};
  shadow.rank = part.count("rank", shadow.rank, 1, 1u << 16, true);
  if (const std::optional<std::string> budget = part.take("budget")) {
    float percent = 0;
    const char* const text_end = budget->data() + budget->size();
    const auto [end, error] = std::from_chars(budget->data(), text_end, percent);
    const bool is_share = error == std::errc{} && end + 1 == text_end && *end == '%';
    if (is_share && percent > 0 && percent <= 100) {
      shadow.share = percent / 100;
    } else {
      const auto [number_end, wrong] = std::from_chars(budget->data(), text_end, shadow.tokens);
      if (wrong != std::errc{} || number_end != text_end || shadow.tokens == 0) {
        part.wrong("a budget in tokens, or in percent of at most 100 %", *budget);
      }
      shadow.share = 0;
    }
  }
  shadow.outliers = part.count("outliers", shadow.outliers, 0, 128);
  shadow.fit = part.count("fit", shadow.fit, 256, 1u << 20);
  if (shadow.fit % 256 != 0) part.wrong("a fit that is a multiple of 256", std::to_string(shadow.fit));
  shadow.on_disk = part.choice("values", kTiers, 0) == 1;
  out.residual = part.count("residual", out.residual, 32, 1u << 20);
  out.shadow = shadow;
}

/// A density up to 1, as a decimal or as 1/N.
float density(Part& part, const std::string& key, float otherwise, bool main = false) {
  const std::optional<std::string> text = part.take(key, main);
  if (!text) return otherwise;
  float value = 0;
  const bool is_part = text->starts_with("1/");
  const char* const begin = text->data() + (is_part ? 2 : 0);
  const auto [end, error] = std::from_chars(begin, text->data() + text->size(), value);
  if (is_part && value > 0) value = 1 / value;
  if (error != std::errc{} || end != text->data() + text->size() || !(value > 0 && value <= 1)) {
    part.wrong(fmt::format("{} above 0 and up to 1", key), *text);
  }
  return value;
}

/// Where keys and values of InstInfer are, and how much of them is looked at.
void read_storage(Part& part, KvChoices& out) {
  KvChoices::InStorage storage;
  for (const std::string& place : part.take_all("at")) {
    if (place == "disk") continue;
    const size_t colon = place.rfind(':');
    uint32_t port = 0;
    const char* const text_end = place.data() + place.size();
    const bool has_port = colon != std::string::npos && colon > 0 &&
                          std::from_chars(place.data() + colon + 1, text_end, port).ptr == text_end && port >= 1 &&
                          port <= 65535;
    if (!has_port && !place.starts_with('/')) part.wrong("disk, HOST:PORT or the path of a socket", place);
    if (std::find(storage.workers.begin(), storage.workers.end(), place) != storage.workers.end()) {
      part.wrong("each worker once", place);
    }
    storage.workers.push_back(place);
  }
  storage.density = density(part, "density", storage.density);
  storage.channels = part.count("channels", storage.channels, 8, 32);
  if ((storage.channels & (storage.channels - 1)) != 0) {
    part.wrong("8, 16 or 32 channels a page", std::to_string(storage.channels));
  }
  out.residual = part.count("residual", out.residual, 16, 1u << 20);
  out.storage = std::move(storage);
}

void read_features(Part& part, KvChoices& out) {
  KvChoices::Features features;
  features.keys = features.values = density(part, "r", features.keys, true);
  features.keys = density(part, "keys", features.keys);
  features.values = density(part, "values", features.values);
  constexpr std::array<std::string_view, 2> kRanks = {"equal", "measured"};
  features.measured = part.choice("ranks", kRanks, 0) == 1;
  if (features.measured && features.keys >= 1 && features.values >= 1) {
    part.wrong("r below 1 with measured ranks, since all channels leave nothing to share out", "1");
  }
  out.residual = part.count("residual", out.residual, 1, 1u << 20);
  out.features = features;
}

constexpr std::array<std::string_view, 14> kNames = {"f16",   "bf16", "f32",    "kivi",      "token",    "bfp",  "think",
                                                     "mikv",  "h2o",  "window", "minicache", "shadowkv", "cskv", "instinfer"};

}  // namespace

KvChoices KvChoices::parse(std::string_view text) {
  KvChoices out;
  std::optional<std::string> codec, plain;
  size_t begin = 0;
  while (true) {
    const size_t plus = text.find('+', begin);
    Part part(text.substr(begin, plus == std::string_view::npos ? plus : plus - begin));
    const std::string& name = part.name();
    const auto only_once = [&](bool already) {
      if (already) part.wrong("each choice once", name);
    };
    if (name == "f16" || name == "bf16" || name == "f32") {
      only_once(plain.has_value());
      plain = name;
      out.plain = name == "f16" ? DType::kF16 : name == "bf16" ? DType::kBF16 : DType::kF32;
    } else if (name == "kivi" || name == "token" || name == "bfp") {
      if (codec) {
        fail(ErrorCode::kInvalidArgument, "[kv policy] expected one codec, found '{}' and '{}'; their grids exclude each other",
             *codec, name);
      }
      codec = name;
      read_codec(part, out);
    } else if (name == "think") {
      only_once(out.prune > 0);
      out.prune = part.fraction("fraction", std::nullopt, true);
      out.residual = part.count("residual", out.residual, 1, 1u << 20);
    } else if (name == "mikv" || name == "h2o") {
      only_once(out.importance.has_value());
      read_importance(part, out);
    } else if (name == "minicache") {
      only_once(out.sharing.has_value());
      Sharing sharing;
      sharing.start = part.fraction("start", sharing.start, true);
      sharing.t = part.fraction("t", sharing.t);
      sharing.gamma = part.fraction("gamma", sharing.gamma);
      out.sharing = sharing;
    } else if (name == "shadowkv") {
      only_once(out.shadow.has_value());
      read_shadow(part, out);
    } else if (name == "cskv") {
      only_once(out.features.has_value());
      read_features(part, out);
    } else if (name == "instinfer") {
      only_once(out.storage.has_value());
      read_storage(part, out);
    } else if (name == "window") {
      only_once(out.window.has_value());
      out.window = Window{part.count("sink", 8, 0, 1u << 16), part.count("recent", 2048, 1, 1u << 30, true)};
    } else {
      fail(ErrorCode::kInvalidArgument, "[kv policy] expected one of {}, found '{}'{}", fmt::join(kNames, ", "), name,
           did_you_mean(name, kNames));
    }
    part.finish();
    if (plus == std::string_view::npos) break;
    begin = plus + 1;
  }
  if (plain && *plain != "f16" && (out.seals() || out.window || out.importance || out.sharing || out.shadow || out.features ||
                                      out.storage)) {
    fail(ErrorCode::kInvalidArgument, "[kv policy] expected {} alone: recent tokens beside other choices are kept as f16, "
         "found '{}'", *plain, text);
  }
  if (out.prune > 0 && out.sort) {
    fail(ErrorCode::kInvalidArgument, "[kv policy] expected one channel map, found think and bfp with sort in '{}'; use "
         "bfp:B,sort=off", text);
  }
  if (out.sharing && (out.prune > 0 || out.sort || out.importance || out.window)) {
    fail(ErrorCode::kInvalidArgument,
         "[kv policy] expected minicache with kivi, token or bfp:B,sort=off, found '{}'; merged layers must hold the same tokens "
         "and channels", text);
  }
  if (out.features && (out.prune > 0 || out.sort || out.window || out.importance || out.sharing || out.shadow)) {
    fail(ErrorCode::kInvalidArgument,
         "[kv policy] expected cskv with kivi, token or bfp:B,sort=off, found '{}'; features are no channels, and their bases differ "
         "by layer", text);
  }
  if (out.shadow && (out.seals() || out.window || out.importance || out.sharing)) {
    fail(ErrorCode::kInvalidArgument,
         "[kv policy] expected shadowkv alone, found '{}'; its keys are a product that other codecs and layers cannot read, and "
         "it must hold every token", text);
  }
  if (out.storage &&
      (out.seals() || out.window || out.importance || out.sharing || out.shadow || out.features)) {
    fail(ErrorCode::kInvalidArgument,
         "[kv policy] expected instinfer alone, found '{}'; its pages hold single channels and tokens in f16, and it must hold "
         "every token", text);
  }
  if (out.window && (out.seals() || out.importance)) {
    fail(ErrorCode::kInvalidArgument, "[kv policy] expected window alone, found '{}'; a window is small and kept as f16", text);
  }
  if (out.importance && out.seals()) {
    fail(ErrorCode::kInvalidArgument, "[kv policy] expected mikv or h2o alone, found '{}'; mikv has codecs of its own: hi and lo",
         text);
  }
  return out;
}

}  // namespace mneme
