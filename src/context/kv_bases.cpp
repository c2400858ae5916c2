#include "context/kv_bases.h"

#include <xxhash.h>

#include <cmath>
#include <cstring>
#include <span>

#include "base/atomic_file.h"
#include "base/checked_math.h"
#include "base/mapped_file.h"
#include "context/state_io.h"

namespace mneme {
namespace {

constexpr char kMagic[8] = {'m', 'n', 'e', 'm', 'e', 'k', 'v', 'b'};
constexpr uint32_t kVersion = 1, kMostLayers = 4096, kMostChannels = 1u << 16;

/// Everything of a layer, in one order for files and identities.
template <typename Put>
void put_layer(const KvBases::Layer& layer, const Put& put) {
  for (const size_t n : {layer.keys.channels, layer.keys.rank, layer.values.channels, layer.values.rank}) {
    const auto size = static_cast<uint32_t>(n);
    put(std::as_bytes(std::span(&size, 1)));
  }
  put(std::as_bytes(std::span(&layer.key_error, 1)));
  put(std::as_bytes(std::span(&layer.value_error, 1)));
  put(std::as_bytes(std::span(layer.key_basis)));
  put(std::as_bytes(std::span(layer.value_basis)));
}

class CollectingKv : public KvLayer {
 public:
  CollectingKv(std::unique_ptr<KvLayer> inner, const KvShape& shape, KvMoments::Layer& moments)
      : inner_(std::move(inner)), shape_(shape), moments_(moments) {}

  void reserve(size_t n_tokens) override { inner_->reserve(n_tokens); }
  void extend(const KvRows& rows, const KvQueries& queries, float* out, size_t out_stride) override {
    add(moments_.keys, rows.k, rows.k_stride, size_t{shape_.n_kv_heads} * shape_.key_dim, rows.n_tokens);
    add(moments_.values, rows.v, rows.v_stride, size_t{shape_.n_kv_heads} * shape_.value_dim, rows.n_tokens);
    inner_->extend(rows, queries, out, out_stride);
  }
  uint64_t bytes() const override { return inner_->bytes(); }
  int64_t n_tokens() const override { return inner_->n_tokens(); }
  bool truncate(int64_t) override { return false; }
  std::unique_ptr<LayerState> copy(CopyScope&) const override {
    fail(ErrorCode::kUnsupported, "[copy] a state that collects moments cannot be copied");
  }
  bool save_rest(int64_t, StateWriter&) const override { return false; }
  void load_rest(StateReader&) override {
    fail(ErrorCode::kUnsupported, "[load] a state that collects moments cannot be loaded");
  }

 private:
  static void add(std::unique_ptr<SecondMoments>& moments, const float* rows, size_t stride, size_t channels,
                  size_t n) {
    if (!moments) moments = std::make_unique<SecondMoments>(channels);
    std::vector<float> dense(n * channels);
    for (size_t t = 0; t < n; ++t) std::copy_n(rows + t * stride, channels, dense.data() + t * channels);
    moments->add(dense.data(), n);
  }

  std::unique_ptr<KvLayer> inner_;
  KvShape shape_;
  KvMoments::Layer& moments_;
};

}  // namespace

uint64_t KvBases::identity() const {
  uint64_t hash = 0;
  for (const Layer& layer : layers) {
    put_layer(layer, [&](std::span<const std::byte> bytes) { hash = XXH64(bytes.data(), bytes.size(), hash); });
  }
  return hash;
}

void KvBases::save(const std::string& path) const {
  std::string content(kMagic, sizeof kMagic);
  const auto put = [&](std::span<const std::byte> bytes) {
    content.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  };
  const uint32_t head[2] = {kVersion, static_cast<uint32_t>(layers.size())};
  put(std::as_bytes(std::span(head)));
  for (const Layer& layer : layers) put_layer(layer, put);
  const uint64_t checksum = XXH64(content.data(), content.size(), 0);
  put(std::as_bytes(std::span(&checksum, 1)));
  AtomicFile file(path);
  file.write(content);
  file.commit();
}

std::shared_ptr<const KvBases> KvBases::load(const std::string& path) {
  const MappedFile file(path);
  return parse(file.bytes(), path);
}

std::shared_ptr<const KvBases> KvBases::parse(std::span<const std::byte> bytes, const std::string& name) {
  if (bytes.size() < sizeof kMagic + 8 + 8 || std::memcmp(bytes.data(), kMagic, sizeof kMagic) != 0) {
    fail(ErrorCode::kCorruptData, "[load kv bases] {}: expected a file of bases, found another", name);
  }
  uint64_t checksum = 0;
  std::memcpy(&checksum, bytes.data() + bytes.size() - 8, 8);
  if (checksum != XXH64(bytes.data(), bytes.size() - 8, 0)) {
    fail(ErrorCode::kCorruptData, "[load kv bases] {}: expected checksum {:016x}, found another", name, checksum);
  }
  StateReader in(bytes.subspan(sizeof kMagic, bytes.size() - sizeof kMagic - 8), "kv bases");
  const auto version = in.get<uint32_t>(), n_layers = in.get<uint32_t>();
  if (version != kVersion || n_layers > kMostLayers) {
    fail(ErrorCode::kCorruptData, "[load kv bases] {}: expected version {} and at most {} layers, found {} and {}",
         name, kVersion, kMostLayers, version, n_layers);
  }
  auto bases = std::make_shared<KvBases>();
  for (uint32_t i = 0; i < n_layers; ++i) {
    Layer layer;
    for (FeatureMap* map : {&layer.keys, &layer.values}) {
      const auto channels = in.get<uint32_t>(), rank = in.get<uint32_t>();
      if (channels > kMostChannels || rank > channels) {
        fail(ErrorCode::kCorruptData, "[load kv bases] {}: expected a rank up to {} channels, found {} of {}", name,
             kMostChannels, rank, channels);
      }
      *map = {channels, rank};
    }
    layer.key_error = in.get<double>();
    layer.value_error = in.get<double>();
    const auto read = [&](const FeatureMap& map, std::vector<float>& basis) {
      const auto from = in.take(map.basis_bytes());  // the bytes are there before memory is taken
      basis.resize(map.rank * map.channels);
      if (!from.empty()) std::memcpy(basis.data(), from.data(), from.size());
      for (const float x : basis) {
        if (!std::isfinite(x)) fail(ErrorCode::kCorruptData, "[load kv bases] {}: expected finite numbers", name);
      }
    };
    read(layer.keys, layer.key_basis);
    read(layer.values, layer.value_basis);
    bases->layers.push_back(std::move(layer));
  }
  in.finish();
  return bases;
}

KvBases::Layer KvMoments::Layer::fit(const KvRanks& ranks) const {
  if (!keys || !values) fail(ErrorCode::kInvalidArgument, "[fit bases] expected keys and values, found none");
  KvBases::Layer layer;
  const auto fit_one = [](const SecondMoments& of, size_t rank, FeatureMap& map, std::vector<float>& basis,
                          double& error) {
    map = {of.channels(), rank};
    basis.resize(map.rank * map.channels);
    of.basis(rank, basis.data());
    error = of.error_of(basis.data(), rank);
  };
  fit_one(*keys, ranks.keys, layer.keys, layer.key_basis, layer.key_error);
  fit_one(*values, ranks.values, layer.values, layer.value_basis, layer.value_error);
  return layer;
}

std::unique_ptr<KvLayer> collect_moments(std::unique_ptr<KvLayer> inner, const KvShape& shape, KvMoments& moments,
                                         size_t layer) {
  if (moments.layers.size() <= layer) {
    fail(ErrorCode::kInvalidArgument, "[fit bases] expected {} layers, found layer {}", moments.layers.size(), layer);
  }
  return std::make_unique<CollectingKv>(std::move(inner), shape, moments.layers[layer]);
}

}  // namespace mneme
