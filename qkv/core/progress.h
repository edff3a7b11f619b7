// One line on the terminal for work longer than a second: done, rate, time left. Silent when standard error is no
// terminal, so logs stay readable.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace qkv {

class Progress {
 public:
  // `total` 0: unknown. `unit` is what is counted, for example "MB" or "tokens".
  Progress(std::string label, uint64_t total, std::string unit);
  ~Progress();  // clears the line
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  // Redraws at most ten times a second. Call from one thread.
  void update(uint64_t done);

 private:
  using Clock = std::chrono::steady_clock;
  std::string label_;
  uint64_t total_;
  std::string unit_;
  Clock::time_point start_;
  Clock::time_point last_;
  bool terminal_;
  bool drawn_ = false;
};

// "1.5 GiB", "312 KiB".
std::string format_bytes(uint64_t bytes);
// "1h02m", "3m07s", "12s".
std::string format_duration(double seconds);
bool stderr_is_terminal();

}  // namespace qkv
