#include "qkv/core/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

namespace qkv {

bool stderr_is_terminal() { return ::isatty(STDERR_FILENO) == 1; }

std::string format_bytes(uint64_t bytes) {
  constexpr const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  int unit = 0;
  while (value >= 1024 && unit < 4) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.{}f} {}", value, value < 10 ? 2 : value < 100 ? 1 : 0, units[unit]);
}

std::string format_duration(double seconds) {
  const auto s = static_cast<int64_t>(seconds + 0.5);
  if (s >= 3600) return fmt::format("{}h{:02}m", s / 3600, s / 60 % 60);
  if (s >= 60) return fmt::format("{}m{:02}s", s / 60, s % 60);
  return fmt::format("{}s", s);
}

Progress::Progress(std::string label, uint64_t total, std::string unit)
    : label_(std::move(label)), total_(total), unit_(std::move(unit)), start_(Clock::now()), last_(start_), terminal_(stderr_is_terminal()) {}

Progress::~Progress() {
  if (drawn_) fmt::print(stderr, "\r\033[K");
}

void Progress::update(uint64_t done) {
  if (!terminal_) return;
  const auto now = Clock::now();
  if (now - last_ < std::chrono::milliseconds(100) && done != total_) return;
  last_ = now;
  const double elapsed = std::chrono::duration<double>(now - start_).count();
  if (elapsed < 0.5) return;
  const double rate = static_cast<double>(done) / elapsed;
  std::string line = fmt::format("\r\033[K{} {} {} ({:.3g} {}/s)", label_, done, unit_, rate, unit_);
  if (total_ > 0 && rate > 0) {
    line += fmt::format(" {:.0f}%, {} left", 100.0 * static_cast<double>(done) / static_cast<double>(total_),
                        format_duration(static_cast<double>(total_ - done) / rate));
  }
  fmt::print(stderr, "{}", line);
  std::fflush(stderr);
  drawn_ = true;
}

}  // namespace qkv
