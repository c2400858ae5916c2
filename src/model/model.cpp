#include "model/model.h"

#include <algorithm>
#include <cassert>
#include <limits>

#include "base/checked_math.h"
#include "base/error.h"
#include "base/parallel.h"
#include "kernels/vector_ops.h"
#include "model/architectures.h"
#include "model/weight_loader.h"
#include "tensor/weight_format.h"
#include "weights/calibration.h"

namespace mneme {
namespace {

/// Packed copies begin at cache lines.
constexpr uint64_t kPackedAlignment = 64;

}  // namespace

const WeightMatrix* ModelWeights::empty_matrix(uint64_t rows, uint64_t columns) {
  empty_.push_back(std::make_unique<WeightMatrix>());
  empty_.back()->stored = {DType::kF32, Shape{rows, columns}, nullptr};
  empty_.back()->active = kernels::Matrix::from(empty_.back()->stored);
  return empty_.back().get();
}

const float* ModelWeights::zeros(uint64_t size) {
  zeros_.emplace_back(static_cast<size_t>(size), 0.0f);
  return zeros_.back().data();
}

uint64_t ModelWeights::resident_bytes(bool pack) const {
  uint64_t sum = Buffer::reserved_bytes(pack ? packed_bytes() : 0);
  for (const auto& matrix : matrices) {
    if (!pack || matrix->packed_bytes() == 0) sum += matrix->stored.bytes();
  }
  for (const Buffer& vector : vectors) sum += Buffer::reserved_bytes(vector.size());
  return sum;
}

uint64_t ModelWeights::packed_bytes() const {
  uint64_t sum = 0;
  for (const auto& matrix : matrices) sum += round_up(matrix->packed_bytes(), kPackedAlignment);
  return sum;
}

void ModelWeights::load(Ledger& ledger, bool pack, size_t n_blocks, const std::function<void(uint64_t)>& progress) {
  // The largest first: while a matrix is packed its stored bytes are resident too, and then little else is.
  std::vector<WeightMatrix*> order;
  for (const auto& matrix : matrices) order.push_back(matrix.get());
  std::stable_sort(order.begin(), order.end(),
                   [](const WeightMatrix* a, const WeightMatrix* b) { return a->stored.bytes() > b->stored.bytes(); });
  // One buffer for all packed copies, because single matrices are too small for huge pages.
  if (pack) packed_ = Buffer(ledger, Tag::kWeights, packed_bytes(), "packed matrices");
  size_t used = 0;
  uint64_t done = 0;
  for (WeightMatrix* matrix : order) {
    const TensorView& stored = matrix->stored;
    weight_format(stored.dtype).validate(stored, matrix->name);
    const uint64_t packed = pack ? matrix->packed_bytes() : 0;
    if (packed > 0) {
      kernels::Matrix plain = kernels::Matrix::from(stored);
      plain.input_limit = matrix->active.input_limit;
      const int plane_bits = matrix->active.plane_bits;
      matrix->active = plane_bits > 0 ? kernels::pack_bit_planes(plain, plane_bits, packed_.data() + used)
                                      : kernels::pack_matrix(plain, packed_.data() + used);
      used += round_up(packed, kPackedAlignment);
      matrix->release_stored(0, stored.bytes());
    } else if (matrix->mapping != nullptr) {
      mapped_.push_back(ledger.reserve(Tag::kWeights, stored.bytes(), matrix->name));
      matrix->mapping->will_need(static_cast<size_t>(stored.data - matrix->mapping->bytes().data()), stored.bytes());
    }
    done += stored.bytes();
    progress(done);
  }
  // The kernel maps pages around the ones that are read, those of matrices that were done before among them.
  for (const auto& matrix : matrices) {
    if (matrix->is_packed()) matrix->release_stored(0, matrix->stored.bytes());
  }
  if (stack != nullptr) stack->load(ledger, n_blocks);
}

std::unique_ptr<Model> Model::build(const ModelFile& file, Ledger& ledger, uint64_t run_context) {
  auto model = std::make_unique<Model>();
  const ArchitectureBuilder builder = find_architecture(file.metadata().get_string("general.architecture"));
  model->hyper = read_hyperparameters(file.metadata());
  model->run_context = run_context != 0 ? run_context : model->hyper.n_context;
  model->weights.stack = BlockStack::of(file);
  WeightLoader loader(file, ledger, model->weights);
  builder(*model, loader, file.metadata());
  loader.finish();
  // Widths of activations that a file asks for, where they are faster than 8 bits, and their static scales.
  const auto bits =
      static_cast<int>(std::min<uint64_t>(8, file.metadata().find_u64("mneme.activation_bits").value_or(8)));
  for (const auto& matrix : model->weights.matrices) {
    if (kernels::wants_bit_planes(matrix->stored.dtype, bits)) matrix->active.plane_bits = static_cast<uint8_t>(bits);
    if (const auto limit = file.metadata().find_f64(std::string(kInputLimitKey) + matrix->name)) {
      if (!(*limit > 0 && *limit < 1e30)) {
        fail(ErrorCode::kCorruptData, "[load] {}: expected {}{} above zero and below 1e30, found {}", file.path(),
             kInputLimitKey, matrix->name, *limit);
      }
      matrix->active.input_limit = static_cast<float>(*limit);
    }
  }
  return model;
}

std::vector<KvPlace::Role> Model::kv_roles(const KvPolicy& policy) const {
  std::vector<std::optional<KvShape>> shapes;
  for (const Block& block : blocks) shapes.push_back(block.mixer->kv_shape());
  return policy.roles(shapes);
}

uint64_t Model::state_bytes(const StateOptions& options, uint64_t tokens) const {
  const std::vector<KvPlace::Role> roles = kv_roles(options.kv);
  StateOptions of_layer = options;
  uint64_t sum = 0;
  for (size_t i = 0; i < blocks.size(); ++i) {
    of_layer.place = {roles[i], nullptr, i};
    sum += blocks[i].mixer->state_spec(of_layer).bytes(tokens);
  }
  return sum;
}

uint64_t Model::kv_working_bytes(const StateOptions& options) const {
  uint64_t most = 0;  // layers follow one another
  for (const Block& block : blocks) {
    if (const auto shape = block.mixer->kv_shape())
      most = std::max(most, options.kv.working_bytes(*shape, options.max_tokens));
  }
  return most;
}

uint64_t Model::kv_disk_bytes(const StateOptions& options, uint64_t tokens) const {
  uint64_t sum = 0;
  for (const Block& block : blocks) {
    if (const auto shape = block.mixer->kv_shape()) sum += options.kv.disk_bytes(*shape, tokens);
  }
  return sum;
}

size_t Model::workspace_bytes(size_t n_tokens, size_t n_outputs) const {
  size_t most = 0;
  for (const Block& block : blocks) {
    most = std::max({most, block.mixer->workspace_bytes(n_tokens), block.channel->workspace_bytes(n_tokens)});
  }
  most = std::max(most, Workspace::bytes_for(n_outputs * hyper.width) +
                            (output ? Workspace::bytes_for(n_outputs * n_logits()) : 0));
  const size_t adapters = kMostLinears * Workspace::bytes_for(std::max(n_tokens, n_outputs) * widest_adapter);
  return 3 * Workspace::bytes_for(n_tokens * hyper.width) + most + (widest_adapter > 0 ? adapters : 0);
}

std::unique_ptr<SequenceState> Model::make_state(const StateOptions& options, Ledger& ledger) const {
  const std::vector<KvPlace::Role> roles = kv_roles(options.kv);
  std::shared_ptr<MergedPair> pair;
  StateOptions of_layer = options;
  std::vector<std::unique_ptr<LayerState>> layers;
  layers.reserve(blocks.size());
  for (size_t i = 0; i < blocks.size(); ++i) {
    of_layer.place = {roles[i], &pair, i};
    layers.push_back(blocks[i].mixer->make_state(of_layer, ledger));
  }
  return std::make_unique<SequenceState>(std::move(layers));
}

void Model::embed(const Batch& batch, float* x) const {
  const size_t width = hyper.width;
  const kernels::VectorOps& ops = kernels::vector_ops();
  parallel_for(batch.tokens.size(), 8, [&](size_t begin, size_t end) {
    std::vector<float> position(position_embedding != nullptr ? width : 0);
    for (size_t t = begin; t < end; ++t) {
      float* const row = x + t * width;
      decode_row(token_embedding->stored, static_cast<uint64_t>(batch.tokens[t]), row);
      if (embedding_scale != 1) ops.scale(row, embedding_scale, width, row);
      if (type_embedding != nullptr) ops.add(row, type_embedding, width, row);
      if (position_embedding != nullptr) {
        decode_row(position_embedding->stored, static_cast<uint64_t>(batch.positions[t]), position.data());
        ops.add(row, position.data(), width, row);
      }
    }
  });
  if (token_embedding->is_packed()) {
    // Products read the packed copy; the looked-up rows would pile up beside it.
    const size_t bytes = row_bytes(token_embedding->stored.dtype, width);
    for (int32_t token : batch.tokens) token_embedding->release_stored(static_cast<size_t>(token) * bytes, bytes);
  }
  if (embedding_norm) embedding_norm.apply(x, batch.tokens.size(), width, x);
}

const float* Model::forward(const Batch& batch, Workspace& workspace) const {
  const BlockStack::Pass pass(weights.stack.get());
  const size_t n = batch.tokens.size(), width = hyper.width, size = n * width;
  assert(n > 0 && batch.positions.size() == n);
  float* const x = workspace.floats(size);
  float* const normed = workspace.floats(size);
  float* const y = workspace.floats(size);
  embed(batch, x);
  std::vector<RopeAngles> angles;
  for (const RopeSpec& rope : ropes) angles.emplace_back(rope, batch.positions);

  // One half of a block: x += post(work(norm(x))), or x = post(x + work(x)).
  const auto half = [&](Block::Residual residual, const Norm& norm, const Norm& post, auto&& work) {
    const float* input = x;
    if (norm) {
      norm.apply(x, n, width, normed);
      input = normed;
    }
    workspace.input().set(input, n, width);
    const Workspace::Scope scope(workspace);
    work(y);
    if (residual == Block::Residual::kPreNorm) {
      if (post) post.apply(y, n, width, y);
      add_to(y, size, x);
    } else {
      add_to(y, size, x);
      if (post) post.apply(x, n, width, x);
    }
  };
  for (size_t i = 0; i < blocks.size(); ++i) {
    const Block& block = blocks[i];
    half(block.residual, block.mixer_norm, block.mixer_post_norm, [&](float* out) {
      block.mixer->forward({n, batch.sequences, i, angles}, workspace, out);
    });
    half(block.residual, block.channel_norm, block.channel_post_norm,
         [&](float* out) { block.channel->forward(n, workspace, out); });
  }
  for (const SequenceSlice& slice : batch.sequences) {
    if (slice.state != nullptr) slice.state->advance(static_cast<int64_t>(slice.n_tokens));
  }
  return x;
}

void Model::normalise(const float* hidden, std::span<const size_t> rows, float* out) const {
  for (size_t i = 0; i < rows.size(); ++i)
    std::copy_n(hidden + rows[i] * hyper.width, hyper.width, out + i * hyper.width);
  if (output_norm) output_norm.apply(out, rows.size(), hyper.width, out);
}

void Model::logits(const float* hidden, std::span<const size_t> rows, Workspace& workspace, float* out) const {
  const BlockStack::Pass pass(weights.stack.get());
  const Workspace::Scope scope(workspace);
  float* const normal = workspace.floats(rows.size() * hyper.width);
  normalise(hidden, rows, normal);
  workspace.input().set(normal, rows.size(), hyper.width);
  output.apply(workspace, out, n_logits());
  for (size_t i = 0; i < rows.size(); ++i) {
    float* const row = out + i * n_logits();
    if (logit_softcap > 0) kernels::vector_ops().softcap(row, logit_softcap, n_logits(), row);
    std::fill(row + std::min<size_t>(hyper.n_vocab, n_logits()), row + n_logits(),
              -std::numeric_limits<float>::infinity());
  }
}

}  // namespace mneme
