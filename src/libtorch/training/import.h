// Makes objects that a TrainingState can hold from files that LibTorch wrote without ckpt.
//
// Thread rule: one thread at a time.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/format/archive.h"

namespace torch::nn {
class Module;
}
namespace torch::optim {
class Optimizer;
}

namespace ckpt::training {

/// The tree of modules that an archive describes: of the part `part` where it is a state.pt, else of the whole file
/// (torch::save(module)). Parameters are the tensors that ask for gradients; all others are buffers. Values that are
/// no tensors are left out and told in `warnings`. kNotFound: no such part, or no tensor; kMismatch: an optimizer.
std::shared_ptr<torch::nn::Module> import_module(const format::ArchiveFile& file, const std::string& part,
                                                 std::vector<std::string>& warnings);

struct ImportedOptimizer {
  std::unique_ptr<torch::optim::Optimizer> optimizer;
  bool type_known = true;  ///< false: Adam or AdamW, whose fields are the same
};

/// What torch::save(optimizer) wrote, over the parameters of `model` by position; or the part `optimizer` of a
/// state.pt, by name. `type`: sgd, adam, ...; empty: told from its fields. kMismatch: parameters, type or fields do not
/// fit; kNotFound: no such part; kUnsupported: fields of no optimizer known here.
ImportedOptimizer import_optimizer(const format::ArchiveFile& file, const std::string& type,
                                   const torch::nn::Module& model);

}  // namespace ckpt::training
