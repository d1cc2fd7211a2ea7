// The weights of a torch.export package (.pt2): raw records and JSON tables, no pickle.
//
// data/weights/<name>_weights_config.json: {"config": {fqn: {path_name, is_param, use_pickle, tensor_meta}}}; the
// record data/weights/<path_name> holds the storage, little-endian or as `byteorder` says. Buffers that are not
// persistent are constants (data/constants) and no weights. Several models in one package: names begin with "<name>.".
#pragma once

#include <vector>

#include "core/format/stored_tensor.h"
#include "core/format/zip_reader.h"

namespace ckpt::format {

/// Whether the directory is that of a .pt2 (record archive_format).
bool is_pt2(const ZipReader& zip);

/// In the order of the tables. kCorrupt; kUnsupported for weights that are pickled (a tensor subclass), deflated or not
/// strided, for a deflated table, a newer archive_version and a package without a table of weights (compiled code
/// alone).
std::vector<NamedTensor> read_pt2(const ZipReader& zip);

}  // namespace ckpt::format
