#include "model/hyperparameters.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace mneme {
namespace {

constexpr uint64_t kMaxExtent = uint64_t{1} << 30;
constexpr uint64_t kMaxLayers = 4096;

/// Reads keys under the prefix of one architecture.
class Keys {
 public:
  Keys(const Metadata& metadata, std::string prefix) : metadata_(metadata), prefix_(std::move(prefix)) {}

  std::string full(const std::string& key) const { return prefix_ + "." + key; }

  uint32_t required(const std::string& key, uint64_t most = kMaxExtent) const {
    return checked(key, metadata_.get_u64(full(key)), most);
  }

  uint32_t optional(const std::string& key, uint32_t otherwise, uint64_t most = kMaxExtent) const {
    const auto value = metadata_.find_u64(full(key));
    return value ? checked(key, *value, most) : otherwise;
  }

  double number(const std::string& key, double otherwise) const {
    return metadata_.find_f64(full(key)).value_or(otherwise);
  }

  /// One value for all layers, or an array with one for each.
  std::vector<uint32_t> per_layer(const std::string& key, uint32_t n_layers, std::optional<uint32_t> otherwise) const {
    if (const auto list = metadata_.find_u64_per_layer(full(key), n_layers)) {
      std::vector<uint32_t> out;
      for (uint64_t value : *list) out.push_back(checked(key, value, kMaxExtent));
      return out;
    }
    const uint32_t one = otherwise ? optional(key, *otherwise) : required(key);
    return std::vector<uint32_t>(n_layers, one);
  }

 private:
  uint32_t checked(const std::string& key, uint64_t value, uint64_t most) const {
    if (value > most) fail(ErrorCode::kCorruptData, "[model] {}: expected at most {}, found {}", full(key), most, value);
    return static_cast<uint32_t>(value);
  }

  const Metadata& metadata_;
  std::string prefix_;
};

void require(bool holds, const std::string& what) {
  if (!holds) fail(ErrorCode::kCorruptData, "[model] {}", what);
}

void read_rope(const Keys& keys, const Metadata& metadata, Hyperparameters& h) {
  h.n_rot = keys.optional("rope.dimension_count", h.key_dim);
  h.rope_base = keys.number("rope.freq_base", 10000);
  require(h.rope_base > 0, keys.full("rope.freq_base") + ": expected a positive number");
  require(h.n_rot % 2 == 0 && h.n_rot <= h.key_dim,
          fmt::format("{}: expected an even number up to {}, found {}", keys.full("rope.dimension_count"), h.key_dim,
                      h.n_rot));
  const std::string scaling(metadata.find_string(keys.full("rope.scaling.type")).value_or("linear"));
  const double factor = keys.number("rope.scaling.factor", keys.number("rope.scale_linear", 0));
  require(factor >= 0, keys.full("rope.scaling.factor") + ": expected a positive number");
  require(scaling == "none" || scaling == "linear" || scaling == "yarn" || scaling == "longrope",
          fmt::format("{}: expected none, linear, yarn or longrope, found '{}'", keys.full("rope.scaling.type"), scaling));
  if (factor > 0 && (scaling == "linear" || scaling == "yarn")) h.rope_frequency_scale = 1 / factor;
  h.rope_yarn = scaling == "yarn" && factor > 0;
  h.rope_original_context = keys.optional("rope.scaling.original_context_length", h.n_context);
  h.rope_attention_factor = keys.number("rope.scaling.attn_factor", 1);
}

}  // namespace

Hyperparameters read_hyperparameters(const Metadata& metadata) {
  Hyperparameters h;
  h.architecture = metadata.get_string("general.architecture");
  const Keys keys(metadata, h.architecture);

  h.n_context = keys.required("context_length");
  h.width = keys.required("embedding_length");
  h.n_layers = keys.required("block_count", kMaxLayers);
  require(h.width > 0 && h.n_layers > 0 && h.n_context > 0, "expected at least one layer, channel and position");
  h.hidden = keys.per_layer("feed_forward_length", h.n_layers, std::nullopt);
  h.n_heads = keys.per_layer("attention.head_count", h.n_layers, std::nullopt);
  h.n_kv_heads = h.n_heads;
  if (metadata.has(keys.full("attention.head_count_kv"))) {
    h.n_kv_heads = keys.per_layer("attention.head_count_kv", h.n_layers, std::nullopt);
  }
  for (size_t i = 0; i < h.n_layers; ++i) {
    require(h.n_heads[i] > 0 && h.n_kv_heads[i] > 0 && h.n_heads[i] % h.n_kv_heads[i] == 0,
            fmt::format("layer {}: expected heads to be a multiple of kv heads, found {} and {}", i, h.n_heads[i],
                        h.n_kv_heads[i]));
  }
  h.key_dim = keys.optional("attention.key_length", h.width / h.n_heads[0]);
  h.value_dim = keys.optional("attention.value_length", h.width / h.n_heads[0]);
  require(h.key_dim > 0 && h.value_dim > 0, "expected a head width above zero");
  h.norm_eps = static_cast<float>(
      keys.number("attention.layer_norm_rms_epsilon", keys.number("attention.layer_norm_epsilon", -1)));
  require(h.norm_eps >= 0, keys.full("attention.layer_norm_rms_epsilon") + ": expected a number, found none");
  h.window = keys.optional("attention.sliding_window", 0);
  h.n_experts = keys.optional("expert_count", 0, 65536);
  h.n_experts_used = keys.optional("expert_used_count", 0, 65536);
  require(h.n_experts == 0 || (h.n_experts_used >= 1 && h.n_experts_used <= h.n_experts),
          fmt::format("{}: expected 1 to {}, found {}", keys.full("expert_used_count"), h.n_experts, h.n_experts_used));
  read_rope(keys, metadata, h);

  if (const auto tokens = metadata.find_array_string("tokenizer.ggml.tokens")) {
    h.n_vocab = static_cast<uint32_t>(std::min<size_t>(tokens->size(), kMaxExtent));
  } else {
    h.n_vocab = keys.required("vocab_size");
  }
  require(h.n_vocab > 0, "expected a vocabulary");
  return h;
}

}  // namespace mneme
