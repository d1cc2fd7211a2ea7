// A load in two halves: a plan is made while everything is checked, and only then carried out.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "ckpt/load_report.h"
#include "core/format/archive.h"
#include "libtorch/bridge/tensor_reader.h"
#include "libtorch/training/parts.h"
#include "libtorch/training/selection.h"

namespace ckpt::training {

struct RestorePlan {
  RestorePlan(const format::ArchiveFile& archive, const LoadOptions& options)
      : file(archive), path(archive.file().path()), selection(options), findings(report) {}

  const format::ArchiveFile& file;
  std::string path;
  Selection selection;
  LoadReport report;
  Findings findings;
  NameTable names;  ///< of the live tensors

  std::vector<bridge::TensorRead> aside;       ///< read first, into tensors that nobody uses yet
  std::vector<std::function<void()>> checks;   ///< of what was read aside; may throw
  std::vector<bridge::TensorRead> weights;     ///< read into live tensors
  std::vector<std::function<void()>> commits;  ///< do not fail
};

/// A JSON object from the file, whose fields have the kinds they must have: Error(kCorrupt) otherwise.
class Fields {
 public:
  Fields(nlohmann::json object, std::string where, const std::string& path);

  uint64_t u64(const std::string& name) const;
  int64_t i64(const std::string& name) const;
  double number(const std::string& name) const;
  bool boolean(const std::string& name) const;
  std::string text(const std::string& name) const;
  const nlohmann::json& object(const std::string& name) const;
  const nlohmann::json& array(const std::string& name) const;
  const nlohmann::json& any(const std::string& name) const;

 private:
  [[noreturn]] void fail(const std::string& name, const char* expected, const nlohmann::json& actual) const;
  nlohmann::json object_;
  std::string where_;
  const std::string& path_;
};

/// The JSON text `description` of a part.
Fields description_of(const RestorePlan& plan, const std::string& part, const format::Archive& archive);

/// Plans for one part that is no module; problems go to plan.findings. Of an averager: its counts, from its `entry` in
/// the description of the file; the tensors are planned with those of all modules.
void plan_averager(RestorePlan& plan, const std::string& part, Averager& averager, const nlohmann::json& entry,
                   uint64_t iteration);
void plan_optimizer(RestorePlan& plan, const std::string& part, torch::optim::Optimizer& optimizer,
                    const format::Archive& archive);
void plan_scheduler(RestorePlan& plan, const std::string& part, torch::optim::LRScheduler& scheduler,
                    const format::Archive& archive);
void plan_scheduler(RestorePlan& plan, const std::string& part, torch::optim::ReduceLROnPlateauScheduler& scheduler,
                    const format::Archive& archive);
void plan_sampler(RestorePlan& plan, const std::string& part, EpochSampler& sampler, const format::Archive& archive);
void plan_scaler(RestorePlan& plan, const std::string& part, GradScalerState& scaler, const format::Archive& archive);
void plan_custom(RestorePlan& plan, const std::string& part, const std::shared_ptr<Stateful>& custom,
                 const format::Archive& archive);

}  // namespace ckpt::training
