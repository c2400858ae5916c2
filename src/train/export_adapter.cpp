#include "train/export_adapter.h"

#include <vector>

#include "base/error.h"
#include "weights/gguf_writer.h"

namespace mneme::train {

void export_adapter(const std::string& path, const std::string& name, LlamaModel<float>& model,
                    const AdapterOptions& options, const ModelFile& base, DType dtype) {
  if (dtype != DType::kF32 && dtype != DType::kF16 && dtype != DType::kBF16) {
    fail(ErrorCode::kUnsupported, "[export] expected F32, F16 or BF16 for an adapter, found {}",
         dtype_info(dtype).name);
  }
  Metadata metadata;
  metadata.set_string("general.architecture", base.metadata().get_string("general.architecture"));
  metadata.set_string("general.type", "adapter");
  metadata.set_string("general.name", name);
  metadata.set_string("adapter.type", "lora");
  metadata.set_f32("adapter.lora.alpha", options.alpha);
  if (options.corrects_base()) metadata.set_string(kBaseFingerprintKey, base_fingerprint(base));

  const std::vector<Parameter<float>*> factors = model.trained_list();
  std::vector<TensorInfo> infos;
  for (const Parameter<float>* factor : factors)
    infos.push_back({factor->name, dtype, {factor->rows, factor->columns}});
  GgufWriter writer(path, metadata, infos);
  const DTypeInfo& type = dtype_info(dtype);
  std::vector<std::byte> row;
  for (const Parameter<float>* factor : factors) {
    row.resize(row_bytes(dtype, factor->columns));
    for (size_t i = 0; i < factor->rows; ++i) {
      type.encode(factor->value + i * factor->columns, nullptr, row.data(), factor->columns);
      writer.write(row);
    }
  }
  writer.finish();
}

}  // namespace mneme::train
