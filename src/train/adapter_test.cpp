#include "train/adapter.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/atomic_file.h"
#include "train/activation_policy.h"
#include "train/adapter_start.h"
#include "train/gradient_check.h"
#include "train/ops/packed_product.h"
#include "train/optim/optimizer.h"
#include "train/planned_memory.h"
#include "train/sampler.h"
#include "train/test_batch.h"
#include "weights/gguf_test_bytes.h"
#include "weights/gguf_writer.h"

namespace mneme::train {
namespace {

std::vector<float> random_values(size_t n, uint64_t seed, float size = 1) {
  PhiloxStream random(seed);
  std::vector<float> values(n);
  for (float& v : values) v = size * random.next_normal();
  return values;
}

/// A matrix in a stored type and the values that it stands for.
struct Stored {
  Stored(DType dtype, size_t rows, size_t columns, uint64_t seed)
      : bytes(row_bytes(dtype, columns) * rows), values(rows * columns) {
    const std::vector<float> in = random_values(values.size(), seed);
    for (size_t i = 0; i < rows; ++i) {
      std::byte* row = bytes.data() + row_bytes(dtype, columns) * i;
      dtype_info(dtype).encode(in.data() + i * columns, nullptr, row, columns);
      dtype_info(dtype).decode(row, values.data() + i * columns, columns);
    }
    view = {dtype, {rows, columns}, bytes.data()};
  }
  std::vector<std::byte> bytes;
  std::vector<float> values;
  TensorView view;
};

/// Both directions from the codes equal the products with the matrix that they stand for.
TEST(PackedProduct, EqualsTheDenseProductInBothDirections) {
  struct Case {
    DType dtype;
    size_t rows, columns, n;
  };
  for (const Case& c : {Case{DType::kQ2_K, 70, 512, 130},
                        {DType::kQ4_0, 33, 288, 5},
                        {DType::kTQ2_0, 32, 256, 1},
                        {DType::kQ8_0, 7, 32, 300},
                        {DType::kF16, 65, 259, 17}}) {
    const Stored w(c.dtype, c.rows, c.columns, 3);
    const auto x = random_values(c.n * c.columns, 4), dy = random_values(c.n * c.rows, 5);
    std::vector<double> y_expected(c.n * c.rows, 0), dx_expected(c.n * c.columns, 0);
    for (size_t t = 0; t < c.n; ++t) {
      for (size_t i = 0; i < c.rows; ++i) {
        for (size_t j = 0; j < c.columns; ++j) {
          const double v = w.values[i * c.columns + j];
          y_expected[t * c.rows + i] += v * x[t * c.columns + j];
          dx_expected[t * c.columns + j] += v * dy[t * c.rows + i];
        }
      }
    }
    const auto error = [](const std::vector<float>& found, const std::vector<double>& expected, double factor) {
      double sum = 0, size = 0;
      for (size_t i = 0; i < found.size(); ++i) {
        sum += std::pow(found[i] - factor * expected[i], 2);
        size += std::pow(factor * expected[i], 2);
      }
      return std::sqrt(sum / size);
    };
    std::vector<float> y(y_expected.size(), NAN), dx(dx_expected.size(), NAN);
    packed_multiply(w.view, x.data(), c.n, false, y.data());
    packed_multiply_transposed(w.view, dy.data(), c.n, false, dx.data());
    EXPECT_LT(error(y, y_expected, 1), 1e-5) << dtype_info(c.dtype).name;
    EXPECT_LT(error(dx, dx_expected, 1), 1e-5) << dtype_info(c.dtype).name;
    packed_multiply(w.view, x.data(), c.n, true, y.data());
    packed_multiply_transposed(w.view, dy.data(), c.n, true, dx.data());
    EXPECT_LT(error(y, y_expected, 2), 1e-5);
    EXPECT_LT(error(dx, dx_expected, 2), 1e-5);
  }
}

LlamaSizes small_sizes() {
  LlamaSizes sizes;
  sizes.vocabulary = 37;
  sizes.width = 32;
  sizes.n_layers = 2;
  sizes.n_heads = 4;
  sizes.n_kv_heads = 2;
  sizes.ffn_width = 64;
  sizes.context = 32;
  return sizes;
}

/// A random model written with its matrices in `dtype`.
void write_model(const std::string& path, LlamaModel<float>& model, DType dtype) {
  Metadata metadata;
  metadata.set_string("general.architecture", "llama");
  const LlamaSizes& s = model.sizes();
  for (const auto& [key, value] :
       std::initializer_list<std::pair<const char*, size_t>>{{"block_count", s.n_layers},
                                                             {"context_length", s.context},
                                                             {"embedding_length", s.width},
                                                             {"feed_forward_length", s.ffn_width},
                                                             {"attention.head_count", s.n_heads},
                                                             {"attention.head_count_kv", s.n_kv_heads}}) {
    metadata.set_u32(std::string("llama.") + key, static_cast<uint32_t>(value));
  }
  metadata.set_f32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  std::vector<TensorInfo> infos;
  for (const auto& p : model.parameters().all()) {
    infos.push_back(
        {p.name, p.is_matrix() ? dtype : DType::kF32, p.is_matrix() ? Shape{p.rows, p.columns} : Shape{p.columns}});
  }
  GgufWriter writer(path, metadata, infos);
  size_t i = 0;
  for (const auto& p : model.parameters().all()) {
    const DTypeInfo& type = dtype_info(infos[i++].dtype);
    std::vector<std::byte> row(row_bytes(type.dtype, p.columns));
    for (size_t r = 0; r < p.rows; ++r) {
      type.encode(p.value + r * p.columns, nullptr, row.data(), p.columns);
      writer.write(row);
    }
  }
  writer.finish();
}

class AdapterTraining : public testing::Test {
 protected:
  AdapterTraining() {
    LlamaModel<float> model(ledger_, small_sizes(), GemmFormat::kFull);
    model.initialise(3);
    for (auto& p : model.parameters().all()) {
      for (size_t i = 0; i < p.size(); ++i) p.value[i] *= p.role == Role::kNorm ? 1.0f : 10.0f;
    }
    write_model(folder_.file("exact.gguf"), model, DType::kF32);
    write_model(folder_.file("base.gguf"), model, DType::kQ4_0);
    base_ = std::make_unique<ModelFile>(open_gguf(folder_.file("base.gguf")));
    adapter_.rank = 3;
    adapter_.alpha = 5;
    adapter_.targets = {"all"};
  }

  template <typename T>
  std::unique_ptr<LlamaModel<T>> adapted(uint64_t seed = 9) {
    LlamaOptions options;
    options.base = base_.get();
    options.adapter = &adapter_;
    auto model = std::make_unique<LlamaModel<T>>(ledger_, small_sizes(), options);
    model->initialise(seed);
    // B starts at zero, where A has no gradient.
    PhiloxStream random(seed + 1);
    for (Parameter<T>* p : model->trained_list()) {
      for (size_t i = 0; i < p->size(); ++i) p->value[i] = static_cast<T>(0.3f * random.next_normal());
    }
    return model;
  }

  TestFolder folder_;
  Ledger ledger_;
  std::unique_ptr<ModelFile> base_;
  AdapterOptions adapter_;
};

TEST_F(AdapterTraining, GradientsMatchFiniteDifferencesAndTheBaseKeepsItsBytes) {
  const std::string before = read_text_file(folder_.file("base.gguf"));
  const auto model = adapted<double>();
  EXPECT_EQ(model->trained_list().size(), 2u * 7u * 2u);
  Executor<double> executor(ledger_, model->program(), model->parameter_list());
  const RandomBatch data(37, {0, 5, 6, 23}, 11);
  model->parameters().start_step();
  executor.train(data.view());
  const auto loss = [&] {
    executor.evaluate(data.view());
    return model->loss().loss();
  };
  for (Parameter<double>* p : model->trained_list()) {
    expect_gradient(p->value, p->grad, p->size(), loss, p->name, 1e-6, 6);
  }
  for (const auto& p : model->parameters().all()) {
    if (p.role == Role::kAdapter) continue;
    EXPECT_TRUE(p.frozen && p.grad == nullptr) << p.name;
    EXPECT_EQ(p.is_packed(), p.is_matrix()) << p.name;
  }
  EXPECT_EQ(read_text_file(folder_.file("base.gguf")), before);
}

TEST_F(AdapterTraining, RecomputedValuesGiveBitEqualGradients) {
  std::vector<float> expected;
  for (const Saving saving : {Saving::kKeep, Saving::kRecompute}) {
    const auto model = adapted<float>();
    for (ValueInfo& value : model->program().values()) {
      const bool anchor =
          value.name.ends_with("output") || value.name.ends_with("attended") || value.name.ends_with("lse");
      value.saving = anchor ? Saving::kKeep : saving;
    }
    Executor<float> executor(ledger_, model->program(), model->parameter_list());
    executor.train(RandomBatch(37, {0, 9, 32}, 2).view());
    std::vector<float> found;
    for (const Parameter<float>* p : model->trained_list()) found.insert(found.end(), p->grad, p->grad + p->size());
    if (expected.empty()) expected = found;
    EXPECT_EQ(found, expected);
  }
}

/// The loss with a teacher is what its formula says, and its gradient that of finite differences.
TEST_F(AdapterTraining, DistillationMatchesFormulaAndFiniteDifferences) {
  const auto model = adapted<double>();
  const RandomBatch data(37, {0, 9, 20}, 2);
  const size_t n = data.tokens.size(), width = 48;
  const Stored head(DType::kF32, 37, width, 8);
  Parameter<double> taught;
  taught.rows = 37;
  taught.columns = width;
  taught.packed = head.view;
  const std::vector<float> random = random_values(n * width, 6, 0.5f);
  const std::vector<double> hidden(random.begin(), random.end());
  const Teacher<double> teacher{hidden.data(), &taught, 0.7, 0.2};
  model->loss().learn_from(&teacher);
  Executor<double> executor(ledger_, model->program(), model->parameter_list());
  const auto loss = [&] {
    model->parameters().start_step();
    executor.train(data.view());
    return model->loss().loss();
  };
  const double found = loss();
  std::vector<std::vector<double>> gradients;
  for (const Parameter<double>* p : model->trained_list()) gradients.emplace_back(p->grad, p->grad + p->size());

  executor.evaluate(data.view());
  const double* final_hidden = executor.last_value(model->final_hidden());
  const Parameter<double>& embedding = *model->parameters().find("token_embd.weight");
  double expected = 0.2 * model->loss().loss();
  for (size_t t = 0; t < n; ++t) {
    std::vector<double> p(37, 0), q(37, 0), row(32);
    double p_sum = 0, q_sum = 0;
    for (size_t v = 0; v < 37; ++v) {
      copy_row(embedding, v, row.data());
      for (size_t i = 0; i < 32; ++i) p[v] += row[i] * final_hidden[t * 32 + i];
      for (size_t i = 0; i < width; ++i)
        q[v] += static_cast<double>(head.values[v * width + i]) * hidden[t * width + i];
      p_sum += std::exp(p[v]);
      q_sum += std::exp(q[v]);
    }
    double divergence = 0;
    for (size_t v = 0; v < 37; ++v)
      divergence += std::exp(q[v]) / q_sum * (q[v] - std::log(q_sum) - p[v] + std::log(p_sum));
    expected += 0.7 * divergence * static_cast<double>(data.weights[t]) / static_cast<double>(n);
  }
  EXPECT_NEAR(found, expected, 1e-9);
  size_t i = 0;
  for (Parameter<double>* p : model->trained_list()) {
    expect_gradient(p->value, gradients[i++].data(), p->size(), loss, p->name, 1e-6, 3);
  }
}

/// A difference of rank 3 is found exactly by three terms; of any difference more terms leave less.
TEST_F(AdapterTraining, SingularValuesGiveTheNearestDifference) {
  const ModelFile exact = open_gguf(folder_.file("exact.gguf"));
  double before = 1e9;
  for (const size_t rank : {size_t{2}, size_t{8}, size_t{16}}) {
    adapter_.rank = rank;
    const auto model = adapted<float>();
    start_from_difference(ledger_, *model, exact, 1);
    double left = 0;
    for (const auto& w : model->parameters().all()) {
      const auto terms = model->low_rank_of(w);
      if (terms.empty()) continue;
      std::vector<float> stored(w.columns), wanted(w.columns);
      for (size_t i = 0; i < w.rows; ++i) {
        copy_row(w, i, stored.data());
        decode_row(exact.find(w.name)->view, i, wanted.data());
        for (size_t c = 0; c < w.columns; ++c) {
          double sum = stored[c];
          for (size_t k = 0; k < rank; ++k) {
            sum += static_cast<double>(terms[0].scale) * terms[0].b->value[i * rank + k] *
                   terms[0].a->value[k * w.columns + c];
          }
          left += std::pow(sum - wanted[c], 2);
        }
      }
    }
    // attn_k and attn_v have 16 rows, so rank 16 leaves nothing of them, and half the dimensions of the others.
    EXPECT_LT(left, 0.8 * before) << rank;
    before = left;
  }
}

/// What is planned without memory is what the ledger then counts, within the padding of a few pages.
TEST_F(AdapterTraining, PlannedMemoryIsTheLedgers) {
  const RandomBatch data(37, {0, 32, 64}, 2);
  for (const bool with_adapter : {false, true}) {
    Ledger ledger;
    LlamaOptions options;
    options.base = with_adapter ? base_.get() : nullptr;
    options.adapter = with_adapter ? &adapter_ : nullptr;
    LlamaModel<float> model(ledger, small_sizes(), options);
    model.initialise(1);
    apply_saving(model, kAnchorsOnly);
    const auto optimizer = make_optimizer(ledger, model.trained_list(), {});
    Executor<float> executor(ledger, model.program(), model.parameter_list());
    executor.train(data.view());
    const PlannedMemory planned = planned_memory(small_sizes(), 64, options.adapter, DType::kQ4_0);
    const auto near = [&](uint64_t expected, Tag tag) {
      EXPECT_GE(ledger.peak(Tier::kRam, tag) + 4096, expected) << tag_name(tag);
      EXPECT_LE(ledger.peak(Tier::kRam, tag), expected + 8192) << tag_name(tag);
    };
    near(planned.weights, Tag::kWeights);
    near(planned.gradients, Tag::kGradient);
    near(planned.optimizer, Tag::kOptimizer);
    near(planned.activations, Tag::kActivation);
  }
}

/// The shapes of arXiv 2306.08162: a llama of 7B parameters, sequences of 512 tokens.
TEST(PlannedMemory, AdaptersNeedAFractionOfFullFineTuning) {
  LlamaSizes sizes;
  sizes.vocabulary = 32000;
  sizes.width = 4096;
  sizes.n_layers = 32;
  sizes.n_heads = sizes.n_kv_heads = 32;
  sizes.ffn_width = 11008;
  sizes.context = 512;
  sizes.tied_head = false;
  const AdapterOptions adapter;
  const PlannedMemory full = planned_memory(sizes, 512, nullptr, DType::kF32);
  EXPECT_EQ(full.weights + full.gradients + full.optimizer, uint64_t{16} * 6738415616);
  for (const auto& [dtype, ratio] : {std::pair(DType::kQ4_0, 20.0), {DType::kQ2_K, 30.0}}) {
    const PlannedMemory packed = planned_memory(sizes, 512, &adapter, dtype);
    EXPECT_GT(static_cast<double>(full.total()) / static_cast<double>(packed.total()), ratio);
    EXPECT_EQ(packed.optimizer, 2u * 4 * 32 * 2 * (8 * 4096 + 4096 * 8));
  }
}

/// A teacher of a model whose head is trained too: gradients are those of finite differences of the loss, which bf16
/// products, whose rows are padded, give too but for their rounding.
TEST(Distillation, TeachesAModelWhoseHeadIsTrained) {
  Ledger ledger;
  const RandomBatch data(37, {0, 9, 20}, 2);
  const size_t n = data.tokens.size(), width = 48;
  const Stored head(DType::kF32, 37, width, 8);
  const std::vector<float> random = random_values(n * width, 6, 0.5f);
  const auto loss_of = [&]<typename T>(LlamaModel<T>& model, bool checks) {
    Parameter<T> taught;
    taught.rows = 37;
    taught.columns = width;
    taught.packed = head.view;
    const std::vector<T> hidden(random.begin(), random.end());
    const Teacher<T> teacher{hidden.data(), &taught, 0.7, 0.2};
    model.loss().learn_from(&teacher);
    model.initialise(4);
    for (auto& p : model.parameters().all()) {
      for (size_t i = 0; i < p.size(); ++i) p.value[i] *= p.role == Role::kNorm ? 1 : 8;
    }
    Executor<T> executor(ledger, model.program(), model.parameter_list());
    const auto loss = [&] {
      model.parameters().start_step();
      executor.train(data.view());
      return model.loss().loss();
    };
    const double found = loss();
    if constexpr (std::is_same_v<T, double>) {
      std::vector<std::vector<double>> gradients;
      for (const Parameter<double>* p : model.trained_list()) gradients.emplace_back(p->grad, p->grad + p->size());
      size_t i = 0;
      for (Parameter<double>* p : model.trained_list()) {
        if (checks) expect_gradient(p->value, gradients[i].data(), p->size(), loss, p->name, 1e-6, 3);
        ++i;
      }
    }
    model.loss().learn_from(nullptr);
    return found;
  };
  LlamaModel<double> exact(ledger, small_sizes(), GemmFormat::kFull);
  LlamaModel<float> rounded(ledger, small_sizes(), GemmFormat::kBf16);
  const double expected = loss_of(exact, true);
  EXPECT_NEAR(loss_of(rounded, false), expected, 0.02 * expected);
}

}  // namespace
}  // namespace mneme::train
