// Inputs that are damaged or change, disks that are full, processes that are killed: an output is the old or the new.
#include <sys/resource.h>

#include <functional>
#include <mutex>

#include "average_testing.h"
#include "core/run/run.h"
#include "core/weights/training_files.h"
#include "support/fault_hook.h"

namespace ckpt {
namespace {

using test::any_has;
using test::AverageTest;
using test::contains;
using test::Fault;
using test::FaultHook;
using test::floats;
using test::MadeTensor;
using test::ScopedHook;

namespace fs = std::filesystem;
using Floats = std::vector<float>;

/// Does something once, before the first read beyond `offset` of the file `path`.
class AtRead : public io::Hook {
 public:
  AtRead(std::string path, uint64_t offset, std::function<void()> action)
      : path_(std::move(path)), offset_(offset), action_(std::move(action)) {}
  int before(io::Call& call) override {
    if (call.op == io::Op::kRead && call.path == path_ && call.offset >= offset_) std::call_once(once_, action_);
    return 0;
  }
  void after(const io::Call&, long, int) override {}

 private:
  const std::string path_;
  const uint64_t offset_;
  const std::function<void()> action_;
  std::once_flag once_;
};

class AverageFaultsTest : public AverageTest {
 protected:
  static std::vector<MadeTensor> tensors(float value) {
    return {floats("a", Floats(20000, value)), floats("b", Floats(100, 2 * value)), test::bools("mask", {1, 0})};
  }
  void flip(const std::string& path, const std::string& tensor) {
    std::string bytes = test::read_all(path);
    bytes[weights::Weights::open(path).find(tensor)->stored.file_offset] ^= 1;
    test::write_all(path, bytes);
  }
  /// Where the data of "a" begins in `path`.
  static uint64_t data_of(const std::string& path) {
    return weights::Weights::open(path).find("a")->stored.file_offset;
  }
  Error refused_while(const std::string& changed, const std::function<void()>& change) {
    AtRead hook(changed, data_of(changed) + 1, change);
    ScopedHook scoped(&hook);
    return refused({a_, b_});
  }

  std::string a_ = write("a.pt", tensors(1)), b_ = write("b.safetensors", tensors(2));
};

// --- Damage ---------------------------------------------------------------------------------------------------------

TEST_F(AverageFaultsTest, DamageMetOnTheWayIsToldWithFileRecordAndTensor) {
  for (const char* name : {"a", "b"}) {
    write("a.pt", tensors(1));
    flip(a_, name);
    const Error error = refused({b_, a_});
    EXPECT_EQ(error.code(), ErrorCode::kCorrupt) << error.what();
    EXPECT_EQ(error.path(), a_);
    EXPECT_EQ(error.tensor(), name);
    const std::string record = weights::Weights::open(a_).find(name)->stored.record;
    EXPECT_TRUE(contains(error.message(), "\"" + record + "\"")) << error.message();
  }
}

TEST_F(AverageFaultsTest, DamageInBoolsAndViewsIsToldToo) {
  flip(a_, "mask");
  EXPECT_EQ(refused({b_, a_}).code(), ErrorCode::kCorrupt);
  const std::string shapes = std::string(CKPT_TEST_DATA) + "/torch/shapes.pt";
  for (const char* name : {"transposed", "fortran", "expanded", "row"}) {
    test::write_all(dir_ / "views.pt", test::read_all(shapes));
    flip(dir_ / "views.pt", name);
    const Error error = refused({shapes, dir_ / "views.pt"});
    EXPECT_EQ(error.code(), ErrorCode::kCorrupt) << name;
    EXPECT_EQ(error.path(), dir_ / "views.pt");
  }
}

TEST_F(AverageFaultsTest, DamageThatTakesNoPartDoesNotMatter) {
  flip(a_, "b");
  const std::string c = write("c.safetensors", {floats("a", Floats(20000, 5))});
  average({a_, c}, {.keys = AverageKeys::kIntersect});
  EXPECT_EQ(floats_of("a")[0], 3);
}

TEST_F(AverageFaultsTest, ADirectoryThatIsCutOffOrAbsentIsAnError) {
  fs::resize_file(a_, fs::file_size(a_) / 2);
  EXPECT_EQ(refused({b_, a_}).code(), ErrorCode::kCorrupt);
  fs::resize_file(b_, fs::file_size(b_) - 1);
  const Error both = refused({b_, a_});
  EXPECT_EQ(both.code(), ErrorCode::kCorrupt);
  EXPECT_EQ(both.details().size(), 2u);
}

// --- Inputs that change ---------------------------------------------------------------------------------------------

TEST_F(AverageFaultsTest, AnInputThatIsWrittenToIsAnError) {
  const std::string other = test::read_all(write("other.safetensors", tensors(7)));
  const Error rewritten = refused_while(b_, [&] { test::write_all(b_, other); });
  EXPECT_EQ(rewritten.code(), ErrorCode::kIo) << rewritten.what();
  EXPECT_EQ(rewritten.path(), b_);

  write("b.safetensors", tensors(2));
  const Error longer = refused_while(b_, [&] { fs::resize_file(b_, fs::file_size(b_) + 1); });
  EXPECT_EQ(longer.code(), ErrorCode::kIo) << longer.what();
  EXPECT_EQ(longer.path(), b_);

  write("b.safetensors", tensors(2));
  const Error cut = refused_while(b_, [&] { fs::resize_file(b_, data_of(b_) + 10); });
  EXPECT_TRUE(cut.code() == ErrorCode::kIo || cut.code() == ErrorCode::kCorrupt) << cut.what();
  EXPECT_EQ(cut.path(), b_);
}

TEST_F(AverageFaultsTest, AnInputThatIsDeletedOrReplacedMeanwhileIsReadAsItWas) {
  for (const bool replaced : {false, true}) {
    write("b.safetensors", tensors(2));
    const std::string other = write("other.safetensors", tensors(7));
    AtRead hook(b_, data_of(b_) + 1, [&] { replaced ? fs::rename(other, b_) : static_cast<void>(fs::remove(b_)); });
    ScopedHook scoped(&hook);
    average({a_, b_});
    EXPECT_EQ(floats_of("a")[19999], 1.5f);
  }
}

// --- The output -----------------------------------------------------------------------------------------------------

class AverageOutputTest : public AverageFaultsTest, public ::testing::WithParamInterface<Format> {
 protected:
  void SetUp() override {
    if (is_run()) {
      out_ = dir_ / "run";
      commit("first", tensors(1));
      commit("second", tensors(3));
      average::average({dir_ / "first"}, out_, options());
    } else {
      test::write_all(out_, "old");
    }
    fs::copy(out_, dir_ / "kept", fs::copy_options::recursive | fs::copy_options::copy_symlinks);
  }
  bool is_run() const { return GetParam() == Format::kCheckpoint; }
  static AverageOptions options() { return {.format = GetParam(), .threads = 2}; }
  void commit(const std::string& run, const std::vector<MadeTensor>& made) {
    weights::commit_weights(dir_ / run, test::to_write(made), nullptr, {.iteration = 3});
  }
  std::vector<std::string> inputs() const {
    return is_run() ? std::vector{dir_ / "first", dir_ / "second"} : std::vector{a_, b_};
  }
  void start_again() {
    fs::remove_all(out_);
    fs::copy(dir_ / "kept", out_, fs::copy_options::recursive | fs::copy_options::copy_symlinks);
  }
  bool is_old() const { return content(out_) == content(dir_ / "kept"); }
  bool is_new() const {
    if (!is_run()) return content(out_) == new_;
    const std::string step = step_of(out_);
    return content(step + "/state.pt") == new_ && run::verify(io::Directory::open(step), 1).empty();
  }
  /// The checkpoint of a run as readers find it: where a system cannot swap two names, one that is being replaced has
  /// another name for a moment.
  static std::string step_of(const std::string& run) {
    const run::Scan scan = run::scan(io::Directory::open(run));
    return scan.checkpoints.empty() ? run : scan.checkpoints[0].path;
  }
  /// Of a run: the manifest of its checkpoint.
  static std::string content(const std::string& path) {
    return test::read_all(fs::is_directory(path) ? step_of(path) + "/MANIFEST.json" : path);
  }
  void make_new() {
    average::average(inputs(), out_, options());
    new_ = content(is_run() ? step_of(out_) + "/state.pt" : out_);
    ASSERT_FALSE(new_.empty());
    ASSERT_TRUE(is_new() && !is_old());
  }
  std::vector<std::string> names() const {
    std::vector<std::string> found = names_in_dir();
    if (is_run()) {
      for (const auto& entry : fs::directory_iterator(out_)) found.push_back(entry.path().filename());
    }
    std::sort(found.begin(), found.end());
    return found;
  }

  std::string new_;
};

TEST_P(AverageOutputTest, EachCallThatFailsLeavesTheOldOne) {
  make_new();
  const std::vector<std::string> expected = names();
  for (const int code : {EIO, ENOSPC}) {
    size_t failed = 0;
    for (size_t at = 0;; ++at) {
      start_again();
      FaultHook hook({.fault = Fault::kFail, .at = at, .error = code, .mutating_only = false});
      bool succeeded = true;
      {
        ScopedHook scoped(&hook);
        try {
          average(inputs(), options());
        } catch (const Error& error) {
          succeeded = false;
          ++failed;
          // A checkpoint whose manifest cannot be read is a damaged one.
          const bool of_manifest = hook.hit().ends_with("/MANIFEST.json") && error.code() == ErrorCode::kCorrupt;
          EXPECT_TRUE(of_manifest || error.code() == ErrorCode::kIo) << error.what() << " after " << hook.hit();
        }
      }
      if (hook.hit().empty()) break;
      EXPECT_TRUE(succeeded ? is_new() : is_old() || (hook.hit().starts_with("sync") && is_new())) << hook.hit();
      // A replaced checkpoint may stay until the next writer comes, and does where its run could not be synced.
      if (!is_run() || (!succeeded && hook.hit() != "sync " + out_)) {
        EXPECT_EQ(names(), expected) << hook.hit();
      }
      if (HasFailure()) return;
    }
    EXPECT_GT(failed, 20u);
  }
}

TEST_P(AverageOutputTest, ADiskThatStaysFullLeavesTheOldOne) {
  make_new();
  for (size_t at = 0;; ++at) {
    start_again();
    FaultHook hook({.fault = Fault::kFail, .at = at, .error = ENOSPC, .from_then_on = true});
    {
      ScopedHook scoped(&hook);
      try {
        average(inputs(), options());
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::kIo) << error.what();
      }
    }
    if (hook.hit().empty()) break;
    EXPECT_TRUE(is_old() || is_new()) << hook.hit();
    if (HasFailure()) return;
  }
}

TEST_P(AverageOutputTest, InterruptedAndShortCallsChangeNothing) {
  make_new();
  for (const Fault kind : {Fault::kInterrupt, Fault::kShort}) {
    for (size_t at = 0;; ++at) {
      start_again();
      // Reading is the same whatever is written.
      FaultHook hook({.fault = kind, .at = at, .mutating_only = is_run()});
      {
        ScopedHook scoped(&hook);
        EXPECT_NO_THROW(average(inputs(), options())) << hook.hit();
      }
      if (hook.hit().empty()) break;
      ASSERT_TRUE(is_new()) << hook.hit();
    }
  }
}

TEST_P(AverageOutputTest, AProcessThatIsKilledLeavesTheOldOrTheNewOne) {
  make_new();
  size_t killed = 0, finished = 0;
  for (size_t at = 0;; ++at) {
    start_again();
    const int status = test::run_in_child([&] {
      FaultHook hook({.fault = Fault::kKillBefore, .at = at});
      ScopedHook scoped(&hook);
      average(inputs(), options());
      return 0;
    });
    if (!test::was_killed(status)) {
      EXPECT_TRUE(test::exited_with(status, 0));
      EXPECT_TRUE(is_new());
      break;
    }
    ++killed;
    finished += is_new();
    ASSERT_TRUE(is_old() || is_new()) << "killed at call " << at;
    for (const std::string& name : names_in_dir()) {
      if (contains(name, ".tmp-")) fs::remove(dir_ / name);  // of that process
    }
  }
  EXPECT_GT(killed, 5u);
  EXPECT_GE(finished, 1u);
  EXPECT_LT(finished, killed);
}

INSTANTIATE_TEST_SUITE_P(Formats, AverageOutputTest,
                         ::testing::Values(Format::kSafetensors, Format::kTorch, Format::kCheckpoint),
                         [](const auto& format) {
                           std::string name(to_string(format.param));
                           name[0] = static_cast<char>(name[0] - 'a' + 'A');
                           return name;
                         });

// --- Limits ---------------------------------------------------------------------------------------------------------

TEST_F(AverageFaultsTest, MoreInputsThanFilesMayBeOpenIsAnErrorThatSaysSo) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "UBSan looks at an object by way of a pipe, which cannot be opened here";
#endif
  const std::vector<std::string> inputs(100, b_);
  const int status = test::run_in_child([&] {
    const rlimit limit{50, 50};
    if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) return 1;
    try {
      average(inputs);
    } catch (const Error& error) {
      return error.code() == ErrorCode::kIo && contains(error.what(), "Too many open files") ? 0 : 2;
    }
    return 3;
  });
  EXPECT_TRUE(test::exited_with(status, 0)) << status;
}

TEST_F(AverageFaultsTest, HundredsOfInputsTakePart) {
  std::vector<std::string> inputs(200, b_);
  inputs.push_back(a_);
  average(inputs, {.threads = 2});
  EXPECT_EQ(floats_of("a")[0], static_cast<float>(401.0 / 201));
}

}  // namespace
}  // namespace ckpt
