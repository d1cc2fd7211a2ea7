// The weights in a file of any format as a part of a training state, as import of a module takes it.
#pragma once

#include <set>
#include <string>

#include "core/format/archive.h"
#include "core/weights/weights.h"

namespace ckpt::weights {

/// A state with the part `part` alone, over the file of `weights`. Its parameters are those named in `parameters`;
/// where that is nullptr, all floating and complex tensors but running statistics. kUnsupported: weights in several
/// files, big-endian, quantized or sparse ones.
format::ArchiveFile module_state_of(const Weights& weights, const std::string& part,
                                    const std::set<std::string>* parameters);

/// The names of the parameters of the part "optimizer" of a state, without that of their part; none where there is no
/// such part. kCorrupt where it describes itself in another form than state_layout.h says.
std::set<std::string> parameters_of(const format::ArchiveFile& optimizer_state);

}  // namespace ckpt::weights
