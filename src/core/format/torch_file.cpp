#include "core/format/torch_file.h"

#include <array>

#include "core/base/quote.h"
#include "core/format/tensor_check.h"
#include "core/format/torch_file_impl.h"

namespace ckpt::format {
namespace {

bool read_big_endian(const ZipReader& zip) {
  const ZipRecord* record = zip.find("byteorder");
  if (!record) return false;  // older writers knew little-endian machines alone
  const std::vector<std::byte> bytes = zip.read(*record, 64);
  const std::string_view order = as_text(bytes);
  if (order != "little" && order != "big") {
    throw Error(ErrorCode::kCorrupt, zip.file().path(),
                "expected byte order \"little\" or \"big\", found " + quote(order), {.offset = record->data_offset});
  }
  return order == "big";
}

}  // namespace

void TorchFile::Impl::charge(uint64_t bytes) {
  if (bytes > memory) corrupt("what it holds takes more memory than a file of this size may");
  memory -= bytes;
}

Pickle TorchFile::Impl::parse(std::vector<std::byte> bytes, uint64_t offset) {
  const uint64_t size = bytes.size();
  charge(size);
  Pickle parsed = Pickle::parse(std::move(bytes), file->path(), offset, memory);
  if (parsed.length() != size) {
    throw Error(ErrorCode::kCorrupt, file->path(), std::to_string(size - parsed.length()) + " bytes follow the pickle",
                {.offset = offset + parsed.length()});
  }
  return parsed;
}

void TorchFile::Impl::open_zip() {
  zip = std::make_unique<ZipReader>(*file);
  const uint64_t places = zip->records().size() * sizeof(uint32_t);
  charge(zip->memory() + places);
  const ZipRecord* record = zip->find("data.pkl");
  if (!record) fail(ErrorCode::kUnsupported, "a zip that torch.save did not write: it holds no record \"data.pkl\"");
  big_endian = read_big_endian(*zip);
  is_script = zip->find("constants.pkl") != nullptr ||
              std::any_of(zip->records().begin(), zip->records().end(),
                          [](const ZipRecord& each) { return each.name.starts_with("code/"); });
  storage_of_record.assign(zip->records().size(), UINT32_MAX);
  pickle = parse(zip->read(*record, std::min(memory, kMaxPickleBytes)), record->data_offset);
  index_pickle();
  storage_of_record = {};
  memory += places;
}

void TorchFile::Impl::index_pickle() {
  charge(pickle.memory());
  charge(pickle.globals().size() * sizeof(TorchGlobal));
  meanings.reserve(pickle.globals().size());
  for (PickleNode global : pickle.globals()) {
    const std::string_view module = pickle.module(global), name = pickle.text(global);
    if (std::max(module.size(), name.size()) > kMaxLookedUpBytes) corrupt("pickle: a global whose name is over 1 KiB");
    if (!is_utf8(module) || !is_utf8(name)) corrupt("pickle: a global whose name is not UTF-8");
    meanings.push_back(meaning_of(module, name));
  }
  uint64_t uses = 0;
  for (PickleNode node = 0; node < pickle.size(); ++node) uses += pickle.kind(node) == PickleKind::kPersistent;
  charge(uses * sizeof(TorchStorageUse));
  storage_uses.reserve(static_cast<size_t>(uses));
  for (PickleNode node = 0; node < pickle.size(); ++node) {
    if (pickle.kind(node) == PickleKind::kPersistent) add_storage_use(node);
  }
  index_objects();
}

void TorchFile::Impl::open_either() {
  std::array<std::byte, 512> head_bytes{};
  const auto known = static_cast<size_t>(std::min<uint64_t>(file_bytes, head_bytes.size()));
  file->read_at(0, std::span(head_bytes).first(known));
  const std::string_view head = as_text(head_bytes);
  if (head.starts_with("PK\x03\x04")) return open_zip();
  // A pickle of a number of ten bytes; from protocol 4 on a frame of 8 + 1 bytes comes before it.
  if (head[0] == '\x80' && (head.substr(2, 2) == "\x8a\x0a" || head.substr(11, 2) == "\x8a\x0a")) return open_legacy();
  if (head.substr(257, 5) == "ustar") {
    fail(ErrorCode::kUnsupported, "the tar that torch.save wrote before 0.1.10: load and save it with any newer torch");
  }
  corrupt(head[0] == '\x80' ? "a pickle that torch.save did not write"
                            : "neither a zip nor a pickle: torch.save writes one of them");
}

TorchFile TorchFile::open(io::File file) {
  auto impl = std::make_unique<Impl>();
  impl->file = std::make_shared<const io::File>(std::move(file));
  impl->file_bytes = impl->file->stat().bytes;
  impl->memory = impl->file_bytes + kMemoryBeyondFile;
  impl->open_either();
  TorchFile result(std::move(impl));
  result.impl_->is_training_state = result.is_script() && result.kind(result.root()) == TorchKind::kModule &&
                                    result.find(result.root(), "ckpt") != kNoNode;
  return result;
}

TorchFile::TorchFile(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TorchFile::TorchFile(TorchFile&&) noexcept = default;
TorchFile& TorchFile::operator=(TorchFile&&) noexcept = default;
TorchFile::~TorchFile() = default;

const io::File& TorchFile::file() const { return *impl_->file; }
const std::shared_ptr<const io::File>& TorchFile::shared_file() const { return impl_->file; }
const ZipReader* TorchFile::zip() const { return impl_->zip.get(); }
const Pickle& TorchFile::pickle() const { return impl_->pickle; }
bool TorchFile::is_script() const { return impl_->is_script; }
bool TorchFile::is_training_state() const { return impl_->is_training_state; }
uint64_t TorchFile::memory_left() const { return impl_->memory; }

}  // namespace ckpt::format
