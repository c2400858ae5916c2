#include "random_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/half.h"
#include "base/philox.h"

namespace mneme {

Metadata RandomModel::metadata() const {
  Metadata m("random model");
  m.set_string("general.architecture", "llama");
  m.set_u32("llama.context_length", context);
  m.set_u32("llama.embedding_length", width);
  m.set_u32("llama.block_count", n_layers);
  m.set_u32("llama.feed_forward_length", hidden);
  m.set_u32("llama.attention.head_count", n_heads);
  m.set_u32("llama.attention.head_count_kv", n_kv_heads);
  m.set_f32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  m.set_string("tokenizer.ggml.model", "llama");
  std::vector<std::string> pieces = {"<unk>", "<s>", "</s>"};
  std::vector<int32_t> types = {2, 3, 3};  // unknown, control, control; then bytes and normal pieces
  for (int byte = 0; byte < 256; ++byte) {
    pieces.push_back(fmt::format("<0x{:02X}>", byte));
    types.push_back(6);
  }
  while (pieces.size() < n_vocab) {
    pieces.push_back(fmt::format("piece{:05}", pieces.size()));
    types.push_back(1);
  }
  const std::vector<float> scores(pieces.size(), -1.0f);
  m.set_array_string("tokenizer.ggml.tokens", pieces);
  m.set_array_f32("tokenizer.ggml.scores", scores);
  m.set_array_i32("tokenizer.ggml.token_type", types);
  m.set_u32("tokenizer.ggml.bos_token_id", 1);
  m.set_u32("tokenizer.ggml.eos_token_id", 2);
  return m;
}

std::vector<TensorInfo> RandomModel::tensors() const {
  const uint64_t kv = uint64_t{width} / n_heads * n_kv_heads;
  std::vector<TensorInfo> out = {{"token_embd.weight", dtype, Shape{n_vocab, width}}};
  for (uint32_t i = 0; i < n_layers; ++i) {
    const auto add = [&](const char* name, DType type, Shape shape) {
      out.push_back({fmt::format("blk.{}.{}.weight", i, name), type, shape});
    };
    add("attn_norm", DType::kF32, Shape{width});
    add("attn_q", dtype, Shape{width, width});
    add("attn_k", dtype, Shape{kv, width});
    add("attn_v", dtype, Shape{kv, width});
    add("attn_output", dtype, Shape{width, width});
    add("ffn_norm", DType::kF32, Shape{width});
    add("ffn_gate", dtype, Shape{hidden, width});
    add("ffn_up", dtype, Shape{hidden, width});
    add("ffn_down", dtype, Shape{width, hidden});
  }
  out.push_back({"output_norm.weight", DType::kF32, Shape{width}});
  out.push_back({"output.weight", dtype, Shape{n_vocab, width}});
  return out;
}

void write_random_tensors(const std::string& path, const Metadata& metadata, const std::vector<TensorInfo>& tensors) {
  GgufWriter writer(path, metadata, tensors);
  PhiloxStream random(20261124);
  constexpr size_t kPiece = 34 * 960;  // whole blocks of Q8_0 and whole floats
  for (const TensorInfo& tensor : tensors) {
    const float scale = 1.0f / std::sqrt(static_cast<float>(tensor.shape.from_last(0)));
    std::vector<std::byte> piece(std::min<uint64_t>(kPiece, tensor.bytes()));
    if (tensor.dtype == DType::kQ8_0) {
      const uint16_t step = f32_to_f16(scale / 64);
      for (std::byte& b : piece) b = static_cast<std::byte>(random.next_u32());
      for (size_t at = 0; at + 34 <= piece.size(); at += 34) std::memcpy(piece.data() + at, &step, sizeof step);
    } else {
      for (size_t at = 0; at + 4 <= piece.size(); at += 4) {
        const float value = tensor.shape.rank() == 1 ? 1.0f : scale * random.next_normal();
        std::memcpy(piece.data() + at, &value, sizeof value);
      }
    }
    for (uint64_t left = tensor.bytes(); left > 0;) {
      const size_t n = std::min<uint64_t>(left, piece.size());
      writer.write(std::span(piece.data(), n));
      left -= n;
    }
  }
  writer.finish();
}

}  // namespace mneme
