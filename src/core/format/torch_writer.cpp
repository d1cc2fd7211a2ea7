#include "core/format/torch_writer.h"

#include "core/format/zip_writer.h"

namespace ckpt::format {

void write_torch(io::BlockWriter& writer, const PickleValue& value, const std::vector<TensorToWrite>& tensors,
                 const LateText* late) {
  check_tensors(tensors);
  PickleWriter pickle(PickleReader::kPython, tensors);
  pickle.value(value);
  ZipWriter zip(writer, "archive");
  zip.add_text("data.pkl", pickle.finish());
  zip.add_text(".format_version", "1");
  zip.add_text(".storage_alignment", "64");
  zip.add_text("byteorder", "little");
  for (size_t key = 0; key < pickle.storages().size(); ++key) {
    zip.add("data/" + std::to_string(key), tensors[pickle.storages()[key]].data);
  }
  zip.add_text("version", "3\n");
  if (late) zip.add_text(late->key, late->make());
  zip.add_text(".data/serialization_id", zip.content_id());
  zip.finish();
}

PickleValue state_dict_value(std::span<const TensorToWrite> tensors, const PickleValue& module_metadata) {
  PickleValue::Dict dict{.items = {}, .ordered = true};
  dict.items.reserve(tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    dict.items.emplace_back(PickleValue{tensors[i].name}, PickleValue{PickleValue::Tensor{i}});
  }
  if (!std::holds_alternative<PickleValue::None>(module_metadata.value)) dict.metadata = {module_metadata};
  return {std::move(dict)};
}

}  // namespace ckpt::format
