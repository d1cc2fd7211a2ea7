#include "ckpt/python_checkpoint.h"

#include <algorithm>
#include <cctype>

#include "core/base/parallel.h"
#include "core/base/quote.h"
#include "core/format/torch_writer.h"
#include "core/format/verify.h"
#include "core/io/block_writer.h"
#include "core/weights/python_checkpoint.h"
#include "libtorch/bridge/optimizers.h"
#include "libtorch/bridge/torch_error.h"
#include "libtorch/training/parts.h"
#include "libtorch/training/selection.h"
#include "libtorch/training/snapshot.h"

namespace ckpt {
namespace {

using training::Selection;

/// The live part that is meant by `name`: the one of this name, or the only one of its kind; nullptr: none.
template <class T>
const std::pair<std::string, Part>* part_of_kind(const TrainingState& state, const std::string& name) {
  const std::pair<std::string, Part>* only = nullptr;
  size_t count = 0;
  for (const auto& item : state.parts().list) {
    if (!std::holds_alternative<T>(item.second)) continue;
    if (item.first == name) return &item;
    only = &item;
    ++count;
  }
  return count == 1 ? only : nullptr;
}

bool has_a_place(const Part& part) {
  return training::holds_weights(part) || std::holds_alternative<torch::optim::Optimizer*>(part) ||
         std::holds_alternative<GradScalerState*>(part);
}

/// A pattern that matches `name` alone.
std::string exactly(const std::string& name) {
  std::string pattern = "^";
  for (const char c : name) {
    if (std::ispunct(static_cast<unsigned char>(c)) && static_cast<unsigned char>(c) < 0x80) pattern += '\\';
    pattern += c;
  }
  return pattern + "$";
}

/// `options` with the live names of the parts, and without the parts that no such file holds.
LoadOptions options_for(const TrainingState& state, LoadOptions options, std::vector<std::string>& notes) {
  const auto rename = [&](const char* name, const std::pair<std::string, Part>* live) {
    if (live && live->first != name) options.rename.emplace(name, live->first);
  };
  rename("optimizer", part_of_kind<torch::optim::Optimizer*>(state, "optimizer"));
  rename("scaler", part_of_kind<GradScalerState*>(state, "scaler"));
  for (const auto& [name, part] : state.parts().list) {
    const bool asked_for = std::find(options.parts.begin(), options.parts.end(), name) != options.parts.end();
    if (has_a_place(part) || asked_for) continue;
    options.exclude.push_back(exactly(name));
    notes.push_back("part " + quote(name) + " stays as it is: a Python checkpoint has no place for a " +
                    training::kind_of(part));
  }
  return options;
}

/// What the optimizer's parameters are called, where the names in the file are the live ones.
std::optional<std::vector<std::vector<std::string>>> live_parameters(const TrainingState& state,
                                                                     const Selection& selection) {
  const auto* live = part_of_kind<torch::optim::Optimizer*>(state, "optimizer");
  if (!live) return std::nullopt;
  const training::NameTable names = training::names_of(state);
  std::vector<std::vector<std::string>> groups;
  const bridge::OptimizerState optimizer = bridge::capture_optimizer(*std::get<torch::optim::Optimizer*>(live->second));
  for (const bridge::ParameterGroup& group : optimizer.groups) {
    std::vector<std::string>& made = groups.emplace_back();
    for (const at::Tensor& parameter : group.parameters) {
      made.push_back(training::parameter_name(names, parameter, live->first, groups.size() - 1, made.size()));
      if (selection.live_name(made.back()) != made.back()) return std::nullopt;
    }
  }
  return groups;
}

/// A part that is not asked for need not be understood either.
bool needs_optimizer(const TrainingState& state, const Selection& selection) {
  const auto* live = part_of_kind<torch::optim::Optimizer*>(state, "optimizer");
  if (!live) return selection.strict() && selection.wants_part("optimizer");
  return selection.wants_part(live->first) && !selection.excludes(live->first);
}

void check_sums(const format::TorchFile& file, std::vector<std::string>& notes) {
  const auto damages = format::check_file(file.file(), nullptr, file.zip(),
                                          format::tensors_below(file, file.root()).tensors, default_threads());
  if (!damages.empty()) {
    const format::Damage& first = damages.front();
    throw Error(ErrorCode::kCorrupt, file.path(), first.reason, {.offset = first.offset, .tensor = first.tensor});
  }
  if (!file.zip() || file.zip()->crcs_absent()) notes.push_back("the file has no checksums: unverified");
}

}  // namespace

LoadReport load_python_checkpoint(TrainingState& state, const std::string& path, const LoadOptions& options) {
  return bridge::wrap_errors(path, "loading a Python checkpoint", [&] {
    std::vector<std::string> notes;
    const format::TorchFile file = format::TorchFile::open(io::File::open(path));
    check_sums(file, notes);
    const LoadOptions chosen = options_for(state, options, notes);
    const Selection selection(chosen);
    const weights::PythonOptions python{.parameter_names = live_parameters(state, selection),
                                        .optimizer = needs_optimizer(state, selection)};
    const format::ArchiveFile tree = weights::training_state_of(file, python, notes);
    LoadReport report = training::restore(state, tree, chosen);
    report.notes.insert(report.notes.begin(), notes.begin(), notes.end());
    return report;
  });
}

std::vector<std::string> save_python_checkpoint(const TrainingState& state, const std::string& path) {
  const training::Snapshot snapshot = training::capture(state, nullptr, {.generators = false});
  std::vector<std::string> left_out;
  std::vector<format::TensorToWrite> tensors;
  const format::ArchiveToWrite tree = snapshot.tree(tensors);
  const format::PickleValue value = weights::python_checkpoint_of(tree, path, tensors, left_out);
  io::replace_file(path, [&](io::BlockWriter& writer) { format::write_torch(writer, value, tensors); });
  return left_out;
}

}  // namespace ckpt
