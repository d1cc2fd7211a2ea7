#include "libtorch/training/files.h"

#include <string>
#include <utility>

#include "core/format/safetensors.h"
#include "core/run/names.h"

namespace ckpt::training {

std::vector<run::FileToWrite> files_of(const Snapshot& snapshot, bool weights_copy) {
  std::vector<run::FileToWrite> files;
  files.push_back({std::string(run::kStateName), snapshot.expected_bytes(),
                   [&snapshot](io::BlockWriter& writer) { snapshot.write(writer); }});
  if (!weights_copy) return files;
  auto weights = snapshot.weights();
  uint64_t bytes = 65536;
  for (const auto& tensor : weights.tensors) bytes += tensor.data.bytes + 256;
  files.push_back({std::string(run::kWeightsName), bytes,
                   [weights = std::move(weights)](io::BlockWriter& writer) {
                     auto metadata = weights.ties;  // as safetensors' own save_model writes them
                     metadata.emplace("format", "pt");
                     format::write_safetensors(writer, weights.tensors, metadata);
                   }});
  return files;
}

}  // namespace ckpt::training
