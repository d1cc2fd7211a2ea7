// What torch.save writes, and wrote before 1.6, part by part, so that any of them can be made to lie.
#pragma once

#include "core/format/pickle_builder.h"
#include "core/format/torch_file.h"

namespace ckpt::test {
namespace pickled {

/// A state_dict of one tensor "x".
inline std::string state_dict(const std::string& tensor) { return whole("}" + text("x") + tensor + "s"); }

/// A pair of twice the pair before it: 2^levels tensors.
inline std::string doubled(int levels) {
  std::string stream = Tensor().stream() + "q\x01";
  for (int i = 0; i < levels; ++i) stream += "2\x86q\x01";
  return whole(stream);
}

/// Lists inside each other, and a tensor in the innermost.
inline std::string nested(int levels) {
  const auto count = static_cast<size_t>(levels);
  return whole(std::string(count, ']') + Tensor().stream() + std::string(count, 'a'));
}

/// A list of a tensor and itself.
inline std::string holds_itself() { return whole("](" + Tensor().stream() + "eq\x01h\x01" + "a"); }

}  // namespace pickled

/// A file of before 1.6: one storage "0" of six floats, and whatever the object says about it.
struct LegacyFile {
  std::string magic = pickled::whole("\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19");
  std::string protocol = pickled::whole("M\xe9\x03");
  std::string system =
      pickled::whole("}(" + pickled::text("protocol_version") + "M\xe9\x03" + pickled::text("little_endian") + "\x88" +
                     pickled::text("type_sizes") + "}(" + pickled::text("short") + "K\x02" + pickled::text("int") +
                     "K\x04" + pickled::text("long") + "K\x08" + "uu");
  std::string object;
  std::string keys = pickled::whole("](" + pickled::text("0") + "e");
  std::string storages = le(6, 8) + std::string(24, '\x01');

  std::string bytes() const { return magic + protocol + system + object + keys + storages; }
};

/// Opens it and lists what is in it.
inline void read_torch_file(const std::string& path) {
  const format::TorchFile file = format::TorchFile::open(io::File::open(path));
  format::tensors_below(file, file.root());
  file.globals();
}

}  // namespace ckpt::test
