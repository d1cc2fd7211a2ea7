// A training checkpoint of Python with one thing in it made wrong: what it is refused with, or that it is understood.
#include <gtest/gtest.h>

#include "core/format/pickle_builder.h"
#include "core/weights/python_checkpoint.h"
#include "core/weights/state_tree.h"
#include "core/weights/training_zip.h"
#include "support/corruptions.h"

namespace ckpt::weights {
namespace {

using namespace test::pickled;
using format::TorchFile;

using Items = std::vector<std::pair<std::string, std::string>>;  ///< keys and values, each a stream

std::string dict(const Items& items) {
  std::string stream = "}(";
  for (const auto& [key, value] : items) stream += key + value;
  return stream + "u";
}
std::string list(const std::vector<std::string>& items) {
  std::string stream = "](";
  for (const std::string& item : items) stream += item;
  return stream + "e";
}
std::string number(double value) {
  const uint64_t bits = std::bit_cast<uint64_t>(value);
  std::string stream = "G";
  for (int i = 7; i >= 0; --i) stream += static_cast<char>(bits >> (8 * i));
  return stream;
}
/// Of a shape that takes at most the six floats of storage "0", from `offset` on.
std::string tensor(const std::vector<int64_t>& sizes, int64_t offset = 0) {
  std::vector<int64_t> strides(sizes.size(), 1);
  for (size_t i = sizes.size(); i-- > 1;) strides[i - 1] = strides[i] * sizes[i];
  return Tensor{.offset = integer(offset), .sizes = integers(sizes), .strides = integers(strides)}.stream();
}
/// Of no dimensions, in storage "2" or "1".
std::string count_of(const std::string& type, const std::string& key) {
  return Tensor{.type = global("torch", type),
                .key = text(key),
                .numel = integer(1),
                .sizes = integers({}),
                .strides = integers({})}
      .stream();
}
std::string past_its_storage() { return tensor({7}); }

const std::string kNone = "N", kTrue = "\x88", kFalse = "\x89";
const std::string kForeign = global("os", "system") + tuple({text("ls")}) + "R";
const std::string kBig = std::string("\x8a\x09\0\0\0\0\0\0\0\0\x40", 11);  // 2^70
const std::string kNan = number(std::nan("")), kInfinity = number(HUGE_VAL);

struct Image {
  Items top = {{text("iterations"), integer(5)}, {text("epoch"), integer(1)}, {text("best_metric"), number(0.5)}};
  Items model = {{text("w"), tensor({2, 3})}, {text("b"), tensor({2})}};
  Items scaler = {{text("scale"), number(1024)}, {text("_growth_tracker"), integer(7)}};
  Items group = {{text("lr"), number(0.01)},  {text("betas"), tuple({number(0.9), number(0.99)})},
                 {text("eps"), number(1e-8)}, {text("weight_decay"), integer(0)},
                 {text("amsgrad"), kFalse},   {text("decoupled_weight_decay"), kFalse},
                 {text("maximize"), kFalse},  {text("params"), list({integer(0), integer(1)})}};
  Items state = {{text("step"), count_of("FloatStorage", "1")},
                 {text("exp_avg"), tensor({2, 3})},
                 {text("exp_avg_sq"), tensor({2, 3})}};  ///< of parameter 0
  Items more_states = {};
  // In place of the whole of it.
  std::string model_value = {}, scaler_value = {}, optimizer = {}, groups = {}, states = {};
};

std::string bytes_of(const Image& image) {
  const auto or_else = [](const std::string& value, const std::string& otherwise) {
    return value.empty() ? otherwise : value;
  };
  Items states = {{integer(0), dict(image.state)}};
  states.insert(states.end(), image.more_states.begin(), image.more_states.end());
  const std::string optimizer = dict({{text("state"), or_else(image.states, dict(states))},
                                      {text("param_groups"), or_else(image.groups, list({dict(image.group)}))}});
  Items top = image.top;
  const auto add = [&](const std::string& key, const std::string& value) {
    if (value != "-") top.emplace_back(text(key), value);  // "-": not there
  };
  add("model_state_dict", or_else(image.model_value, dict(image.model)));
  add("optim_state_dict", or_else(image.optimizer, optimizer));
  add("gradient_scaler_state_dict", or_else(image.scaler_value, dict(image.scaler)));
  return test::training_zip(whole(dict(top)));
}

/// As a state, and back.
void go_both_ways(const std::string& path) {
  std::vector<std::string> warnings;
  const format::ArchiveFile tree = training_state_of(TorchFile::open(io::File::open(path)), {}, warnings);
  head_of(tree);
  std::vector<format::TensorToWrite> tensors;
  python_checkpoint_of(archive_to_write(tree, tensors), path, tensors, warnings);
}

void set(Items& items, const std::string& key, const std::string& value) {
  for (auto& item : items) {
    if (item.first == text(key)) {
      item.second = value;
      return;
    }
  }
  items.emplace_back(text(key), value);
}
void remove(Items& items, const std::string& key) {
  std::erase_if(items, [&](const auto& item) { return item.first == text(key); });
}

using Row = test::Corruption<Image>;
using Where = Items Image::*;
using Whole = std::string Image::*;
constexpr std::nullopt_t kUnderstood = std::nullopt;
using enum ErrorCode;

Row sets(std::string name, Where where, const std::string& key, const std::string& value,
         std::optional<ErrorCode> expected, std::string says = {}) {
  return {std::move(name), [=](Image& image) { set(image.*where, key, value); }, expected, std::move(says)};
}
Row lacks(Where where, const std::string& key, std::optional<ErrorCode> expected, std::string says = {}) {
  return {"no " + key, [=](Image& image) { remove(image.*where, key); }, expected, std::move(says)};
}
Row is(std::string name, Whole what, const std::string& value, std::optional<ErrorCode> expected,
       std::string says = {}) {
  return {std::move(name), [=](Image& image) { image.*what = value; }, expected, std::move(says)};
}

std::string many(int count, const std::string& value) {
  Items items;
  for (int i = 0; i < count; ++i) items.emplace_back(text("key" + std::to_string(i)), value);
  return dict(items);
}

std::vector<Row> numbers() {
  const std::string iterations = "iterations: expected a count";
  return {
      sets("iterations are a text", &Image::top, "iterations", text("5"), kMismatch, iterations),
      sets("iterations are below 0", &Image::top, "iterations", integer(-1), kMismatch, iterations),
      sets("iterations have a fraction", &Image::top, "iterations", number(1.5), kMismatch, iterations),
      sets("iterations are NaN", &Image::top, "iterations", kNan, kMismatch, iterations),
      sets("iterations are infinite", &Image::top, "iterations", kInfinity, kMismatch, iterations),
      sets("iterations are 1e300", &Image::top, "iterations", number(1e300), kMismatch, iterations),
      sets("iterations are beyond 64 bits", &Image::top, "iterations", kBig, kMismatch, iterations),
      sets("iterations are true", &Image::top, "iterations", kTrue, kMismatch, iterations),
      sets("iterations are a list", &Image::top, "iterations", list({integer(5)}), kMismatch, iterations),
      sets("iterations are six numbers", &Image::top, "iterations", tensor({6}), kMismatch, iterations),
      sets("iterations are foreign", &Image::top, "iterations", kForeign, kMismatch, iterations),
      sets("iterations are None", &Image::top, "iterations", kNone, kUnderstood),
      sets("iterations are a tensor", &Image::top, "iterations", count_of("LongStorage", "2"), kUnderstood),
      sets("the largest iterations", &Image::top, "iterations", integer(INT64_MAX), kUnderstood),
      lacks(&Image::top, "iterations", kUnderstood),
      sets("epoch is a dict", &Image::top, "epoch", "}", kMismatch, "epoch: expected a count"),
      sets("epoch is two dtypes", &Image::top, "epoch", count_of("IntStorage", "1"), kCorrupt, "is used as int32"),
      sets("epoch lies past its storage", &Image::top, "epoch", past_its_storage(), kCorrupt, "storage"),
      sets("best_metric is a text", &Image::top, "best_metric", text("much"), kUnderstood),
      sets("best_metric is NaN", &Image::top, "best_metric", kNan, kUnderstood),
      sets("best_metric is six numbers", &Image::top, "best_metric", tensor({6}), kUnderstood),
      sets("best_metric is foreign", &Image::top, "best_metric", kForeign, kUnderstood),
      sets("best_metric lies past its storage", &Image::top, "best_metric", past_its_storage(), kCorrupt, "storage"),
      sets("another key of foreign values", &Image::top, "args", list({kForeign, kForeign}), kUnderstood),
      is("scaler is a list", &Image::scaler_value, list({integer(1)}), kMismatch, "found no \"scale\""),
      is("scaler is empty", &Image::scaler_value, "}", kUnderstood),
      is("scaler is None", &Image::scaler_value, kNone, kUnderstood),
      lacks(&Image::scaler, "scale", kMismatch, "found no \"scale\""),
      sets("scale is foreign", &Image::scaler, "scale", kForeign, kMismatch, "a number as \"scale\""),
      sets("scale is true", &Image::scaler, "scale", kTrue, kMismatch, "a number as \"scale\""),
      sets("scale is beyond 64 bits", &Image::scaler, "scale", kBig, kMismatch, "a number as \"scale\""),
      sets("growth_interval has a fraction", &Image::scaler, "growth_interval", number(0.5), kMismatch, "whole number"),
      sets("growth_tracker is NaN", &Image::scaler, "_growth_tracker", kNan, kMismatch, "whole number"),
  };
}

std::vector<Row> models() {
  std::string deep = tensor({2});
  for (int i = 0; i < 1001; ++i) deep = dict({{text("a"), deep}});
  const std::string sparse =
      global("torch._utils", "_rebuild_sparse_tensor") +
      tuple({global("torch.serialization", "_get_layout") + tuple({text("torch.sparse_coo")}) + "R",
             tuple({tensor({1, 2}), tensor({2}), integers({6}), kFalse})}) +
      "R";
  return {
      is("no model", &Image::model_value, "-", kMismatch, "found no model_state_dict"),
      is("model is None", &Image::model_value, kNone, kMismatch, "model_state_dict: expected a state_dict"),
      is("model is a list", &Image::model_value, list({tensor({2})}), kMismatch, "expected a state_dict"),
      is("model is a tensor", &Image::model_value, tensor({2}), kMismatch, "expected a state_dict"),
      is("model is foreign", &Image::model_value, kForeign, kMismatch, "expected a state_dict"),
      is("model is empty", &Image::model_value, "}", kMismatch, "holds no tensors"),
      is("model holds itself", &Image::model_value, "}q\x01" + text("a") + "h\x01s", kCorrupt, "holds itself"),
      is("model is too deep", &Image::model_value, deep, kCorrupt, "1,000"),
      {"a name twice",
       [](Image& i) {
         i.model.emplace_back(text("w"), tensor({2, 3}));
       },
       kCorrupt, "two tensors"},
      sets("a name that is no UTF-8", &Image::model, "\xff", tensor({1}), kCorrupt, "not UTF-8"),
      sets("a tensor past its storage", &Image::model, "w", past_its_storage(), kCorrupt,
           "tensor \"w\": in zip record"),
      sets("a sparse tensor", &Image::model, "w", sparse, kUnsupported, "sparse or quantized"),
      sets("a foreign value in the model", &Image::model, "more", kForeign, kUnderstood),
      sets("a number in the model", &Image::model, "more", integer(1), kUnderstood),
      sets("ema is a number", &Image::top, "ema_state_dict", integer(1), kMismatch, "ema_state_dict: expected a state"),
      sets("ema is too deep", &Image::top, "ema_state_dict", deep, kCorrupt, "1,000"),
      sets("ema is None", &Image::top, "ema_state_dict", kNone, kUnderstood),
  };
}

std::vector<Row> groups() {
  const std::string no_optimizer = "expected an optimizer's state_dict";
  return {
      is("no optimizer", &Image::optimizer, "-", kUnderstood),
      is("optimizer is None", &Image::optimizer, kNone, kUnderstood),
      is("optimizer is a text", &Image::optimizer, text("adam"), kMismatch, no_optimizer),
      is("optimizer is foreign", &Image::optimizer, kForeign, kMismatch, no_optimizer),
      is("optimizer has states alone", &Image::optimizer, dict({{text("state"), "}"}}), kMismatch, no_optimizer),
      is("groups are a dict", &Image::groups, "}", kMismatch, no_optimizer),
      is("groups are foreign", &Image::groups, kForeign, kMismatch, no_optimizer),
      is("groups are none", &Image::groups, "]", kMismatch, "1 to 10000 parameter groups, found 0"),
      is("groups are 10,001", &Image::groups, "](" + std::string(10001, 'N') + "e", kMismatch, "found 10001"),
      is("a group is a number", &Image::groups, list({integer(1)}), kMismatch, "group 0: expected a dict"),
      is("groups hold themselves", &Image::groups,
         "]q\x01h\x01"
         "a",
         kMismatch, "group 0: expected a dict"),
      is("a group of 101 keys", &Image::groups, list({many(101, kNone)}), kMismatch, "at most 100 keys, found 101"),
      is("a group of numbers", &Image::groups, list({dict({{integer(1), integer(2)}})}), kMismatch, "texts as keys"),
      lacks(&Image::group, "betas", kUnsupported, "expected the options of SGD"),
      lacks(&Image::group, "weight_decay", kUnderstood),
      sets("lr is a text", &Image::group, "lr", text("0.1"), kMismatch, "option \"lr\" is of a kind"),
      sets("lr is six numbers", &Image::group, "lr", tensor({6}), kMismatch, "option \"lr\""),
      sets("lr is foreign", &Image::group, "lr", kForeign, kMismatch, "option \"lr\""),
      sets("lr is None", &Image::group, "lr", kNone, kMismatch, "option \"lr\""),
      sets("lr is beyond 64 bits", &Image::group, "lr", kBig, kMismatch, "option \"lr\""),
      sets("lr lies past its storage", &Image::group, "lr", past_its_storage(), kCorrupt, "storage"),
      sets("lr is NaN", &Image::group, "lr", kNan, kUnderstood),
      sets("one beta", &Image::group, "betas", tuple({number(0.9)}), kMismatch, "option \"betas\""),
      sets("betas that are texts", &Image::group, "betas", tuple({text("a"), text("b")}), kMismatch, "\"betas\""),
      sets("betas that are foreign", &Image::group, "betas", list({kForeign, number(1)}), kMismatch, "\"betas\""),
      sets("amsgrad is 2", &Image::group, "amsgrad", integer(2), kMismatch, "option \"amsgrad\""),
      sets("maximize is on", &Image::group, "maximize", integer(1), kUnsupported, "maximize is on"),
      sets("an option of nobody", &Image::group, "more", kForeign, kUnderstood),
      lacks(&Image::group, "params", kMismatch, "has no list \"params\""),
      sets("params are a dict", &Image::group, "params", "}", kMismatch, "has no list \"params\""),
      sets("params are texts", &Image::group, "params", list({text("w")}), kMismatch, "expected numbers as \"params\""),
      sets("params are tensors", &Image::group, "params", list({tensor({2, 3})}), kMismatch, "expected numbers"),
      sets("params beyond 64 bits", &Image::group, "params", list({kBig}), kMismatch, "expected numbers"),
      sets("params twice", &Image::group, "params", list({integer(0), integer(0)}), kMismatch, "is there twice"),
      sets("params of more than the model", &Image::group, "params", list({integer(0), integer(1), integer(2)}),
           kMismatch, "expected at most 2 parameters"),
      sets("param_names of others", &Image::group, "param_names", list({text("x"), text("y")}), kUnderstood),
      sets("param_names of another shape", &Image::group, "param_names", list({text("b"), text("w")}), kMismatch,
           "\"exp_avg\" of shape [2] as \"b\", found [2, 3]"),
      sets("param_names are numbers", &Image::group, "param_names", list({integer(1), integer(2)}), kUnderstood),
  };
}

std::vector<Row> states() {
  const auto at = [](std::string name, const std::string& key, std::string says) {
    const std::string state = dict(Image().state);
    return Row{std::move(name), [=](Image& image) { image.more_states.emplace_back(key, state); }, kMismatch,
               std::move(says)};
  };
  const std::string none = "a state of no parameter", step = "expected a count as \"step\"";
  return {
      is("states are a list", &Image::states, "]", kMismatch, "expected an optimizer's state_dict"),
      is("states are none", &Image::states, "}", kUnderstood),
      at("a state of index 2", integer(2), none),
      at("a state of index -1", integer(-1), none),
      at("a state of index 2^62", integer(int64_t{1} << 62), none),
      at("a state of index 2^70", kBig, none),
      at("a state of a text", text("0"), none),
      at("a state of a tensor", tensor({2, 3}), none),
      at("a state of a foreign value", kForeign, none),
      at("a state of another shape", integer(1), "expected parameter 1 to be \"b\" of shape [2], found a state"),
      is("a state is a tensor", &Image::states, dict({{integer(0), tensor({2, 3})}}), kMismatch, "expected a dict"),
      is("states hold themselves", &Image::states, "}q\x01" + integer(0) + "h\x01s", kMismatch, "texts as keys"),
      is("a state of 101 fields", &Image::states, dict({{integer(0), many(101, kNone)}}), kMismatch, "found 101"),
      lacks(&Image::state, "step", kMismatch, "state of parameter 0: has no \"step\""),
      sets("step is None", &Image::state, "step", kNone, kMismatch, "has no \"step\""),
      sets("step is below 0", &Image::state, "step", integer(-3), kMismatch, step),
      sets("step is NaN", &Image::state, "step", kNan, kMismatch, step),
      sets("step is six numbers", &Image::state, "step", tensor({2, 3}), kMismatch, step),
      sets("step is a complex number", &Image::state, "step", count_of("ComplexFloatStorage", "2"), kMismatch, step),
      sets("step is foreign", &Image::state, "step", kForeign, kMismatch, step),
      sets("step has a dimension", &Image::state, "step", tensor({1}, 2), kUnderstood),
      sets("step is an integer", &Image::state, "step", integer(3), kUnderstood),
      lacks(&Image::state, "exp_avg_sq", kMismatch, "has no \"exp_avg_sq\""),
      sets("a moment is a number", &Image::state, "exp_avg", number(1), kMismatch, "expected a tensor as \"exp_avg\""),
      sets("a moment is foreign", &Image::state, "exp_avg", kForeign, kMismatch, "expected a tensor as \"exp_avg\""),
      sets("a moment is a list", &Image::state, "exp_avg", list({tensor({2, 3})}), kMismatch, "expected a tensor"),
      sets("a moment past its storage", &Image::state, "exp_avg", past_its_storage(), kCorrupt, "storage"),
      sets("a moment of another shape", &Image::state, "exp_avg_sq", tensor({3, 2}), kMismatch,
           "expected \"exp_avg_sq\" of shape [2, 3] as \"w\", found [3, 2]"),
      sets("moments of no dimensions", &Image::state, "exp_avg", tensor({}), kMismatch, "shape"),
      sets("a field of another optimizer", &Image::state, "square_avg", tensor({2, 3}), kMismatch,
           "Adam has no \"square_avg\""),
  };
}

TEST(PythonCorruptions, AreRefusedOrUnderstood) {
  std::vector<Row> table = numbers();
  for (const auto& more : {models(), groups(), states()}) table.insert(table.end(), more.begin(), more.end());
  const test::TempDir folder;
  test::check_corruptions(Image(), table, bytes_of, go_both_ways, folder);
}

// ---- LBFGS has one state, of flat vectors and lists

Image flat_image() {
  Image image;
  image.group = {{text("lr"), integer(1)},
                 {text("max_iter"), integer(3)},
                 {text("history_size"), integer(4)},
                 {text("params"), list({integer(0), integer(1)})}};
  image.model[1].second = tensor({2}, 1);
  image.model[0].second = tensor({4});
  image.state = {{text("func_evals"), integer(3)},
                 {text("n_iter"), integer(2)},
                 {text("d"), tensor({6})},
                 {text("t"), number(0.5)},
                 {text("old_dirs"), list({tensor({6})})},
                 {text("old_stps"), list({tensor({6})})},
                 {text("ro"), list({tensor({})})},
                 {text("H_diag"), tensor({})},
                 {text("prev_flat_grad"), tensor({6})},
                 {text("prev_loss"), number(0.25)}};
  return image;
}

TEST(PythonCorruptions, OfLbfgsAreRefusedOrUnderstood) {
  std::vector<Row> table{
      {"two states", [](Image& i) { i.more_states.emplace_back(integer(1), dict(i.state)); }, kMismatch,
       "one group and at most one state"},
      sets("another length", &Image::state, "d", tensor({5}), kMismatch, "expected vectors of 6 elements"),
      sets("a history is a tensor", &Image::state, "old_dirs", tensor({6}), kMismatch, "a list as \"old_dirs\""),
      sets("a history of numbers", &Image::state, "ro", list({number(1)}), kMismatch, "expected tensors in \"ro\""),
      sets("a history is foreign", &Image::state, "ro", kForeign, kMismatch, "a list as \"ro\""),
      sets("a history is too long", &Image::state, "ro", "](" + std::string(10001, 'N') + "e", kMismatch, "too long"),
      sets("histories of different lengths", &Image::state, "ro", "]", kMismatch, "of different lengths"),
      sets("n_iter is a text", &Image::state, "n_iter", text("2"), kMismatch, "a number as \"n_iter\""),
      sets("n_iter has a fraction", &Image::state, "n_iter", number(0.5), kMismatch, "a number as \"n_iter\""),
      sets("n_iter is below 0", &Image::state, "n_iter", integer(-1), kMismatch, "a number as \"n_iter\""),
      sets("func_evals are NaN", &Image::state, "func_evals", kNan, kMismatch, "a number as \"func_evals\""),
      sets("t is foreign", &Image::state, "t", kForeign, kMismatch, "a number as \"t\""),
      sets("t is NaN", &Image::state, "t", kNan, kUnderstood),
      sets("d is a number", &Image::state, "d", number(1), kMismatch, "a tensor as \"d\""),
      sets("H_diag is a text", &Image::state, "H_diag", text("x"), kMismatch, "a number as \"H_diag\""),
      sets("H_diag is a number", &Image::state, "H_diag", integer(1), kUnderstood),
      sets("al is foreign", &Image::state, "al", kForeign, kUnderstood),
      sets("a field of nobody", &Image::state, "more", integer(1), kMismatch, "LBFGS has no \"more\""),
      sets("history_size is a text", &Image::group, "history_size", text("x"), kMismatch, "option \"history_size\""),
      sets("line_search_fn is foreign", &Image::group, "line_search_fn", kForeign, kMismatch, "\"line_search_fn\""),
      sets("line_search_fn is a number", &Image::group, "line_search_fn", integer(1), kMismatch, "\"line_search_fn\""),
  };
  for (const char* field : {"func_evals", "n_iter", "d", "t", "prev_flat_grad", "prev_loss", "H_diag", "ro"}) {
    table.push_back(lacks(&Image::state, field, kMismatch, "has no \"" + std::string(field) + "\""));
  }
  table[table.size() - 8].says = table[table.size() - 7].says = "has no \"func_evals\" and \"n_iter\"";
  const test::TempDir folder;
  test::check_corruptions(flat_image(), table, bytes_of, go_both_ways, folder);
}

}  // namespace
}  // namespace ckpt::weights
