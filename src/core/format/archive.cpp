#include "core/format/archive.h"

#include <algorithm>
#include <numeric>

#include "core/base/quote.h"
#include "core/format/archive_pickle.h"
#include "core/format/pickle.h"
#include "core/format/tensor_check.h"

namespace ckpt::format {
namespace {

constexpr uint64_t kMaxPickleBytes = uint64_t{1} << 30;

void check_byte_order(const ZipReader& zip) {
  const ZipRecord* record = zip.find("byteorder");
  if (!record) return;  // older writers knew little-endian machines alone
  const std::vector<std::byte> bytes = zip.read(*record, 64);
  const std::string_view order = as_text(bytes);
  if (order == "little") return;
  throw Error(order == "big" ? ErrorCode::kUnsupported : ErrorCode::kCorrupt, zip.file().path(),
              "expected byte order \"little\", found " + quote(order), {.offset = record->data_offset});
}

std::shared_ptr<const Archive> read_tree(const ZipReader& zip) {
  check_byte_order(zip);
  const ZipRecord* record = zip.find("data.pkl");
  if (!record) {
    throw Error(ErrorCode::kUnsupported, zip.file().path(),
                "no archive of torch::serialize: it holds no record \"data.pkl\"");
  }
  uint64_t memory = zip.file().stat().bytes + kMemoryBeyondFile;
  memory -= std::min(memory, zip.memory());
  std::vector<std::byte> bytes = zip.read(*record, std::min(memory, kMaxPickleBytes));
  const uint64_t pickle_bytes = bytes.size();
  memory -= pickle_bytes;
  const Pickle pickle = Pickle::parse(std::move(bytes), zip.file().path(), record->data_offset, memory);
  if (pickle.length() != pickle_bytes) {
    throw Error(ErrorCode::kCorrupt, zip.file().path(),
                std::to_string(pickle_bytes - pickle.length()) + " bytes follow the pickle in zip record \"data.pkl\"",
                {.offset = record->data_offset + pickle.length()});
  }
  return archive_from_pickle(zip, pickle, memory - pickle.memory());
}

}  // namespace

const std::string* Archive::index() {
  by_name_.resize(members.size());
  std::iota(by_name_.begin(), by_name_.end(), 0u);
  std::sort(by_name_.begin(), by_name_.end(),
            [&](uint32_t a, uint32_t b) { return members[a].first < members[b].first; });
  const auto twice = std::adjacent_find(by_name_.begin(), by_name_.end(),
                                        [&](uint32_t a, uint32_t b) { return members[a].first == members[b].first; });
  return twice == by_name_.end() ? nullptr : &members[*twice].first;
}

const ArchiveValue* Archive::find(std::string_view name) const {
  const auto at = std::lower_bound(by_name_.begin(), by_name_.end(), name,
                                   [&](uint32_t i, std::string_view wanted) { return members[i].first < wanted; });
  return at != by_name_.end() && members[*at].first == name ? &members[*at].second : nullptr;
}

const Archive* Archive::nested(std::string_view name) const {
  const auto* value = get<std::shared_ptr<const Archive>>(name);
  return value ? value->get() : nullptr;
}

ArchiveFile ArchiveFile::open(const std::string& path) { return open(io::File::open(path)); }

ArchiveFile ArchiveFile::open(io::File file) { return open(std::make_shared<const io::File>(std::move(file))); }

ArchiveFile ArchiveFile::open(std::shared_ptr<const io::File> file) {
  auto zip = std::make_unique<ZipReader>(*file);
  ArchiveFile archive(std::move(file), read_tree(*zip));
  archive.zip_ = std::move(zip);
  return archive;
}

ArchiveFile::ArchiveFile(std::shared_ptr<const io::File> file, std::shared_ptr<const Archive> root)
    : file_(std::move(file)), root_(std::move(root)) {}

std::vector<NamedTensor> tensors_of(const Archive& root) { return tensors_of(root, is_training_state(root)); }

bool is_training_state(const Archive& root) { return root.find("ckpt") != nullptr; }

}  // namespace ckpt::format
