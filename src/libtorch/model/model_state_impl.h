// What a ModelState holds, and the two ways out of it.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "ckpt/model_state.h"
#include "core/io/mapped_file.h"
#include "core/weights/weights.h"
#include "libtorch/model/match.h"

namespace ckpt {

namespace model {

/// The files of weights as memory, each mapped once for all its tensors and as long as one of them is there.
class Mappings {
 public:
  /// Notes how long they are.
  explicit Mappings(const weights::Weights& file);

  /// files()[place]; kCorrupt where its length is another one now. Use from any thread.
  std::shared_ptr<const io::MappedFile> of(const weights::Weights& file, uint32_t place);

 private:
  std::vector<uint64_t> bytes_;
  std::mutex mutex_;
  std::vector<std::weak_ptr<const io::MappedFile>> mapped_;
};

}  // namespace model

struct ModelState::Impl {
  std::optional<weights::Weights> file;
  std::unique_ptr<model::Mappings> mappings;         ///< of `file`
  StateDict live;                                    ///< where there is no file
  nlohmann::ordered_json module_metadata = nullptr;  ///< of a live module
  std::vector<TensorInfo> tensors;
  std::unordered_map<std::string_view, size_t> by_name;  ///< places in `tensors`, whose names it refers to
  std::string path;

  /// ModelState::of().
  static std::shared_ptr<Impl> of(StateDict tensors);
  /// Fills by_name; a name that is there twice, or nullptr.
  const std::string* index();
  /// kNotFound.
  size_t place_of(std::string_view name) const;
};

namespace model {

/// Names of live tensors and how they are found: options, compiled. kInvalid for a bad pattern.
LoadReport load(const weights::Weights& file, const StateDict& live, const WeightLoadOptions& options);
LoadReport copy(const StateDict& from, const StateDict& live, const WeightLoadOptions& options);

/// Writes live tensors. As ModelState::save; `module_metadata` as weights::write_weights.
std::vector<std::string> save(const StateDict& tensors, const nlohmann::ordered_json& module_metadata,
                              const std::string& path, Format format, const SaveOptions& options);
std::vector<std::string> save(const weights::Weights& file, const std::string& path, Format format,
                              const SaveOptions& options);

/// The first tensor of the list that each is another name of: same memory, dtype, shape and strides; -1 where it is
/// none.
std::vector<int64_t> ties_of(const StateDict& tensors);

unsigned threads_of(unsigned wanted);

}  // namespace model
}  // namespace ckpt
