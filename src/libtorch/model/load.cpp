// Weights into live tensors: everything is matched and checked before the first byte is written.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <map>

#include "ckpt/error.h"
#include "core/base/pattern.h"
#include "core/base/quote.h"
#include "core/weights/renamer.h"
#include "libtorch/bridge/tensor_reader.h"
#include "libtorch/bridge/tensors.h"
#include "libtorch/model/model_state_impl.h"
#include "libtorch/model/module_tensors.h"

namespace ckpt::model {
namespace {

/// WeightLoadOptions, compiled.
class Rules {
 public:
  explicit Rules(const WeightLoadOptions& options)
      : options_(options),
        excluded_(compile_patterns(options.exclude, "exclude")),
        may_be_missing_(compile_patterns(options.may_be_missing, "may_be_missing")),
        rename_(options.rename) {}

  std::string live_name(const std::string& name) const { return rename_(name); }
  bool excludes(const std::string& name) const { return any_matches(excluded_, name); }

  MatchRules match_rules(std::function<bool(const Source&, const Source&)> same_values) const {
    return {.wanted = [this](const std::string& name) { return !excludes(name); },
            .same_values = std::move(same_values),
            .convert_dtype = options_.convert_dtype,
            .skip_shape_mismatch = options_.skip_shape_mismatch};
  }

  /// Names that one side lacks: problems, or reported alone.
  void judge(const Match& match, const std::string& path, Findings& findings) const {
    for (const auto* item : match.missing) {
      if (options_.strict && !any_matches(may_be_missing_, item->first)) {
        findings.missing(item->first, bridge::describe(item->second));
      } else {
        findings.report().missing.push_back(item->first);
      }
    }
    for (const auto& [name, source] : match.unexpected) {
      if (options_.strict) {
        findings.unexpected(name, describe(source));
      } else {
        findings.report().unexpected.push_back(name);
      }
    }
    findings.throw_all(path);
  }

 private:
  const WeightLoadOptions& options_;
  std::vector<Pattern> excluded_, may_be_missing_;
  weights::Renamer rename_;
};

/// Adds a source by its live name, unless it is excluded.
void add(Sources& sources, const Rules& rules, const std::string& name, const Source& source, const std::string& path) {
  const std::string live = rules.live_name(name);
  if (rules.excludes(live)) return;
  if (!sources.emplace(live, source).second) {
    throw Error(ErrorCode::kMismatch, path, "two tensors would be loaded as " + quote(live), {.tensor = live});
  }
}

StateDict stripped(const StateDict& tensors) {
  StateDict result = tensors;
  strip_wrappers(result);
  return result;
}

}  // namespace

LoadReport load(const weights::Weights& file, const StateDict& live, const WeightLoadOptions& options) {
  const Rules rules(options);
  const std::vector<weights::Tensor>& stored = file.tensors();
  Sources sources;
  for (size_t i = 0; i < stored.size(); ++i) {
    const format::StoredTensor& tensor = stored[i].stored;
    add(sources, rules, stored[i].name,
        {.dtype = tensor.dtype,
         .shape = tensor.shape,
         .unusable = bridge::unsupported_reason(tensor),
         .place = {stored[i].file, tensor.file_offset},
         .index = i},
        file.path());
  }
  const MatchRules match_rules = rules.match_rules([&](const Source& a, const Source& b) {
    const weights::Tensor &x = stored[a.index], &y = stored[b.index];
    return bridge::same_values(x.stored, *file.files()[x.file], y.stored, *file.files()[y.file]);
  });
  LoadReport report;
  Findings findings(report);
  const StateDict named = stripped(live);
  const Match found = match(named, std::move(sources), match_rules, findings);
  rules.judge(found, file.path(), findings);

  const unsigned threads = threads_of(options.threads);
  std::vector<const weights::Tensor*> used;
  std::map<uint32_t, std::vector<bridge::TensorRead>> reads;  // by file
  for (const auto& [index, tensor] : found.pairs) {
    used.push_back(&stored[index]);
    reads[stored[index].file].push_back({stored[index].stored, tensor});
  }
  if (options.verify) file.verify(used, threads);
  for (const auto& [place, list] : reads) bridge::read_tensors(*file.files()[place], list, threads);
  return report;
}

LoadReport copy(const StateDict& from, const StateDict& live, const WeightLoadOptions& options) {
  const at::NoGradGuard no_grad;
  const Rules rules(options);
  Sources sources;
  for (size_t i = 0; i < from.size(); ++i) {
    const auto& [name, tensor] = from[i];
    Source source;
    source.index = i;
    source.unusable = bridge::unsupported_reason(tensor);
    if (!source.unusable) {
      source.dtype = *bridge::dtype_of(tensor.scalar_type());
      source.shape = tensor.sizes();
      source.place = {0, reinterpret_cast<uint64_t>(tensor.data_ptr())};
    }
    add(sources, rules, name, source, "");
  }
  const MatchRules match_rules = rules.match_rules([&](const Source& a, const Source& b) {
    const at::Tensor &x = from[a.index].second, &y = from[b.index].second;
    return x.is_same(y) ||
           (x.device() == y.device() && x.eq(y).logical_or_(x.ne(x).logical_and_(y.ne(y))).all().item<bool>());
  });
  LoadReport report;
  Findings findings(report);
  const StateDict named = stripped(live);
  const Match found = match(named, std::move(sources), match_rules, findings);
  rules.judge(found, "", findings);
  for (const auto& [index, tensor] : found.pairs) tensor.detach().copy_(from[index].second);
  return report;
}

}  // namespace ckpt::model
