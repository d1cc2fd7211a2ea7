// Weights in the files of PyTorch.
#include <algorithm>

#include "ckpt/average.h"
#include "core/base/name_order.h"
#include "core/base/quote.h"
#include "core/format/pt2.h"
#include "core/format/torch_file.h"
#include "core/weights/budget.h"
#include "core/weights/find.h"
#include "core/weights/module_metadata.h"
#include "core/weights/openers.h"

namespace ckpt::weights {
namespace {

using format::kNoNode;
using format::PickleKind;
using format::PickleNode;
using format::TorchFile;
using format::TorchKind;

constexpr uint64_t kMaxCodeBytes = 16 << 20;
constexpr uint64_t kMaxProvenanceBytes = 4 << 20;

/// About what a list of tensors takes.
uint64_t memory_of(const std::vector<format::NamedTensor>& tensors) {
  uint64_t bytes = tensors.size() * sizeof(format::NamedTensor);
  for (const format::NamedTensor& named : tensors) {
    bytes += named.name.size() + 16 * (named.stored.shape.size() + 4);
    if (named.stored.record.size() > 15) bytes += named.stored.record.size() + 16;
  }
  return bytes;
}

/// Whether torch::serialize wrote it and not torch.jit: its classes have no methods.
bool is_archive(const TorchFile& file) {
  if (file.is_training_state()) return true;
  const format::Pickle& pickle = file.pickle();
  if (pickle.kind(file.root()) != PickleKind::kObject) return false;
  const PickleNode type = pickle.object(file.root()).callable;
  if (type == kNoNode || pickle.kind(type) != PickleKind::kGlobal) return false;
  std::string record = "code/" + std::string(pickle.module(type)) + ".py";
  std::replace(record.begin() + 5, record.end() - 3, '.', '/');
  const format::ZipRecord* code = file.zip()->find(record);
  if (code == nullptr || code->bytes > kMaxCodeBytes) return false;
  return as_text(file.zip()->read(*code, kMaxCodeBytes)).find("\n  def ") == std::string_view::npos;
}

Format format_of(const TorchFile& file) {
  if (file.zip() == nullptr) return Format::kTorchLegacy;
  if (!file.is_script()) return Format::kTorch;
  return is_archive(file) ? Format::kArchive : Format::kTorchScript;
}

std::vector<format::ChecksummedRange> checksums_of(const format::ZipReader& zip) {
  std::vector<format::ChecksummedRange> ranges;
  if (zip.crcs_absent()) return ranges;
  ranges.reserve(zip.records().size());
  for (const format::ZipRecord& record : zip.records()) {
    if (!record.deflated) ranges.push_back({record.data_offset, record.stored_bytes, record.crc});
  }
  return ranges;
}

void add_zip(const format::ZipReader& zip, Contents& contents) {
  contents.checksums = checksums_of(zip);
  if (zip.crcs_absent()) contents.warnings.emplace_back("its checksums are absent, so it is unverified");
}

/// What an average says of itself, which the pickle has no place for.
void add_provenance(const format::ZipReader& zip, Contents& contents, Budget& budget) {
  const format::ZipRecord* record = zip.find(kAverageProvenance);
  if (record == nullptr || record->bytes > kMaxProvenanceBytes) return;
  budget.charge(2 * record->bytes);
  const std::vector<std::byte> text = zip.read(*record, kMaxProvenanceBytes);
  if (is_utf8(as_text(text))) contents.metadata.emplace(kAverageProvenance, as_text(text));
}

/// All values in the file that a foreign global made, also beside the weights.
std::vector<std::string> foreign_values(const TorchFile& file, const std::vector<TorchFile::Global>& globals) {
  const bool any = std::any_of(globals.begin(), globals.end(), [](const auto& global) { return !global.understood; });
  return any ? format::tensors_below(file, file.root()).foreign : std::vector<std::string>();
}

Contents contents_of(TorchFile file, const OpenOptions& options) {
  Contents contents{.format = format_of(file), .path = file.path(), .tensors = {}, .files = {file.shared_file()}};
  Budget budget(file.memory_left(), contents.path);
  contents.globals = file.globals();
  contents.foreign = foreign_values(file, contents.globals);
  for (const auto& global : contents.globals) budget.charge(sizeof global + global.name.size());
  for (const std::string& name : contents.foreign) budget.charge(sizeof name + name.size());
  if (!contents.foreign.empty()) {
    contents.warnings.push_back("left out, as made by globals that are not understood: " + listed(contents.foreign));
  }
  FoundWeights found = find_weights(file, options);
  budget.charge(memory_of(found.below.tensors));
  budget.charge(found.below.tensors.size() * kNameOrderBytes);  // of all that is sorted from here on
  if (file.zip() != nullptr) {
    budget.charge(file.zip()->records().size() * sizeof(format::ChecksummedRange));
    add_zip(*file.zip(), contents);
    add_provenance(*file.zip(), contents, budget);
  }
  contents.module_metadata = read_module_metadata(file, found.node, budget);
  contents.tensors = std::move(found.below.tensors);
  return contents;
}

Contents open_pt2(const format::ZipReader& zip, std::shared_ptr<const io::File> file, const OpenOptions& options) {
  Contents contents{.format = Format::kPt2, .path = file->path(), .tensors = {}, .files = {file}};
  contents.tensors = format::read_pt2(zip);
  add_zip(zip, contents);
  keep_wanted(contents, options);
  return contents;
}

}  // namespace

Contents open_torch(io::File file, const OpenOptions& options) {
  const std::string path = file.path();
  try {
    return contents_of(TorchFile::open(std::move(file)), options);
  } catch (const Error& error) {
    // A zip without a data.pkl; looked at only now, since reading a directory of many records takes its time.
    if (error.code() != ErrorCode::kUnsupported) throw;
    const auto shared = std::make_shared<const io::File>(io::File::open(path));
    const format::ZipReader zip(*shared);
    if (!format::is_pt2(zip)) throw;
    return open_pt2(zip, shared, options);
  }
}

}  // namespace ckpt::weights
