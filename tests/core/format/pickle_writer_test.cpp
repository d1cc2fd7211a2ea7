#include "core/format/pickle_writer.h"

#include <gtest/gtest.h>

#include "core/format/pickle.h"
#include "core/format/pickle_builder.h"
#include "support/made_tensors.h"

namespace ckpt::format {
namespace {

using test::le;

std::string pickled(const PickleValue& value, const std::vector<TensorToWrite>& tensors = {}) {
  PickleWriter writer(PickleReader::kPython, tensors);
  writer.value(value);
  return writer.finish();
}

std::optional<ErrorCode> error_of(const PickleValue& value) {
  try {
    pickled(value);
    return std::nullopt;
  } catch (const Error& error) {
    return error.code();
  }
}

PickleValue text(const std::string& value) { return {value}; }

TEST(PickleWriter, WritesScalarsInTheirShortestForm) {
  const auto body = [](const PickleValue& value) {
    const std::string whole = pickled(value);
    EXPECT_EQ(whole.substr(0, 2), "\x80\x02");
    EXPECT_EQ(whole.back(), '.');
    return whole.substr(2, whole.size() - 3);
  };
  EXPECT_EQ(body({PickleValue::None()}), "N");
  EXPECT_EQ(body({true}), "\x88");
  EXPECT_EQ(body({false}), "\x89");
  EXPECT_EQ(body({int64_t{255}}), "K\xff");
  EXPECT_EQ(body({int64_t{256}}), "M" + le(256, 2));
  EXPECT_EQ(body({int64_t{65536}}), "J" + le(65536, 4));
  EXPECT_EQ(body({int64_t{-1}}), "J" + le(0xffffffff, 4));
  EXPECT_EQ(body({int64_t{1} << 31}), "\x8a\x08" + le(uint64_t{1} << 31, 8));
  EXPECT_EQ(body({1.0}), std::string("G\x3f\xf0\0\0\0\0\0\0", 9));
  EXPECT_EQ(body(text("hi")), "X" + le(2, 4) + "hiq" + le(0, 1));
}

TEST(PickleWriter, WritesWhatRecursOnce) {
  const std::string stream = pickled({PickleValue::List{{text("layer"), text("other"), text("layer")}}});
  EXPECT_EQ(stream, "\x80\x02](X" + le(5, 4) + "layerq" + le(0, 1) + "X" + le(5, 4) + "otherq\x01h" + le(0, 1) + "e.");
  PickleItems many;
  for (int i = 0; i < 2; ++i) {
    for (int j = 0; j < 300; ++j) many.push_back(text(std::to_string(j)));
  }
  const std::string wide = pickled({PickleValue::List{many}});
  EXPECT_NE(wide.find("X" + le(3, 4) + "299r" + le(299, 4)), std::string::npos);
  EXPECT_EQ(wide.substr(wide.size() - 7), "j" + le(299, 4) + "e.");
}

TEST(PickleWriter, PutsAThousandItemsAtOnce) {
  PickleValue::List list;
  PickleValue::Dict dict;
  for (int64_t i = 0; i < 2500; ++i) {
    list.items.push_back({i});
    dict.items.emplace_back(PickleValue{i}, PickleValue{i});
  }
  for (const PickleValue& value : {PickleValue{list}, PickleValue{dict}}) {
    const std::string stream = pickled(value);
    const std::vector<std::byte> bytes(as_bytes(stream).begin(), as_bytes(stream).end());
    const Pickle pickle = Pickle::parse(bytes, "", 0, 1 << 24);
    const auto items = pickle.items(pickle.root());
    ASSERT_EQ(items.size(), std::holds_alternative<PickleValue::List>(value.value) ? 2500u : 5000u);
    EXPECT_EQ(pickle.integer(items.back()), 2499);
    // Every batch begins with a mark before its first number.
    for (const int first : {1000, 2000}) EXPECT_NE(stream.find("(M" + le(first, 2)), std::string::npos);
  }
}

TEST(PickleWriter, GivesAnOrderedDictItsMetadata) {
  PickleValue::Dict dict{.items = {{text("a"), {int64_t{1}}}}, .ordered = true, .metadata = {text("m")}};
  const std::string stream = pickled({dict});
  const std::vector<std::byte> bytes(as_bytes(stream).begin(), as_bytes(stream).end());
  const Pickle pickle = Pickle::parse(bytes, "", 0, 1 << 20);
  const PickleObject& object = pickle.object(pickle.root());
  EXPECT_TRUE(pickle.is_global(object.callable, "collections", "OrderedDict"));
  EXPECT_EQ(pickle.text(pickle.items(object.dict)[0]), "a");
  const auto attributes = pickle.items(object.state);
  ASSERT_EQ(attributes.size(), 2u);
  EXPECT_EQ(pickle.text(attributes[0]), "_metadata");
  EXPECT_EQ(pickle.text(attributes[1]), "m");
}

TEST(PickleWriter, RefusesWhatPythonWouldNotRead) {
  const auto dict = [](PickleValue first, PickleValue second) {
    return PickleValue{
        PickleValue::Dict{.items = {{std::move(first), {int64_t{0}}}, {std::move(second), {int64_t{0}}}}}};
  };
  EXPECT_EQ(error_of(dict(text("a"), text("b"))), std::nullopt);
  EXPECT_EQ(error_of(dict(text("a"), text("a"))), ErrorCode::kInvalid);
  EXPECT_EQ(error_of(dict({int64_t{1}}, {int64_t{1}})), ErrorCode::kInvalid);
  EXPECT_EQ(error_of(dict({int64_t{1}}, text("1"))), std::nullopt);
  EXPECT_EQ(error_of(dict({int64_t{1}}, {PickleValue::List{}})), ErrorCode::kInvalid);
  EXPECT_EQ(error_of(dict({int64_t{1}}, {PickleValue::Dict{}})), ErrorCode::kInvalid);
  EXPECT_EQ(error_of(text("\xed\xa0\x80")), ErrorCode::kInvalid) << "a surrogate";
  EXPECT_EQ(error_of(text("\xff")), ErrorCode::kInvalid);
  EXPECT_EQ(error_of({PickleValue::Tensor{0}}), ErrorCode::kInvalid);
  EXPECT_EQ(error_of({PickleValue::Dict{.items = {}, .ordered = false, .metadata = {text("m")}}}), ErrorCode::kInvalid);
  EXPECT_EQ(error_of({PickleValue::Dict{.items = {}, .ordered = true, .metadata = {text("m"), text("n")}}}),
            ErrorCode::kInvalid);
  PickleValue deep{PickleValue::List{}};
  for (int i = 1; i < 1000; ++i) {
    PickleValue::List outer;
    outer.items.push_back(std::move(deep));
    deep = {std::move(outer)};
  }
  EXPECT_EQ(error_of(deep), std::nullopt);
  EXPECT_EQ(error_of({PickleValue::List{{deep}}}), ErrorCode::kInvalid);
}

TEST(PickleWriter, CountsStoragesAsTheyAreMet) {
  test::MadeTensors made;
  for (const char* name : {"a", "b", "c"}) made.add(name, DType::kFloat32, {2});
  made.tie("d", 2);
  PickleWriter writer(PickleReader::kPython, made.list());
  for (const size_t index : {3, 1, 2, 1}) writer.tensor(index);
  EXPECT_EQ(writer.storages(), (std::vector<size_t>{2, 1}));
}

}  // namespace
}  // namespace ckpt::format
