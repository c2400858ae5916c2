#include "train/optim/adam_moments.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/checked_math.h"
#include "base/parallel.h"
#include "train/optim/block_codes.h"

namespace mneme::train {

AdamMoments::AdamMoments(Ledger& ledger, const std::vector<size_t>& sizes, MomentFormat format, std::string prefix)
    : prefix_(std::move(prefix)) {
  size_t plain = 0, codes = 0, stored_codes = 0;
  for (const size_t size : sizes) {
    const bool coded = format == MomentFormat::k8Bit && size >= kLeastCoded;
    slots_.push_back({coded, size, coded ? codes : plain});
    // Arrays start at a block, so that their scales follow from the offset; only the last block may be short.
    if (coded) stored_codes = codes + size;
    (coded ? codes : plain) += coded ? round_up(size, kCodeBlock) : size;
  }
  const size_t blocks = codes / kCodeBlock;
  const auto take = [&](size_t bytes, const char* what) {
    return Buffer(ledger, Tag::kOptimizer, bytes, prefix_ + what);
  };
  m_ = take(plain * sizeof(float), ": first moments");
  v_ = take(plain * sizeof(float), ": second moments");
  m_codes_ = take(stored_codes, ": first moments, 8-bit");
  v_codes_ = take(stored_codes, ": second moments, 8-bit");
  m_scales_ = take(blocks * sizeof(float), ": scales of first moments");
  v_scales_ = take(blocks * sizeof(float), ": scales of second moments");
  // Fresh buffers are zero: a scale of 0 makes every code mean 0.
}

void AdamMoments::step(size_t index, const AdamStep& step, const float* grad, float* weight) {
  const Slot& slot = slots_[index];
  if (slot.coded) {
    step_coded(slot, step, grad, weight);
    return;
  }
  float* m = m_.as<float>().data() + slot.offset;
  float* v = v_.as<float>().data() + slot.offset;
  parallel_for(slot.size, 16384, [&](size_t begin, size_t end) {
    adam_update(step, grad + begin, end - begin, weight + begin, m + begin, v + begin);
  });
}

void AdamMoments::step_coded(const Slot& slot, const AdamStep& step, const float* grad, float* weight) {
  auto* m_codes = m_codes_.as<uint8_t>().data() + slot.offset;
  auto* v_codes = v_codes_.as<uint8_t>().data() + slot.offset;
  float* m_scales = m_scales_.as<float>().data() + slot.offset / kCodeBlock;
  float* v_scales = v_scales_.as<float>().data() + slot.offset / kCodeBlock;
  parallel_for(div_up(slot.size, kCodeBlock), 8, [&](size_t begin, size_t end) {
    float m[kCodeBlock], v[kCodeBlock];
    for (size_t block = begin; block < end; ++block) {
      const size_t first = block * kCodeBlock, n = std::min(kCodeBlock, slot.size - first);
      decode_block(CodeKind::kSigned, m_codes + first, n, m_scales[block], m);
      decode_block(CodeKind::kUnsigned, v_codes + first, n, v_scales[block], v);
      adam_update(step, grad + first, n, weight + first, m, v);
      m_scales[block] = encode_block(CodeKind::kSigned, m, n, m_codes + first);
      v_scales[block] = encode_block(CodeKind::kUnsigned, v, n, v_codes + first);
    }
  });
}

std::vector<StateView> AdamMoments::state() {
  std::vector<StateView> views;
  const auto add = [&](const char* name, Buffer& buffer) {
    if (buffer.size() > 0) views.push_back({prefix_ + name, {buffer.data(), buffer.size()}});
  };
  add(".m", m_);
  add(".v", v_);
  add(".m8", m_codes_);
  add(".m8_scales", m_scales_);
  add(".v8", v_codes_);
  add(".v8_scales", v_scales_);
  return views;
}

void AdamMoments::read_first(size_t index, float* out) const {
  const Slot& slot = slots_[index];
  if (!slot.coded) {
    std::copy_n(m_.as<float>().data() + slot.offset, slot.size, out);
    return;
  }
  for (size_t first = 0; first < slot.size; first += kCodeBlock) {
    decode_block(CodeKind::kSigned, m_codes_.as<uint8_t>().data() + slot.offset + first,
                 std::min(kCodeBlock, slot.size - first), m_scales_.as<float>()[(slot.offset + first) / kCodeBlock],
                 out + first);
  }
}

void AdamMoments::write_first(size_t index, const float* m) {
  const Slot& slot = slots_[index];
  if (!slot.coded) {
    std::copy_n(m, slot.size, m_.as<float>().data() + slot.offset);
    return;
  }
  for (size_t first = 0; first < slot.size; first += kCodeBlock) {
    m_scales_.as<float>()[(slot.offset + first) / kCodeBlock] =
        encode_block(CodeKind::kSigned, m + first, std::min(kCodeBlock, slot.size - first),
                     m_codes_.as<uint8_t>().data() + slot.offset + first);
  }
}

void AdamMoments::clear(size_t index) {
  const Slot& slot = slots_[index];
  if (!slot.coded) {
    std::fill_n(m_.as<float>().data() + slot.offset, slot.size, 0.0f);
    std::fill_n(v_.as<float>().data() + slot.offset, slot.size, 0.0f);
    return;
  }
  const size_t first = slot.offset / kCodeBlock, n = div_up(slot.size, kCodeBlock);
  std::fill_n(m_scales_.as<float>().data() + first, n, 0.0f);
  std::fill_n(v_scales_.as<float>().data() + first, n, 0.0f);
}

AdamStep adam_step_of(const AdamWOptions& options, const StepInfo& info, bool decay) {
  const double t = static_cast<double>(info.step) + 1;
  const double root = std::sqrt(1 - std::pow(options.beta2, t));
  AdamStep step{};
  step.beta1 = options.beta1;
  step.beta2 = options.beta2;
  step.eps = static_cast<float>(options.eps * root);
  step.rate = static_cast<float>(info.rate * root / (1 - std::pow(options.beta1, t)));
  step.decay = decay ? info.rate * options.weight_decay : 0.0f;
  step.grad_scale = info.grad_scale;
  return step;
}

}  // namespace mneme::train
