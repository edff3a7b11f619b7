#include "qkv/nn/kv_state.h"

#include <algorithm>
#include <cstring>

#include "qkv/core/error.h"
#include "qkv/core/parallel.h"
#include "qkv/tensor/convert.h"

namespace qkv {
namespace {

constexpr int64_t kRowGrain = 16;  // tokens stored by one thread before others are worth waking

int64_t pages_for(int64_t tokens, int64_t page_tokens) {
  return (tokens + page_tokens - 1) / page_tokens;
}

// The narrower of the layer's window and the options'.
int64_t seen_window(const CacheOptions& options, int64_t window) {
  if (options.window == 0 || (window > 0 && window < options.window)) return window;
  return options.window;
}

CacheLayout with_options(CacheLayout layout, const CacheOptions& options) {
  layout.k_type = options.k_type;
  layout.v_type = options.v_type;
  layout.page_tokens = options.page_tokens;
  return layout;
}

}  // namespace

KvState::KvState(CacheLayout layout, const CacheOptions& options, int64_t window)
    : layout_(with_options(layout, options)), options_(options), window_(seen_window(options, window)) {
  check(layout_);
  check(options_);
  require(!options_.rotate_k || (layout_.k_dim & (layout_.k_dim - 1)) == 0,
          "cache: rotation of keys: expected heads of a power of two, found {}", layout_.k_dim);
  // A layer that sees less than the options' window has its own way of forgetting.
  if (window_ != options_.window) options_.sinks = 0;
  if (options_.pool == nullptr) options_.pool = PagePool::make();
}

int64_t KvState::needed(int64_t length) const {
  return window_ > 0 ? std::max<int64_t>(0, length - (window_ - 1)) : 0;
}

// Pages of nothing but tokens before `token`, and of no sink.
void KvState::release_before(int64_t token) {
  const int64_t size = layout_.page_tokens;
  for (int64_t page = first_ / size; (page + 1) * size <= token; ++page) {
    if (page * size >= options_.sinks) {
      pages_[static_cast<size_t>(page)].reset();
      addresses_[static_cast<size_t>(page)] = nullptr;
    }
    first_ = (page + 1) * size;
  }
}

void KvState::reserve(int64_t tokens) {
  if (tokens <= 0) return;
  const auto page_bytes = static_cast<uint64_t>(layout_.page_bytes());
  const int64_t size = layout_.page_tokens;
  if (length_ % size != 0 && pages_[static_cast<size_t>(length_ / size)].use_count() > 1) {
    auto& shared = pages_[static_cast<size_t>(length_ / size)];
    auto own = options_.pool->take(page_bytes);
    std::memcpy(own->data(), shared->data(), page_bytes);
    shared = std::move(own);
    addresses_[static_cast<size_t>(length_ / size)] = shared->data();
  }
  const auto count = static_cast<size_t>(pages_for(length_ + tokens, size));
  const size_t before = pages_.size();
  try {
    while (pages_.size() < count) pages_.push_back(options_.pool->take(page_bytes));
  } catch (...) {
    pages_.resize(before);
    throw;
  }
  for (size_t i = before; i < count; ++i) addresses_.push_back(pages_[i]->data());
}

void KvState::append(const Tensor& k, const Tensor& v) {
  const int64_t n = k.rows(), heads = layout_.heads;
  const int64_t v_width = v.defined() ? v.cols() : 0;
  const bool fits = k.cols() == heads * layout_.k_dim && v_width == heads * layout_.v_dim &&
                    (!v.defined() || (v.rows() == n && v.dtype() == k.dtype()));
  if (!fits) {
    fail("kv cache: expected rows of {} and {}, found {} and {}", heads * layout_.k_dim,
         heads * layout_.v_dim, describe(k), v.defined() ? describe(v) : "none");
  }
  release_before(needed(length_));  // what the first of the new tokens sees stays
  reserve(n);
  const int64_t size = layout_.page_tokens;
  parallel_for(n, kRowGrain, [&](int64_t first, int64_t last) {
    std::vector<float> row(static_cast<size_t>(std::max(k.cols(), v_width)));
    const auto put = [&](const Tensor& x, int64_t t, int64_t dim, DType type, auto&& place) {
      widen(x.raw(), x.dtype(), t * x.cols(), x.cols(), row.data());
      for (int64_t h = 0; h < heads; ++h) store_cache_row(row.data() + h * dim, dim, type, place(h));
    };
    for (int64_t t = first; t < last; ++t) {
      std::byte* page = pages_[static_cast<size_t>((length_ + t) / size)]->data();
      const int64_t slot = (length_ + t) % size;
      put(k, t, layout_.k_dim, layout_.k_type, [&](int64_t h) { return page + layout_.k_offset(h, slot); });
      if (v_width == 0) continue;
      put(v, t, layout_.v_dim, layout_.v_type, [&](int64_t h) { return page + layout_.v_offset(h, slot); });
    }
  });
  length_ += n;
}

void KvState::trim() {
  if (window_ > 0 && length_ - first_ > 2 * (window_ + layout_.page_tokens)) release_before(needed(length_));
}

ops::CachedSequence KvState::view(int64_t begin, int64_t n) const {
  ops::CachedSequence sequence;
  sequence.pages = addresses_.data();
  sequence.begin = begin;
  sequence.end = begin + n;
  sequence.slot = length_ - n;
  sequence.first_slot = sequence.sinks = options_.sinks;
  return sequence;
}

Tensor KvState::rows(int64_t begin, DType type, bool values) const {
  require(begin >= first_ && begin <= length_, "kv cache: tokens from {} on are held, found one at {}",
          first_, begin);
  const int64_t dim = values ? layout_.v_dim : layout_.k_dim, size = layout_.page_tokens;
  Tensor out = Tensor::empty({length_ - begin, layout_.heads * dim});
  parallel_for(out.rows(), kRowGrain, [&](int64_t first, int64_t last) {
    for (int64_t t = first; t < last; ++t) {
      const int64_t slot = (begin + t) % size;
      const std::byte* page = addresses_[static_cast<size_t>((begin + t) / size)];
      for (int64_t h = 0; h < layout_.heads; ++h) {
        const int64_t offset = values ? layout_.v_offset(h, slot) : layout_.k_offset(h, slot);
        load_cache_row(page + offset, dim, values ? layout_.v_type : layout_.k_type,
                       out.data<float>() + t * out.cols() + h * dim);
      }
    }
  });
  return out.to(type);
}

uint64_t KvState::bytes() const {
  const auto held =
      std::count_if(pages_.begin(), pages_.end(), [](const auto& page) { return page != nullptr; });
  return static_cast<uint64_t>(held) * static_cast<uint64_t>(layout_.page_bytes());
}

void KvState::truncate(int64_t length) {
  require(0 <= length && length <= length_, "kv cache: cannot shorten {} tokens to {}", length_, length);
  require(first_ <= std::max(needed(length), options_.sinks),
          "kv cache: cannot shorten to {} tokens: a window of {} keeps only those from {} on", length,
          window_, first_);
  length_ = length;
  pages_.resize(static_cast<size_t>(pages_for(length, layout_.page_tokens)));
  addresses_.resize(pages_.size());
}

std::unique_ptr<LayerState> KvState::fork(int64_t length) const {
  auto other = std::make_unique<KvState>(*this);
  other->truncate(length);
  return other;
}

uint64_t KvState::bytes_of(CacheLayout layout, const CacheOptions& options, int64_t window, int64_t tokens,
                           int64_t pass_tokens) {
  const CacheLayout pages = with_options(layout, options);
  const int64_t size = pages.page_tokens, seen = seen_window(options, window);
  int64_t count = pages_for(tokens, size);
  if (seen > 0) {
    const int64_t sinks = seen == options.window ? pages_for(options.sinks, size) : 0;
    count = std::min(count, sinks + 1 + pages_for(seen - 1 + std::max<int64_t>(0, pass_tokens - 1), size));
  }
  return static_cast<uint64_t>(count) * static_cast<uint64_t>(pages.page_bytes());
}

// length_ and first_, then the pages that are held; of the last one slots without a token are zeros.
void KvState::write(ByteSink sink) const {
  const int64_t counts[2] = {length_, first_};
  sink(std::as_bytes(std::span(counts)));
  const int64_t size = layout_.page_tokens;
  const auto page_bytes = static_cast<size_t>(layout_.page_bytes());
  for (size_t i = 0; i < static_cast<size_t>(pages_for(length_, size)); ++i) {
    if (pages_[i] == nullptr) continue;
    const std::byte* data = pages_[i]->data();
    const int64_t held = std::min(size, length_ - static_cast<int64_t>(i) * size);
    if (held == size) {
      sink({data, page_bytes});
      continue;
    }
    std::vector<std::byte> copy(page_bytes);
    const auto take = [&](int64_t offset, int64_t row_bytes) {
      std::memcpy(copy.data() + offset, data + offset, static_cast<size_t>(held * row_bytes));
    };
    for (int64_t h = 0; h < layout_.heads; ++h) {
      take(layout_.k_offset(h, 0), layout_.k_row_bytes());
      if (layout_.v_dim > 0) take(layout_.v_offset(h, 0), layout_.v_row_bytes());
    }
    sink(copy);
  }
}

void KvState::read(ByteSource source, int64_t most_tokens) {
  require(length_ == 0, "kv cache: expected an empty one to read into, found {} tokens", length_);
  int64_t counts[2] = {};
  source(std::as_writable_bytes(std::span(counts)));
  const auto [tokens, first] = counts;
  const int64_t size = layout_.page_tokens;
  require(0 <= tokens && tokens <= most_tokens, "kv cache: expected at most {} tokens, found {}", most_tokens,
          tokens);
  require(0 <= first && first <= needed(tokens) && first % size == 0,
          "kv cache: expected the tokens from {} on, found those from {} on", needed(tokens), first);
  const auto page_bytes = static_cast<uint64_t>(layout_.page_bytes());
  pages_.clear();
  addresses_.clear();
  for (int64_t begin = 0; begin < tokens; begin += size) {
    const bool released = begin + size <= first && begin >= options_.sinks;
    pages_.push_back(released ? nullptr : options_.pool->take(page_bytes));
    addresses_.push_back(released ? nullptr : pages_.back()->data());
    if (!released) source({pages_.back()->data(), page_bytes});
  }
  length_ = tokens;
  first_ = first;
}

}  // namespace qkv
