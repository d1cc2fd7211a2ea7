#include "core/format/archive_writer.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "core/base/quote.h"
#include "core/format/pickle_writer.h"
#include "core/format/tensor_check.h"
#include "core/format/zip_writer.h"

namespace ckpt::format {
namespace {

using Level = std::shared_ptr<const ArchiveToWrite>;

constexpr size_t kMaxDepth = 1000;

/// Collects all that is wrong with a tree.
class Check {
 public:
  explicit Check(size_t tensors) : tensors_(tensors) {}

  void level(const ArchiveToWrite& archive) {
    if (++depth_ > kMaxDepth) {
      problems_.push_back(quote(path_) + ": more than 1,000 levels inside each other");
    } else {
      std::unordered_set<std::string_view> names;
      for (const auto& [name, value] : archive.members) {
        const size_t length = path_.size();
        if (depth_ > 1) path_ += '.';
        path_ += name;
        if (!is_utf8(name)) problems_.push_back(quote(path_) + ": a name that is not UTF-8");
        if (name.size() > kMaxNameBytes) problems_.push_back(quote(path_) + ": a name of more than 65,536 bytes");
        if (!names.insert(name).second) problems_.push_back(quote(path_) + ": two members of this name");
        member(value);
        path_.resize(length);
      }
    }
    --depth_;
  }
  void report() const {
    if (problems_.empty()) return;
    const std::string more =
        problems_.size() > 1 ? " (and " + std::to_string(problems_.size() - 1) + " problems more)" : "";
    throw Error(ErrorCode::kInvalid, "", "archive: member " + problems_[0] + more, {.details = problems_});
  }

 private:
  void member(const ArchiveValueToWrite& value) {
    if (const auto* text = std::get_if<std::string>(&value); text && !is_utf8(*text)) {
      problems_.push_back(quote(path_) + ": a text that is not UTF-8");
    }
    if (const auto* place = std::get_if<TensorPlace>(&value)) tensor(*place);
    if (const auto* list = std::get_if<std::vector<TensorPlace>>(&value)) {
      for (const TensorPlace& place : *list) tensor(place);
    }
    if (const auto* nested = std::get_if<Level>(&value)) {
      if (*nested)
        level(**nested);
      else
        problems_.push_back(quote(path_) + ": no level");
    }
  }
  void tensor(TensorPlace place) {
    if (place.index < tensors_) return;
    problems_.push_back(quote(path_) + ": tensor " + std::to_string(place.index) + " of " + std::to_string(tensors_));
  }

  size_t tensors_;
  size_t depth_ = 0;
  std::string path_;
  std::vector<std::string> problems_;
};

/// A literal of LibTorch's parser, which knows no escapes but these and octal ones.
std::string literal(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    const auto code = static_cast<unsigned char>(c);
    if (code < 0x20 || code == 0x7f || c == '"' || c == '\\') {
      quoted += '\\';
      for (const int shift : {6, 3, 0}) quoted += static_cast<char>('0' + ((code >> shift) & 7));
    } else {
      quoted += c;
    }
  }
  return quoted + '"';
}

/// The pickle of a tree, and the classes of its levels.
class ArchivePickle {
 public:
  explicit ArchivePickle(const std::vector<TensorToWrite>& tensors)
      : tensors_(tensors), pickle_(PickleReader::kLibTorch, tensors) {}

  /// Nested levels first: their classes stand in the text of this one's.
  void level(const ArchiveToWrite& archive) {
    pickle_.global("__torch__", class_of(archive));
    pickle_.empty_tuple();
    pickle_.new_object();
    pickle_.empty_dict();
    pickle_.set_items(archive.members.size(), [&](size_t i) {
      pickle_.text(archive.members[i].first);
      std::visit([&](const auto& value) { member(value); }, archive.members[i].second);
    });
    pickle_.build();
  }
  std::string finish() { return pickle_.finish(); }
  const std::vector<size_t>& storages() const { return pickle_.storages(); }
  const std::string& code() const { return code_; }

 private:
  void member(std::monostate) { pickle_.none(); }
  void member(bool value) { pickle_.boolean(value); }
  void member(int64_t value) { pickle_.integer(value); }
  void member(double value) { pickle_.number(value); }
  void member(const std::string& value) { pickle_.text(value); }
  void member(TensorPlace value) { pickle_.tensor(value.index); }
  void member(const std::vector<int64_t>& values) {
    list("build_intlist", values.size(), [&](size_t i) { pickle_.integer(values[i]); });
  }
  void member(const std::vector<double>& values) {
    list("build_doublelist", values.size(), [&](size_t i) { pickle_.number(values[i]); });
  }
  void member(const std::vector<TensorPlace>& values) {
    list("build_tensorlist", values.size(), [&](size_t i) { pickle_.tensor(values[i].index); });
  }
  void member(const Level& nested) { level(*nested); }

  template <class WriteItem>
  void list(std::string_view builder, size_t count, const WriteItem& write_item) {
    pickle_.global("torch.jit._pickle", builder);
    pickle_.tuple(1, [&](size_t) { pickle_.list(count, write_item); });
    pickle_.reduce();
  }

  std::string type_of(const ArchiveValueToWrite& value) {
    static constexpr std::string_view kTypes[] = {"NoneType", "bool",      "int",         "float",       "str",
                                                  "Tensor",   "List[int]", "List[float]", "List[Tensor]"};
    if (const auto* nested = std::get_if<Level>(&value)) return "__torch__." + class_of(**nested);
    return std::string(kTypes[value.index()]);
  }

  std::string class_of(const ArchiveToWrite& archive) {
    if (const auto known = class_of_level_.find(&archive); known != class_of_level_.end()) return known->second;
    std::string parameters, buffers, types;
    for (const auto& [name, value] : archive.members) {
      const std::string quoted = literal(name);
      if (const auto* place = std::get_if<TensorPlace>(&value)) {
        (tensors_[place->index].is_parameter ? parameters : buffers) += quoted + ", ";
      }
      types += "  __annotations__[" + quoted + "] = " + type_of(value) + "\n";
    }
    const std::string body =
        "  __parameters__ = [" + parameters + "]\n  __buffers__ = [" + buffers + "]\n  __annotations__ = []\n" + types;
    const auto [known, is_new] = class_of_body_.emplace(body, "Module" + std::to_string(class_of_body_.size()));
    if (is_new) code_ += "class " + known->second + "(Module):\n" + body;
    return class_of_level_[&archive] = known->second;
  }

  const std::vector<TensorToWrite>& tensors_;
  PickleWriter pickle_;
  std::string code_;
  std::unordered_map<const ArchiveToWrite*, std::string> class_of_level_;
  std::unordered_map<std::string, std::string> class_of_body_;
};

}  // namespace

void write_archive(io::BlockWriter& writer, const ArchiveToWrite& root, const std::vector<TensorToWrite>& tensors,
                   const LateText* late) {
  check_tensors(tensors);
  Check check(tensors.size());
  check.level(root);
  check.report();
  ArchivePickle pickle(tensors);
  pickle.level(root);
  ZipWriter zip(writer, "archive");
  for (size_t key = 0; key < pickle.storages().size(); ++key) {
    zip.add("data/" + std::to_string(key), tensors[pickle.storages()[key]].data);
  }
  zip.add_text("data.pkl", pickle.finish());
  zip.add_text("code/__torch__.py", pickle.code());
  zip.add_text("constants.pkl", "\x80\x02).");  // an empty tuple
  zip.add_text("version", "3\n");
  zip.add_text("byteorder", "little");
  if (late) zip.add_text(late->key, late->make());
  zip.add_text(".data/serialization_id", zip.content_id());
  zip.finish();
}

namespace {

/// Levels by the dots in names, while they are made.
class Levels {
 public:
  explicit Levels(const std::vector<TensorToWrite>& tensors) {
    for (const TensorToWrite& tensor : tensors) tensors_.insert(tensor.name);
  }

  /// The level that `name` belongs into, and where its own name begins.
  std::pair<ArchiveToWrite*, size_t> level_of(std::string_view name) {
    ArchiveToWrite* level = &root;
    size_t begin = 0, dot = name.find('.');
    for (size_t dots = 1; dot != std::string_view::npos && dots < kMaxDepth; dot = name.find('.', dot + 1), ++dots) {
      if (is_tensor(name.substr(0, dot))) continue;
      level = child(level, name.substr(0, dot), begin);
      begin = dot + 1;
    }
    return {level, begin};
  }

  /// The level `whole` in `level`, where its name is what begins at `begin`.
  ArchiveToWrite* child(ArchiveToWrite* level, std::string_view whole, size_t begin) {
    std::shared_ptr<ArchiveToWrite>& nested = levels_[whole];
    if (!nested) {
      nested = std::make_shared<ArchiveToWrite>();
      level->members.emplace_back(std::string(whole.substr(begin)), nested);
    }
    return nested.get();
  }

  bool is_tensor(std::string_view name) const { return tensors_.contains(name); }

  ArchiveToWrite root;

 private:
  std::unordered_set<std::string_view> tensors_;
  std::unordered_map<std::string_view, std::shared_ptr<ArchiveToWrite>> levels_;  // by their whole name
};

}  // namespace

ArchiveToWrite archive_of(const std::vector<TensorToWrite>& tensors, const std::vector<std::string>& empty_levels) {
  Levels levels(tensors);
  for (size_t i = 0; i < tensors.size(); ++i) {
    const std::string& name = tensors[i].name;
    const auto [level, begin] = levels.level_of(name);
    level->members.emplace_back(name.substr(begin), TensorPlace{i});
  }
  for (const std::string& name : empty_levels) {
    if (levels.is_tensor(name)) continue;
    const auto [level, begin] = levels.level_of(name);
    levels.child(level, name, begin);
  }
  return std::move(levels.root);
}

}  // namespace ckpt::format
