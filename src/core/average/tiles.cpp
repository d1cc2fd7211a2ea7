#include "core/average/tiles.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <system_error>

#include "core/base/checksum.h"
#include "core/weights/gather.h"
#include "core/weights/numbers.h"

namespace ckpt::average {
namespace {

using format::StoredTensor;
using weights::Tensor;
using weights::TileGrid;

// Of one member. Part of what a hash is: another size would give other ones. Some of them fit into a core's cache.
constexpr uint64_t kTileBytes = 65536;
// Of one member: what the kernel is told of before it is read.
constexpr uint64_t kReadAhead = 8 << 20;
constexpr uint64_t kAdvice = 1 << 20;

/// Whether the checksum of the tensor's record can be taken from its elements as they are read.
bool checked_on_the_way(const weights::Weights& weights, const Tensor& tensor) {
  constexpr bool kBig = std::endian::native == std::endian::big;
  return tensor.stored.dtype != DType::kBool && tensor.stored.big_endian == kBig && weights.whole_record(tensor);
}

/// The hash of tiles one after the other, from that of those before and the next one's: tensors of any size take no
/// more than this.
uint64_t chained(uint64_t before, uint64_t next) {
  std::string both;
  append_le(both, before, 8);
  append_le(both, next, 8);
  return xxh3_64(as_bytes(both));
}

uint64_t count_nonfinite(ByteView elements, DType dtype) {
  std::vector<double> numbers(elements.size() / width(dtype) * weights::numbers_per_element(dtype));
  weights::as_doubles(elements, dtype, numbers);
  return static_cast<uint64_t>(
      std::count_if(numbers.begin(), numbers.end(), [](double number) { return !std::isfinite(number); }));
}

}  // namespace

Tiles::Tiles(const Members& members, const Plan& plan, std::vector<size_t> order, unsigned threads)
    : members_(members),
      plan_(plan),
      combiner_(members, plan),
      order_(std::move(order)),
      position_of_(plan.items.size(), 0),
      further_names_(plan.items.size()),
      threads_(std::max(1u, threads)),
      hash_sums_(members.list.size()) {
  for (size_t i = 0; i < order_.size(); ++i) position_of_[order_[i]] = i;
  for (size_t i = 0; i < plan.items.size(); ++i) {
    if (plan.items[i].tied_to >= 0) further_names_[static_cast<size_t>(plan.items[i].tied_to)].push_back(i);
  }
  const std::vector<uint64_t> no_digests(members.list.size());
  for (size_t i = 0; i < plan.items.size(); ++i) {
    if (plan.items[i].first().stored.elements == 0) account(i, no_digests);
  }
  for (const Member& member : members.list) {
    std::vector<const Tensor*> parts;
    for (const Item& item : plan.items) {
      const Tensor* tensor = item.sources[static_cast<size_t>(&member - members.list.data())];
      if (tensor && !checked_on_the_way(member.weights, *tensor)) parts.push_back(tensor);
    }
    member.weights.verify(parts, threads_);
  }
  slots_.resize(8 * threads_);
}

Tiles::~Tiles() { stop(); }

void Tiles::start() {
  try {
    for (unsigned i = 0; i < threads_; ++i) workers_.emplace_back([this] { work(); });
  } catch (const std::system_error&) {  // those that started do it
    if (workers_.empty()) throw Error(ErrorCode::kIo, "", "no thread can be started");
  }
}

void Tiles::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  to_workers_.notify_all();
  for (std::thread& worker : workers_) worker.join();
  workers_.clear();
}

/// What was done ahead is dropped.
void Tiles::restart_at(size_t position) {
  stop();
  stopping_ = false;
  for (Slot& slot : slots_) slot = Slot();
  taken_ = consumed_ = ready_ = 0;
  next_ = advised_ = {position, 0};
  advised_ahead_ = 0;
  position_ = position;
}

uint64_t Tiles::tiles_at(size_t position) const {
  return TileGrid(plan_.items[order_[position]].first().stored, kTileBytes).count();
}

void Tiles::produce(size_t item, const format::ByteSink& sink) {
  const size_t position = position_of_[item];
  if (position != position_) restart_at(position);
  if (workers_.empty()) start();
  const Item& what = plan_.items[item];
  std::vector<size_t> present;
  for (size_t m = 0; m < what.sources.size(); ++m) {
    if (what.sources[m]) present.push_back(m);
  }
  std::vector<uint64_t> digests(members_.list.size());
  std::vector<uint32_t> crcs(members_.list.size(), 0);
  Seen seen;
  for (uint64_t left = tiles_at(position); left > 0; --left) {
    Slot& slot = wait_for(consumed_);
    for (size_t i = 0; i < present.size(); ++i) {
      const OfMember& one = slot.members[i];
      const size_t m = present[i];
      digests[m] = chained(digests[m], one.hash);
      crcs[m] = crc32_combine(crcs[m], one.crc, one.bytes);
      if (one.nonfinite != 0) met_.nonfinite[{m, item}] += one.nonfinite;
    }
    seen.overflow |= slot.seen.overflow;
    seen.disagrees |= slot.seen.disagrees;
    sink(slot.bytes);
    release(slot);
  }
  for (const size_t m : present) {
    const Member& member = members_.list[m];
    if (checked_on_the_way(member.weights, *what.sources[m])) {
      member.weights.check_whole_record(*what.sources[m], crcs[m]);
    }
  }
  if (seen.overflow) met_.overflows.push_back(item);
  if (seen.disagrees) met_.disagreements.push_back(item);
  account(item, digests);
  for (const size_t further : further_names_[item]) account(further, digests);
  ++produced_;
  position_ = position + 1;
}

/// Sums do not depend on the order in which items come.
void Tiles::account(size_t item, const std::vector<uint64_t>& digests) {
  const Item& what = plan_.items[item];
  for (size_t m = 0; m < members_.list.size(); ++m) {
    if (!what.sources[m]) continue;
    const StoredTensor& stored = what.sources[m]->stored;
    std::string entry(1, 'a');
    entry += what.name + '\0' + ckpt::describe(stored.dtype, stored.shape) + '\0';
    append_le(entry, digests[m], 8);
    hash_sums_[m].first += xxh3_64(as_bytes(entry));
    entry[0] = 'b';
    hash_sums_[m].second += xxh3_64(as_bytes(entry));
  }
}

Tiles::Outcome Tiles::outcome() const {
  Outcome outcome = met_;
  for (const auto& [first, second] : hash_sums_) outcome.hashes.push_back(to_hex(first) + to_hex(second));
  return outcome;
}

/// Threads are woken when there is something to do for a while: waking them for each tile takes as long as a tile.
void Tiles::release(Slot& slot) {
  const std::lock_guard lock(mutex_);
  slot.state = Slot::State::kFree;
  ++consumed_;
  --ready_;
  if (taken_ - consumed_ <= slots_.size() / 2) to_workers_.notify_all();
}

/// Whether the caller has what it sleeps for, and a few more or all there will be without it.
bool Tiles::is_worth_waking() const {
  constexpr size_t kWorth = 4;
  const Slot& slot = slots_[awaited_ % slots_.size()];
  return slot.state == Slot::State::kReady && slot.sequence == awaited_ &&
         (ready_ >= kWorth || ready_ == taken_ - consumed_);
}

Tiles::Slot& Tiles::wait_for(uint64_t sequence) {
  Slot& slot = slots_[sequence % slots_.size()];
  std::unique_lock lock(mutex_);
  if (slot.state != Slot::State::kReady || slot.sequence != sequence) {
    to_workers_.notify_all();
    awaited_ = sequence;
    to_caller_.wait(lock, [&] { return is_worth_waking(); });
    awaited_ = kNothing;
  }
  if (slot.error) std::rethrow_exception(slot.error);
  return slot;
}

bool Tiles::take(Place& place, size_t& slot, std::vector<Advice>& advice) {
  std::unique_lock lock(mutex_);
  to_workers_.wait(lock, [&] {
    return stopping_ || (next_.position < order_.size() && taken_ < consumed_ + slots_.size() &&
                         slots_[taken_ % slots_.size()].state == Slot::State::kFree);
  });
  if (stopping_) return false;
  place = next_;
  slot = taken_ % slots_.size();
  slots_[slot].state = Slot::State::kBusy;
  slots_[slot].sequence = taken_++;
  const StoredTensor& stored = plan_.items[order_[place.position]].first().stored;
  if (++next_.tile >= tiles_at(place.position)) next_ = {place.position + 1, 0};
  advised_ahead_ -= std::min(advised_ahead_, std::min(stored.bytes, kTileBytes));
  if (advised_ahead_ <= kReadAhead - kAdvice) advise(advice);
  return true;
}

/// The next parts of the members' files, up to kReadAhead beyond what was taken.
void Tiles::advise(std::vector<Advice>& advice) {
  while (advised_ahead_ < kReadAhead && advised_.position < order_.size()) {
    const Item& item = plan_.items[order_[advised_.position]];
    const uint64_t done = advised_.tile * kTileBytes;  // as if all were contiguous
    const uint64_t bytes = std::min(kAdvice, item.first().stored.bytes - done);
    for (size_t m = 0; m < item.sources.size(); ++m) {
      const Tensor* tensor = item.sources[m];
      if (!tensor || !tensor->stored.contiguous()) continue;
      advice.push_back(
          {members_.list[m].weights.files()[tensor->file].get(), tensor->stored.file_offset + done, bytes});
    }
    advised_ahead_ += bytes;
    advised_.tile += kAdvice / kTileBytes;
    if (done + bytes >= item.first().stored.bytes) advised_ = {advised_.position + 1, 0};
  }
}

void Tiles::work() {
  std::vector<std::byte> buffer(members_.list.size() * kTileBytes);
  std::vector<Advice> advice;
  Place place;
  size_t slot = 0;
  while (take(place, slot, advice)) {
    for (const Advice& one : advice) one.file->will_need(one.offset, one.bytes);
    advice.clear();
    try {
      fill(place, slots_[slot], buffer);
    } catch (...) {
      slots_[slot].error = std::current_exception();
    }
    const std::lock_guard lock(mutex_);
    slots_[slot].state = Slot::State::kReady;
    ++ready_;
    if (awaited_ != kNothing && is_worth_waking()) to_caller_.notify_one();
  }
}

void Tiles::fill(const Place& place, Slot& slot, std::vector<std::byte>& buffer) const {
  const Item& item = plan_.items[order_[place.position]];
  const TileGrid grid(item.first().stored, kTileBytes);
  std::vector<const std::byte*> inputs;
  slot.members.clear();
  uint64_t elements = 0;
  for (size_t m = 0; m < item.sources.size(); ++m) {
    if (!item.sources[m]) continue;
    const StoredTensor tile = grid.tile(item.sources[m]->stored, place.tile);
    const std::span<std::byte> into(buffer.data() + inputs.size() * kTileBytes, static_cast<size_t>(tile.bytes));
    read(m, *item.sources[m], tile, into, slot.members.emplace_back());
    inputs.push_back(into.data());
    elements = tile.elements;
  }
  slot.bytes.resize(static_cast<size_t>(elements * width(item.to)));
  slot.seen = combiner_(item, inputs, static_cast<size_t>(elements), slot.bytes.data());
  if (slot.seen.nonfinite_input) {
    const DType dtype = item.first().stored.dtype;
    for (size_t i = 0; i < inputs.size(); ++i) {
      slot.members[i].nonfinite = count_nonfinite({inputs[i], static_cast<size_t>(elements * width(dtype))}, dtype);
    }
  }
  if constexpr (std::endian::native == std::endian::big) swap_byte_order(slot.bytes, item.to);
}

void Tiles::read(size_t member, const Tensor& tensor, const StoredTensor& tile, std::span<std::byte> into,
                 OfMember& seen) const {
  const weights::Weights& weights = members_.list[member].weights;
  weights.read(tensor, tile, into);
  seen.bytes = into.size();
  if (checked_on_the_way(weights, tensor)) seen.crc = crc32(into);
  if constexpr (std::endian::native == std::endian::little) {
    seen.hash = xxh3_64(into);
  } else {
    std::vector<std::byte> little(into.begin(), into.end());
    swap_byte_order(little, tensor.stored.dtype);
    seen.hash = xxh3_64(little);
  }
}

}  // namespace ckpt::average
