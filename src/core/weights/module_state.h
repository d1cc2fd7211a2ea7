// The weights in a file of any format on their way into a training state, as one of its modules.
//
// Thread rule: one thread at a time.
#pragma once

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/format/archive.h"
#include "core/format/archive_writer.h"
#include "core/format/tensors_to_write.h"
#include "core/weights/weights.h"

namespace ckpt::weights {

/// A module as state.pt holds it. Its tensors are in the list that it was made with.
struct ModuleToWrite {
  format::ArchiveToWrite tree;
  /// Places of its parameters in that list, in the order of LibTorch's named_parameters(): those of a level before
  /// those of its children. Names are without that of the part.
  std::vector<std::pair<std::string, size_t>> parameters;
};

class ModuleState {
 public:
  /// Reads indexes alone: the part `part` of a state.pt, the whole of another archive of LibTorch, the weights (as
  /// Weights::open finds them) in a file of any other format. kNotFound: no such part, or no tensors; kMismatch: an
  /// optimizer; what Weights::open throws.
  static ModuleState open(const std::string& path, const std::string& part);
  explicit ModuleState(Weights weights);

  const Weights& weights() const { return weights_; }
  /// What a person should know, the warnings of weights() among it.
  const std::vector<std::string>& warnings() const { return warnings_; }

  /// The tensors are appended to `tensors`, ties kept; they are read, CRCs checked, when they are written: this must
  /// outlive that. The parameters are those that ask for gradients in an archive; of another file those named in
  /// `parameters`, where that is empty those that select() takes for such. kUnsupported: quantized and sparse tensors,
  /// all of them in details(); kCorrupt: damage in records of several tensors, names that cannot be levels.
  ModuleToWrite to_write(const std::set<std::string>& parameters, std::vector<format::TensorToWrite>& tensors) const;

 private:
  Weights weights_;
  std::vector<std::string> levels_;  // modules, with and without tensors
  std::vector<std::string> warnings_;
};

/// The names of the parameters of the part "optimizer" of a state, without that of their part; none where there is no
/// such part. kCorrupt where it describes itself in another form than state_layout.h says.
std::set<std::string> parameters_of(const format::ArchiveFile& optimizer_state);

}  // namespace ckpt::weights
