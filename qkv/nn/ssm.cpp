#include "qkv/nn/ssm.h"

#include <algorithm>
#include <cmath>

#include "qkv/core/error.h"

namespace qkv {
namespace {

// What the sequences of an incremental pass carry in this layer; empty in a whole pass.
struct Carried {
  std::vector<Tensor> convolutions, states;

  Carried(const Pass& pass, size_t layer) {
    for (size_t s = 0; s < pass.states.size(); ++s) {
      auto& state = dynamic_cast<RecurrentState&>(*pass.states[s]->layers[layer]);
      convolutions.push_back(state.convolution());
      states.push_back(state.state());
      state.advance(pass.sequences.offsets[s + 1] - pass.sequences.offsets[s]);
    }
  }
};

bool ends_with(const std::string& text, std::string_view ending) {
  return text.size() >= ending.size() && std::string_view(text).substr(text.size() - ending.size()) == ending;
}

}  // namespace

RecurrentState::RecurrentState(Shape convolution, Shape state)
    : convolution_(Tensor::zeros(convolution)), state_(Tensor::zeros(state)) {}

std::unique_ptr<LayerState> RecurrentState::fork(int64_t length) const {
  auto other = std::make_unique<RecurrentState>(convolution_.shape(), state_.shape());
  other->convolution_ = convolution_.clone();
  other->state_ = state_.clone();
  other->length_ = length_;
  other->truncate(length);
  return other;
}

void RecurrentState::write(ByteSink sink) const {
  sink(std::as_bytes(std::span(&length_, 1)));
  for (const Tensor* part : {&convolution_, &state_}) sink({part->raw(), static_cast<size_t>(part->bytes())});
}

void RecurrentState::read(ByteSource source, int64_t most_tokens) {
  int64_t tokens = 0;
  source(std::as_writable_bytes(std::span(&tokens, 1)));
  require(0 <= tokens && tokens <= most_tokens, "recurrent state: expected at most {} tokens, found {}", most_tokens,
          tokens);
  for (Tensor* part : {&convolution_, &state_}) source({part->raw(), static_cast<size_t>(part->bytes())});
  length_ = tokens;
}

void RecurrentState::truncate(int64_t length) {
  if (length == length_) return;
  require(length == 0, "recurrent state: cannot go back from {} tokens to {}; it holds them all as one",
          length_, length);
  convolution_.fill(0);
  state_.fill(0);
  length_ = 0;
}

Mamba::Mamba(const MambaConfig& config)
    : config_(config),
      in_(config.channels, config.inner, config.bias),
      gate_(config.channels, config.inner, config.bias),
      conv_weight_(Tensor::placeholder({config.inner, config.taps})),
      conv_bias_(config.conv_bias ? Tensor::zeros({config.inner}) : Tensor()),
      parameters_(config.inner, config.dt_rank + 2 * config.states, false),
      dt_(config.dt_rank, config.inner, false),
      dt_bias_(Tensor::zeros({config.inner})),
      a_log_(Tensor::placeholder({config.inner, config.states})),
      skip_(Tensor::full({config.inner}, 1)),
      out_(config.inner, config.channels, config.bias) {}

Tensor Mamba::forward(const Tensor& x, const Pass& pass, const ops::RopeTable*, size_t layer) const {
  const Carried carried(pass, layer);
  const Tensor u = ops::causal_conv1d(in_.forward(x, pass), conv_weight_, conv_bias_, pass.sequences, true,
                                      carried.convolutions);  // (T, D)
  std::vector<Tensor> parts =
      ops::split_cols(parameters_.forward(u, pass), {config_.dt_rank, config_.states, config_.states});
  if (config_.normalized) {
    for (Tensor& part : parts) part = ops::rms_norm(part, Tensor(), config_.normalized_eps);
  }
  ops::ScanInputs scan;
  scan.u = u;
  scan.delta = dt_.forward(parts[0], pass);  // (T, D)
  scan.a = ops::decay_rates(a_log_);
  scan.b = parts[1];  // (T, N)
  scan.c = parts[2];
  scan.skip = skip_;
  scan.z = gate_.forward(x, pass);  // (T, D)
  scan.delta_bias = dt_bias_;
  return out_.forward(ops::selective_scan(scan, pass.sequences, {}, carried.states), pass);
}

std::unique_ptr<LayerState> Mamba::make_state(const CacheOptions&) const {
  return std::make_unique<RecurrentState>(config_.convolution_shape(), config_.state_shape());
}

uint64_t Mamba::state_bytes(const CacheOptions&, int64_t, int64_t) const {
  return RecurrentState::bytes_of(config_.convolution_shape(), config_.state_shape());
}

void Mamba::visit(const std::string& prefix, const ParameterVisitor& visitor) {
  in_.visit(prefix + "in.", visitor);
  gate_.visit(prefix + "gate.", visitor);
  visitor(prefix + "conv.weight", conv_weight_);
  if (conv_bias_.defined()) visitor(prefix + "conv.bias", conv_bias_);
  parameters_.visit(prefix + "parameters.", visitor);
  dt_.visit(prefix + "dt.", visitor);
  visitor(prefix + "dt.bias", dt_bias_);
  visitor(prefix + "a_log", a_log_);
  visitor(prefix + "skip", skip_);
  out_.visit(prefix + "out.", visitor);
}

void Mamba::visit_linears(const std::string& prefix, const LinearVisitor& visitor) {
  in_.visit_linears(prefix + "in.", visitor);
  gate_.visit_linears(prefix + "gate.", visitor);
  parameters_.visit_linears(prefix + "parameters.", visitor);
  dt_.visit_linears(prefix + "dt.", visitor);
  out_.visit_linears(prefix + "out.", visitor);
}

Mamba2::Mamba2(const Mamba2Config& config)
    : config_(config),
      gate_(config.channels, config.inner(), config.bias),
      in_(config.channels, config.convolved(), config.bias),
      dt_(config.channels, config.heads, config.bias),
      conv_weight_(Tensor::placeholder({config.convolved(), config.taps})),
      conv_bias_(config.conv_bias ? Tensor::zeros({config.convolved()}) : Tensor()),
      dt_bias_(Tensor::zeros({config.heads})),
      a_log_(Tensor::zeros({config.heads})),
      skip_(Tensor::full({config.heads}, 1)),
      norm_(config.norm ? Tensor::full({config.inner()}, 1) : Tensor()),
      out_(config.inner(), config.channels, config.bias) {}

// norm(y silu(z)), each group's channels by themselves.
Tensor Mamba2::gated_norm(const Tensor& y, const Tensor& z) const {
  const Tensor gated = ops::gated(z, y, Activation::silu);  // (T, D)
  if (!norm_.defined()) return gated;
  if (config_.groups == 1) return ops::rms_norm(gated, norm_, config_.norm_eps);
  const int64_t groups = config_.groups, width = config_.inner() / groups;
  const Tensor normed = ops::rms_norm(ops::reshape(gated, {gated.rows() * groups, width}),
                                      ops::reshape(norm_, {groups, width}), config_.norm_eps);
  return ops::reshape(normed, gated.shape());
}

Tensor Mamba2::forward(const Tensor& x, const Pass& pass, const ops::RopeTable*, size_t layer) const {
  const Carried carried(pass, layer);
  const Tensor xbc = ops::causal_conv1d(in_.forward(x, pass), conv_weight_, conv_bias_, pass.sequences, true,
                                        carried.convolutions);  // (T, D + 2 groups N)
  const int64_t states = config_.groups * config_.states;
  const std::vector<Tensor> parts = ops::split_cols(xbc, {config_.inner(), states, states});
  ops::SsdInputs ssd;
  ssd.x = parts[0];         // (T, heads * head_dim)
  ssd.dt = dt_.forward(x, pass);  // (T, heads)
  ssd.a = ops::decay_rates(a_log_);
  ssd.b = parts[1];  // (T, groups N)
  ssd.c = parts[2];
  ssd.skip = skip_;
  ssd.dt_bias = dt_bias_;
  ops::SsdOptions options;
  options.groups = config_.groups;
  options.least = config_.least_step;
  options.most = config_.most_step;
  const Tensor y = ops::ssd(ssd, pass.sequences, options, carried.states);
  return out_.forward(gated_norm(y, gate_.forward(x, pass)), pass);
}

std::unique_ptr<LayerState> Mamba2::make_state(const CacheOptions&) const {
  return std::make_unique<RecurrentState>(config_.convolution_shape(), config_.state_shape());
}

uint64_t Mamba2::state_bytes(const CacheOptions&, int64_t, int64_t) const {
  return RecurrentState::bytes_of(config_.convolution_shape(), config_.state_shape());
}

void Mamba2::visit(const std::string& prefix, const ParameterVisitor& visitor) {
  gate_.visit(prefix + "gate.", visitor);
  in_.visit(prefix + "in.", visitor);
  dt_.visit(prefix + "dt_in.", visitor);
  visitor(prefix + "conv.weight", conv_weight_);
  if (conv_bias_.defined()) visitor(prefix + "conv.bias", conv_bias_);
  visitor(prefix + "dt.bias", dt_bias_);
  visitor(prefix + "a_log", a_log_);
  visitor(prefix + "skip", skip_);
  if (norm_.defined()) visitor(prefix + "norm.weight", norm_);
  out_.visit(prefix + "out.", visitor);
}

void Mamba2::visit_linears(const std::string& prefix, const LinearVisitor& visitor) {
  gate_.visit_linears(prefix + "gate.", visitor);
  in_.visit_linears(prefix + "in.", visitor);
  dt_.visit_linears(prefix + "dt_in.", visitor);
  out_.visit_linears(prefix + "out.", visitor);
}

bool initialize_ssm_parameter(const std::string& name, Tensor& parameter, Rng rng) {
  float* values = parameter.data<float>();
  const int64_t cols = parameter.cols();
  const auto fill = [&](auto&& value) {
    for (int64_t i = 0; i < parameter.elements(); ++i) values[i] = static_cast<float>(value(i));
    return true;
  };
  const auto uniform = [&](double low, double high) {
    return low + (high - low) * static_cast<double>(rng.uniform());
  };
  if (ends_with(name, "ssm.a_log")) {
    // A state per rate 1 to N; Mamba-2's heads draw theirs from that range.
    if (parameter.shape().rank() == 2)
      return fill([&](int64_t i) { return std::log(static_cast<double>(i % cols + 1)); });
    return fill([&](int64_t) { return std::log(uniform(1, 16)); });
  }
  if (ends_with(name, "ssm.dt.bias")) {
    // What softplus turns into a step between 0.001 and 0.1, spread evenly over magnitudes.
    return fill([&](int64_t) {
      const double step = std::exp(uniform(std::log(0.001), std::log(0.1)));
      return step + std::log(-std::expm1(-step));
    });
  }
  if (ends_with(name, "ssm.conv.weight") || ends_with(name, "ssm.dt.weight")) {
    const double bound = 1 / std::sqrt(static_cast<double>(cols));
    return fill([&](int64_t) { return uniform(-bound, bound); });
  }
  return false;
}

}  // namespace qkv
