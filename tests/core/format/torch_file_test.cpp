#include "core/format/torch_file.h"

#include <gtest/gtest.h>

#include <cstring>

#include "core/format/torch_builder.h"
#include "support/temp_dir.h"

namespace ckpt::format {
namespace {

using namespace test::pickled;
using test::le;
using test::ZipImage;

constexpr const char* kTrue = "\x88";
constexpr const char* kFalse = "\x89";
const std::string kNoHooks = global("collections", "OrderedDict") + ")R";

/// 0, 1, 2, ... as float32.
std::string floats(size_t count) {
  std::string bytes;
  for (size_t i = 0; i < count; ++i) {
    const auto value = static_cast<float>(i);
    bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  return bytes;
}

std::string python2_text(const std::string& value) { return "U" + le(value.size(), 1) + value; }

/// key, value, key, value, ...
std::string dict(const std::vector<std::string>& items) {
  std::string stream = "}(";
  for (const std::string& item : items) stream += item;
  return stream + "u";
}
std::string list(const std::vector<std::string>& items) {
  std::string stream = "](";
  for (const std::string& item : items) stream += item;
  return stream + "e";
}
std::string call(const std::string& callable, const std::vector<std::string>& arguments) {
  return callable + tuple(arguments) + "R";
}

/// What torch.save writes for a value; storage "0" is six floats.
ZipImage torch_zip(const std::string& value, const std::string& byte_order = "little") {
  return {.entries = {test::zip_entry("f/data.pkl", whole(value)), test::zip_entry("f/byteorder", byte_order),
                      test::zip_entry("f/data/0", floats(6)), test::zip_entry("f/data/1", ""),
                      test::zip_entry("f/version", "3\n")}};
}

/// What torch.save wrote before 1.6; storage "0" is six floats.
std::string legacy(const std::string& value) {
  return test::LegacyFile{.object = whole(value), .storages = le(6, 8) + floats(6)}.bytes();
}
/// A tensor in such a file: its persistent id has a sixth part.
std::string legacy_tensor(Tensor tensor = {}, const std::string& view = "N") {
  tensor.storage = tuple({tensor.id, tensor.type, tensor.key, tensor.location, tensor.numel, view}) + "Q";
  return tensor.stream();
}

std::string rebuild(const char* function, const std::vector<std::string>& arguments) {
  return call(global("torch._utils", function), arguments);
}

/// A persistent id of a zip.
std::string storage(const std::string& type, int64_t numel, const std::string& key = "0",
                    const std::string& module = "torch") {
  return tuple({text("storage"), global(module, type), text(key), text("cpu"), integer(numel)}) + "Q";
}

class TorchFileTest : public testing::Test {
 protected:
  TorchFile open(const std::string& bytes) {
    std::filesystem::remove(dir_ / "f.pt");  // ext4 flushes a file that was cut to be written again
    test::write_all(dir_ / "f.pt", bytes);
    return TorchFile::open(io::File::open(dir_ / "f.pt"));
  }
  TorchFile open_value(const std::string& value) { return open(torch_zip(value).bytes()); }

  /// Of opening and then listing everything.
  std::optional<ErrorCode> error_of(const std::string& bytes) {
    try {
      const TorchFile file = open(bytes);
      tensors_below(file, file.root());
      return std::nullopt;
    } catch (const Error& error) {
      EXPECT_EQ(error.path(), dir_ / "f.pt");
      message_ = error.what();
      return error.code();
    }
  }
  std::optional<ErrorCode> error_of_value(const std::string& value) { return error_of(torch_zip(value).bytes()); }

  static std::vector<std::string> names(const TorchFile& file) {
    std::vector<std::string> names;
    for (const NamedTensor& tensor : tensors_below(file, file.root()).tensors) names.push_back(tensor.name);
    return names;
  }
  static std::vector<float> values(const TorchFile& file, const StoredTensor& tensor) {
    std::vector<float> values(static_cast<size_t>(tensor.elements));
    file.file().read_at(tensor.file_offset, std::as_writable_bytes(std::span(values)));
    return values;
  }

  test::TempDir dir_;
  std::string message_;
};

using Names = std::vector<std::string>;
using Floats = std::vector<float>;

// --- What rebuilds a tensor ----------------------------------------------------------------------------------------

TEST_F(TorchFileTest, ReadsTensorsOfTheFirstVersions) {
  const std::string old =
      rebuild("_rebuild_tensor", {storage("FloatStorage", 6), integer(2), integers({2, 2}), integers({2, 1})});
  // Before 0.4 classes were called, and requires_grad came after.
  const std::string parameter = call(global("torch.nn.parameter", "Parameter"), {old});
  const TorchFile file = open_value(dict({text("t"), old, text("p"), parameter}));
  const StoredTensor tensor = file.tensor(file.find(file.root(), "t"));
  EXPECT_EQ(values(file, tensor), (Floats{2, 3, 4, 5}));
  EXPECT_FALSE(tensor.is_parameter);
  EXPECT_TRUE(file.tensor(file.find(file.root(), "p")).is_parameter);
}

TEST_F(TorchFileTest, ReadsUntypedStoragesUnderSeveralDtypes) {
  const auto v3 = [](const char* dtype, int64_t offset, int64_t size) {
    return rebuild("_rebuild_tensor_v3", {storage("UntypedStorage", 24, "0", "torch.storage"), integer(offset),
                                          integers({size}), integers({1}), kFalse, kNoHooks, global("torch", dtype)});
  };
  const TorchFile file =
      open_value(dict({text("bytes"), v3("float8_e5m2", 1, 23), text("shorts"), v3("uint16", 2, 10)}));
  const StoredTensor bytes = file.tensor(file.find(file.root(), "bytes"));
  const StoredTensor shorts = file.tensor(file.find(file.root(), "shorts"));
  EXPECT_EQ(bytes.dtype, DType::kFloat8E5M2);
  EXPECT_EQ(shorts.dtype, DType::kUInt16);
  EXPECT_EQ(bytes.file_offset, bytes.storage_offset + 1);
  EXPECT_EQ(shorts.file_offset, bytes.storage_offset + 4);  // elements are those of the dtype
  EXPECT_EQ(error_of_value(v3("uint16", 2, 11)), ErrorCode::kCorrupt);
  EXPECT_EQ(error_of_value(v3("bits8", 0, 1)), ErrorCode::kUnsupported);
}

TEST_F(TorchFileTest, RefusesAStorageUnderTwoTypes) {
  const auto v2 = [](const std::string& id, int64_t size) {
    return rebuild("_rebuild_tensor_v2", {id, integer(0), integers({size}), integers({1}), kFalse, kNoHooks});
  };
  EXPECT_EQ(error_of_value(list({v2(storage("FloatStorage", 6), 6), v2(storage("IntStorage", 6), 6)})),
            ErrorCode::kCorrupt);
  EXPECT_EQ(error_of_value(list({v2(storage("ByteStorage", 24), 6), v2(storage("UntypedStorage", 24), 6)})),
            std::nullopt);
  // torch writes this where nothing is in it.
  EXPECT_EQ(error_of_value(list({v2(storage("FloatStorage", 0, "1"), 0), v2(storage("IntStorage", 0, "1"), 0)})),
            std::nullopt);
}

TEST_F(TorchFileTest, LooksThroughParametersAndClasses) {
  const std::string data = Tensor().stream();
  const auto of_type = [&](const std::string& module, const std::string& name) {
    return call(global("torch._tensor", "_rebuild_from_type_v2"),
                {global("torch._utils", "_rebuild_tensor_v2"), global(module, name),
                 tuple({storage("FloatStorage", 6), integer(0), integers({6}), integers({1}), kTrue, kNoHooks}), "}"});
  };
  const TorchFile file = open_value(
      dict({text("parameter"), rebuild("_rebuild_parameter", {data, kFalse, kNoHooks}), text("twice"),
            rebuild("_rebuild_parameter_with_state", {of_type("mine", "Tensor"), kTrue, kNoHooks, "}"}),
            text("subclass"), of_type("mine", "Tensor"), text("foreign"),
            rebuild("_rebuild_parameter", {call(global("mine", "make"), {}), kTrue, kNoHooks}), text("last"), data}));
  const TensorsBelow below = tensors_below(file, file.root());
  EXPECT_EQ(names(file), (Names{"parameter", "twice", "subclass", "last"}));
  EXPECT_EQ(below.foreign, (Names{"foreign"}));
  for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(below.tensors[i].stored.is_parameter) << i;
  EXPECT_FALSE(below.tensors[3].stored.is_parameter);
  EXPECT_THROW(file.tensor(file.find(file.root(), "foreign")), Error);
}

// --- Values ---------------------------------------------------------------------------------------------------------

TEST_F(TorchFileTest, ReadsWhatPython2Pickled) {
  Tensor tensor;
  tensor.id = python2_text("storage");
  tensor.key = python2_text("0");
  tensor.location = python2_text("cuda:0");
  const std::string pairs =
      list({list({python2_text("weight"), tensor.stream()}), tuple({python2_text("n"), "K\x05"})});
  const std::string value = call(global("collections", "OrderedDict"), {pairs}) +
                            dict({python2_text("_metadata"), dict({python2_text(""), dict({})})}) + "b";
  const TorchFile file = open_value(value);
  EXPECT_EQ(file.kind(file.root()), TorchKind::kDict);
  EXPECT_EQ(names(file), (Names{"weight"}));
  EXPECT_EQ(values(file, file.tensor(file.find(file.root(), "weight"))), (Floats{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(file.pickle().integer(file.find(file.root(), "n")), 5);
  EXPECT_NE(file.state_dict_metadata(file.root()), kNoNode);
}

TEST_F(TorchFileTest, RefusesNamesThatAreNotUtf8) {
  EXPECT_EQ(error_of_value(dict({python2_text("\xe9"), Tensor().stream()})), ErrorCode::kCorrupt);
  EXPECT_EQ(error_of_value(dict({text("x"), global("os", "\xff")})), ErrorCode::kCorrupt);
  EXPECT_EQ(error_of_value(dict({text(std::string(70000, 'n')), Tensor().stream()})), ErrorCode::kCorrupt);
}

TEST_F(TorchFileTest, LastOfTwoEqualKeysCounts) {
  const TorchFile file = open_value(dict({text("a"), integer(1), text("a"), integer(2)}));
  EXPECT_EQ(file.pickle().integer(file.find(file.root(), "a")), 2);
}

TEST_F(TorchFileTest, ObjectsThatAreCalledOddlyAreForeign) {
  const std::string ordered = global("collections", "OrderedDict");
  for (const std::string& value : {
           call(ordered, {integer(1)}),
           call(ordered, {list({tuple({text("a")})})}),
           call(ordered, {"}", "}"}),
           call(ordered, {list({tuple({text("a"), "N"})})}) + text("b") + "Ns",
           call(global("torch", "Size"), {"]", "]"}),
           call(global("os", "system"), {text("ls")}),
           global("os", "system"),
           global("os", "system") + ")\x81",
           call("K\x01", {}),
           call(global("copy_reg", "_reconstructor"), {global("mine", "Net"), global("__builtin__", "object")}),
           call(global("copy_reg", "_reconstructor"), {global("mine", "Net"), global("__builtin__", "object"), "N"}) +
               dict({text("x"), Tensor().stream()}) + "b",
           call(global("copy_reg", "_reconstructor"),
                {global("torch._utils", "_rebuild_tensor_v2"), global("__builtin__", "object"), "N"}),
           global("__torch__", "Module") + ")\x81" + tuple({Tensor().stream()}) + "b",
           global("__torch__", "Module") + ")\x81",
           global("__torch__.torch.classes.rnn", "CellParamsBase") + ")\x81" + dict({text("x"), Tensor().stream()}) +
               "b",
       }) {
    const TorchFile file = open_value(dict({text("x"), value}));
    EXPECT_EQ(file.kind(file.find(file.root(), "x")), TorchKind::kForeign) << value;
    EXPECT_EQ(tensors_below(file, file.root()).foreign, (Names{"x"})) << value;
  }
}

TEST_F(TorchFileTest, ReadsWhatTorchScriptAddsToValues) {
  const auto of_jit = [](const char* name, const std::vector<std::string>& arguments) {
    return call(global("torch.jit._pickle", name), arguments);
  };
  const std::string tagged =
      of_jit("restore_type_tag", {dict({text("a"), Tensor().stream()}), text("Dict[str, Tensor]")});
  const TorchFile file = open_value(module(text("ints") + of_jit("build_intlist", {list({integer(1), integer(2)})}) +
                                           text("tensors") + of_jit("build_tensorlist", {list({Tensor().stream()})}) +
                                           text("dict") + tagged + text("training") + kTrue));
  EXPECT_EQ(file.kind(file.root()), TorchKind::kModule);
  EXPECT_EQ(names(file), (Names{"tensors.0", "dict.a"}));
  EXPECT_EQ(file.items(file.find(file.root(), "ints")).size(), 2u);
  EXPECT_EQ(file.kind(file.find(file.root(), "training")), TorchKind::kBool);
  // A tag around a tag, as long as a hostile file wants it.
  std::string open_calls, close_calls;
  for (int i = 0; i < 10000; ++i) {
    open_calls += global("torch.jit._pickle", "restore_type_tag") + "(";
    close_calls += text("x") + "tR";
  }
  const TorchFile nested = open_value(open_calls + "}" + close_calls);
  EXPECT_EQ(nested.kind(nested.root()), TorchKind::kForeign);
}

TEST_F(TorchFileTest, ListsEachGlobalOnceAndSorted) {
  const TorchFile file =
      open_value(list({global("z", "Z"), global("a", "B"), global("z", "Z"), global("collections", "OrderedDict")}));
  const auto globals = file.globals();
  ASSERT_EQ(globals.size(), 3u);
  EXPECT_EQ(globals[0].name, "a.B");
  EXPECT_EQ(globals[1].name, "collections.OrderedDict");
  EXPECT_EQ(globals[2].name, "z.Z");
  EXPECT_TRUE(globals[1].understood);
  EXPECT_FALSE(globals[2].understood);
}

TEST_F(TorchFileTest, BigEndianFilesSaySo) {
  const TorchFile file = open(torch_zip(Tensor().stream(), "big").bytes());
  EXPECT_TRUE(file.tensor(file.root()).big_endian);
  EXPECT_EQ(error_of(torch_zip(Tensor().stream(), "middle").bytes()), ErrorCode::kCorrupt);
}

// --- Trees ----------------------------------------------------------------------------------------------------------

TEST_F(TorchFileTest, ListsATensorUnderEveryName) {
  const std::string once = Tensor().stream() + "q\x01";
  const TorchFile file = open_value(dict({text("a"), once, text("b"), list({"h\x01", dict({"K\x07", "h\x01"})})}));
  EXPECT_EQ(names(file), (Names{"a", "b.0", "b.1.7"}));
}

TEST_F(TorchFileTest, LeavesOutWhatHasNoName) {
  const TorchFile file =
      open_value(dict({tuple({text("a")}), list({Tensor().stream()}), "N", integer(1), text("b"), Tensor().stream()}));
  const TensorsBelow below = tensors_below(file, file.root());
  EXPECT_EQ(names(file), (Names{"b"}));
  EXPECT_EQ(below.foreign, (Names{"?"}));
}

TEST_F(TorchFileTest, UnescapesNamesOfATrainingState) {
  const std::string inner = module(text("%69n") + Tensor().stream());
  ZipImage image = torch_zip(module(text("ckpt") + module("") + text("model") + inner));
  EXPECT_FALSE(open(image.bytes()).is_training_state());  // anybody may use that name
  image.entries.push_back(test::zip_entry("f/constants.pkl", whole(")")));
  const TorchFile file = open(image.bytes());
  EXPECT_TRUE(file.is_training_state());
  EXPECT_EQ(names(file), (Names{"model.in"}));
}

TEST_F(TorchFileTest, RefusesTreesThatHoldThemselvesOrNestTooDeeply) {
  EXPECT_EQ(error_of_value("]q\x01h\x01"
                           "a"),
            ErrorCode::kCorrupt);
  const auto nested = [](size_t depth) {
    return std::string(depth, ']') + Tensor().stream() + std::string(depth, 'a');
  };
  EXPECT_EQ(error_of_value(nested(1000)), std::nullopt) << message_;
  EXPECT_EQ(error_of_value(nested(1001)), ErrorCode::kCorrupt);
  EXPECT_EQ(error_of_value(nested(100000)), ErrorCode::kCorrupt);
  // Two trees of 600, the second inside the first by a value that was seen before.
  const std::string twice = "(" + std::string(600, ']') + Tensor().stream() + std::string(599, 'a') + "aq\x01" +
                            std::string(600, ']') + "h\x01" + std::string(600, 'a') + "t";
  EXPECT_EQ(error_of_value(twice), ErrorCode::kCorrupt);
}

TEST_F(TorchFileTest, SharedTreesTakeTheTimeAndMemoryOfTheirResults) {
  const auto shared = [](const std::string& leaf, int depth) {
    std::string value = leaf + "q\x01";
    for (int i = 0; i < depth; ++i)
      value +=
          "0](h\x01h\x01"
          "eq\x01";
    return value;
  };
  EXPECT_EQ(error_of_value(shared("]", 900)), std::nullopt) << message_;  // 2 to the 900 ways to nothing
  EXPECT_EQ(names(open_value(shared(Tensor().stream(), 4))).size(), 16u);
  EXPECT_EQ(error_of_value(shared(Tensor().stream(), 40)), ErrorCode::kCorrupt);
  EXPECT_EQ(error_of_value(shared(global("a", "B"), 40)), ErrorCode::kCorrupt);
}

TEST_F(TorchFileTest, ModulesThatShareTheirDictsStayWithinTheirMemory) {
  std::string names;
  for (int i = 0; i < 20000; ++i) names += text(std::to_string(i)) + "K\x01";
  const std::string state =
      "}(" + text("_parameters") + "h\x01" + text("_buffers") + "h\x01" + text("_modules") + "h\x01u";
  std::string modules;
  for (int i = 0; i < 2000; ++i) modules += global("a", "M") + ")\x81" + state + "b";
  EXPECT_EQ(error_of_value("}(" + names +
                           "uq\x01"
                           "0](" +
                           modules + "e"),
            ErrorCode::kCorrupt);
}

// --- Which format ---------------------------------------------------------------------------------------------------

TEST_F(TorchFileTest, TellsWhatIsNoneOfItsFormats) {
  EXPECT_EQ(error_of(""), ErrorCode::kCorrupt);
  EXPECT_EQ(error_of("P"), ErrorCode::kCorrupt);
  EXPECT_EQ(error_of("text, and nothing else"), ErrorCode::kCorrupt);
  EXPECT_EQ(error_of(whole(dict({}))), ErrorCode::kCorrupt);
  EXPECT_EQ(error_of(ZipImage{.entries = {test::zip_entry("f/other", "x")}}.bytes()), ErrorCode::kUnsupported);
  std::string tar = "sys_info" + std::string(1016, '\0');
  tar.replace(257, 5, "ustar");
  EXPECT_EQ(error_of(tar), ErrorCode::kUnsupported);
  EXPECT_NE(message_.find("0.1.10"), std::string::npos) << message_;
  ZipImage longer = torch_zip("N");
  longer.entries[0] = test::zip_entry("f/data.pkl", whole("N") + "N.");
  EXPECT_EQ(error_of(longer.bytes()), ErrorCode::kCorrupt);
}

// --- Legacy ---------------------------------------------------------------------------------------------------------

TEST_F(TorchFileTest, ReadsLegacyTensors) {
  const TorchFile file = open(legacy(dict({text("t"), legacy_tensor()})));
  EXPECT_EQ(file.zip(), nullptr);
  EXPECT_FALSE(file.is_script());
  const StoredTensor tensor = file.tensor(file.find(file.root(), "t"));
  EXPECT_EQ(values(file, tensor), (Floats{0, 1, 2, 3, 4, 5}));
  EXPECT_TRUE(tensor.record.empty());
}

TEST_F(TorchFileTest, LegacyStoragesAreLittleEndianOnEverySystem) {
  const std::string sizes = dict({text("short"), "K\x02", text("int"), "K\x04", text("long"), "K\x08"});
  const std::string system = whole(dict({text("little_endian"), kFalse, text("type_sizes"), sizes}));
  const TorchFile file = open(test::LegacyFile{.system = system, .object = whole(legacy_tensor())}.bytes());
  EXPECT_FALSE(file.tensor(file.root()).big_endian);
}

TEST_F(TorchFileTest, ReadsLegacyViewsOfStorages) {
  const std::string view = tuple({text("9"), integer(2), integer(3)});
  const auto of_view = [&](int64_t offset, int64_t size) {
    return legacy_tensor({.offset = integer(offset), .sizes = integers({size}), .strides = integers({1})}, view);
  };
  const TorchFile file = open(legacy(list({legacy_tensor(), of_view(1, 2)})));
  const auto below = tensors_below(file, file.root());
  const StoredTensor& tensor = below.tensors[1].stored;
  EXPECT_EQ(values(file, tensor), (Floats{3, 4}));
  EXPECT_EQ(tensor.storage_offset, below.tensors[0].stored.storage_offset);
  EXPECT_EQ(tensor.storage_bytes, 24u);
  // The view's end is the tensor's, not the storage's.
  EXPECT_EQ(error_of(legacy(of_view(1, 3))), ErrorCode::kCorrupt);
  EXPECT_EQ(error_of(legacy(of_view(-1, 1))), ErrorCode::kCorrupt);
}

TEST_F(TorchFileTest, ReadsLegacyModulesWithTheirSource) {
  const std::string cls = tuple({text("module"), global("mine", "Net"), text("net.py"), text("class Net: ...")}) + "Q";
  const std::string value =
      cls + ")\x81" +
      dict({text("_parameters"), dict({text("w"), legacy_tensor()}), text("_buffers"), "}", text("_modules"), "}"}) +
      "b";
  const TorchFile file = open(legacy(value));
  EXPECT_EQ(file.kind(file.root()), TorchKind::kModule);
  EXPECT_EQ(names(file), (Names{"w"}));
}

TEST_F(TorchFileTest, RefusesEveryTruncationOfALegacyFile) {
  const std::string bytes = legacy(list({legacy_tensor(), text("x"), "F1.5\n", "\x8b" + le(1, 4) + "x"}));
  ASSERT_EQ(error_of(bytes), std::nullopt) << message_;
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_EQ(error_of(bytes.substr(0, size)), ErrorCode::kCorrupt) << size << ": " << message_;
  }
}

}  // namespace
}  // namespace ckpt::format
