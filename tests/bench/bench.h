// What the benchmarks of files share: times and their ratios, memory, a directory, the state of the page cache.
#pragma once

#include <fcntl.h>
#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace ckpt::bench {

using Clock = std::chrono::steady_clock;

inline constexpr size_t kBlock = 4 << 20;

inline double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

inline void check(bool ok, const std::string& what) {
  if (!ok) throw std::runtime_error(what + ": " + std::strerror(errno));
}

struct FreeBuffer {
  void operator()(std::byte* data) const { std::free(data); }
};
using Buffer = std::unique_ptr<std::byte, FreeBuffer>;

/// Aligned as direct writes need it, and touched, so that no page of it is new to the kernel later.
inline Buffer make_buffer(size_t bytes) {
  Buffer buffer(static_cast<std::byte*>(std::aligned_alloc(4096, bytes)));
  std::memset(buffer.get(), 1, bytes);
  return buffer;
}

/// Medians by name.
class Times {
 public:
  /// `prepare` does not count.
  template <class Prepare, class Body>
  void measure(const std::string& name, int repeat, Prepare prepare, Body body) {
    std::vector<double> seconds;
    for (int i = 0; i < repeat; ++i) {
      prepare();
      const auto start = Clock::now();
      body();
      seconds.push_back(seconds_since(start));
    }
    add(name, std::move(seconds));
  }
  template <class Body>
  void measure(const std::string& name, int repeat, Body body) {
    measure(
        name, repeat, [] {}, body);
  }
  void add(const std::string& name, std::vector<double> seconds) {
    std::sort(seconds.begin(), seconds.end());
    median_[name] = seconds[seconds.size() / 2];
    std::printf("  %-58s %9.2f ms   (best %.2f)\n", name.c_str(), median_[name] * 1e3, seconds.front() * 1e3);
    std::fflush(stdout);
  }
  /// Prints it, where both were measured.
  void ratio(const std::string& value, const std::string& against, const std::string& aim) const {
    const auto a = median_.find(value), b = median_.find(against);
    if (a == median_.end() || b == median_.end()) return;
    std::printf("  %s / %s: %.2f%s\n", value.c_str(), against.c_str(), a->second / b->second,
                aim.empty() ? "" : (", aim " + aim).c_str());
  }

 private:
  std::map<std::string, double> median_;
};

/// Anonymous memory of this process beyond what it had, at its highest while `body` runs, in MiB.
template <class Body>
double peak_anonymous_mib(Body body) {
  const auto anonymous = [] {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
      if (line.rfind("RssAnon:", 0) == 0) return std::stod(line.substr(8)) / 1024;
    }
    return 0.0;
  };
  ::malloc_trim(0);  // what the heap keeps could be used again unseen
  const double before = anonymous();
  std::atomic<bool> done{false};
  double peak = before;
  std::thread watcher([&] {
    while (!done) {
      peak = std::max(peak, anonymous());
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  });
  body();
  done = true;
  watcher.join();
  return peak - before;
}

inline void sync_file(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDWR);
  check(fd >= 0 && ::fsync(fd) == 0, path);
  ::close(fd);
}

/// Into the page cache.
inline void warm(const std::string& path) {
  std::vector<char> buffer(kBlock);
  const int fd = ::open(path.c_str(), O_RDONLY);
  check(fd >= 0, path);
  while (::read(fd, buffer.data(), buffer.size()) > 0) continue;
  ::close(fd);
}

/// Out of it, where the file system can.
inline void evict(const std::string& path) {
  sync_file(path);
  const int fd = ::open(path.c_str(), O_RDONLY);
  check(fd >= 0 && ::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0, path);
  ::close(fd);
}

/// A new file of that size, in direct writes where they are possible, with fsync.
inline void write_zeros(const std::string& path, size_t bytes) {
  ::unlink(path.c_str());
  int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_DIRECT, 0600);
  if (fd < 0) fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL, 0600);
  check(fd >= 0, path);
  check(::posix_fallocate(fd, 0, static_cast<off_t>(bytes)) == 0, "fallocate");
  std::atomic<size_t> next{0};
  const auto work = [&] {
    const Buffer buffer = make_buffer(kBlock);
    for (size_t at = next.fetch_add(kBlock); at < bytes; at = next.fetch_add(kBlock)) {
      check(::pwrite(fd, buffer.get(), kBlock, static_cast<off_t>(at)) == kBlock, "pwrite");
    }
  };
  std::thread other(work);
  work();
  other.join();
  check(::fsync(fd) == 0 && ::close(fd) == 0, "fsync");
}

/// A new directory below one that is there; removed at the end.
class Directory {
 public:
  explicit Directory(const std::string& parent) : path_(parent + "/ckpt-bench-XXXXXX") {
    check(::mkdtemp(path_.data()) != nullptr, path_);
  }
  ~Directory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

/// --name=value.
class Arguments {
 public:
  Arguments(int argc, char** argv) {
    for (int i = 1; i < argc; ++i) {
      const std::string text = argv[i];
      const size_t middle = text.find('=');
      if (text.rfind("--", 0) != 0 || middle == std::string::npos) throw std::runtime_error("unknown argument " + text);
      values_[text.substr(2, middle - 2)] = text.substr(middle + 1);
    }
  }
  template <class T>
  Arguments& take(const std::string& name, T& value) {
    const auto found = values_.find(name);
    if (found == values_.end()) return *this;
    std::istringstream stream(found->second);
    if (!(stream >> value)) throw std::runtime_error("--" + name + ": cannot be " + found->second);
    values_.erase(found);
    return *this;
  }
  void done() const {
    if (!values_.empty()) throw std::runtime_error("unknown argument --" + values_.begin()->first);
  }

 private:
  std::map<std::string, std::string> values_;
};

template <class Body>
int run_bench(const char* name, Body body) {
  try {
    body();
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", name, error.what());
    return 1;
  }
}

}  // namespace ckpt::bench
