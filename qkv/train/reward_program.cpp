// A user's program as a reward: a line of JSON for every answer on its standard input, a number for each on
// its standard output. It runs once per call, in a process group of its own so that a time limit ends all it
// started.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/train/rewards.h"

extern char** environ;

namespace qkv {
namespace {

using Clock = std::chrono::steady_clock;

// A descriptor that closes itself.
struct Descriptor {
  int fd = -1;
  ~Descriptor() { close(); }
  void close() {
    if (fd >= 0) ::close(fd);
    fd = -1;
  }
};

// A running child; ends it, and what it started, when it goes out of scope before wait().
struct Child {
  pid_t pid = -1;
  ~Child() {
    if (pid <= 0) return;
    ::kill(-pid, SIGKILL);
    int status = 0;
    ::waitpid(pid, &status, 0);
  }
};

class ProgramReward : public Reward {
 public:
  ProgramReward(std::string command, double timeout) : command_(std::move(command)), timeout_(timeout) {}

  std::vector<double> score(std::span<const Judged> answers) const override {
    std::string input;
    for (const Judged& answer : answers) {
      Json line = *answer.prompt->record;
      line["prompt"] = answer.prompt->text;
      line["completion"] = answer.completion;
      input += dump_json(line) + "\n";
    }
    return parse(run(input), answers.size());
  }

 private:
  // What the program prints for `input`.
  std::string run(const std::string& input) const {
    // A socket pair and not a pipe: writing to a program that has stopped reading is then an error and no
    // signal.
    int in[2], out[2];
    require(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, in) == 0, "reward program '{}': {}",
            command_, std::strerror(errno));
    Descriptor in_ours{in[0]}, in_theirs{in[1]};
    require(::pipe2(out, O_CLOEXEC) == 0, "reward program '{}': {}", command_, std::strerror(errno));
    Descriptor out_ours{out[0]}, out_theirs{out[1]};
    ::fcntl(in_ours.fd, F_SETFL, O_NONBLOCK);
    ::fcntl(out_ours.fd, F_SETFL, O_NONBLOCK);

    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in_theirs.fd, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, out_theirs.fd, STDOUT_FILENO);
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
    posix_spawnattr_setpgroup(&attributes, 0);
    const char* arguments[] = {"/bin/sh", "-c", command_.c_str(), nullptr};
    Child child;
    const int code =
        ::posix_spawn(&child.pid, "/bin/sh", &actions, &attributes, const_cast<char**>(arguments), environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    if (code != 0) child.pid = -1;
    require(code == 0, "reward program '{}': cannot start: {}", command_, std::strerror(code));
    in_theirs.close();
    out_theirs.close();

    const auto deadline =
        Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(timeout_));
    std::string output;
    size_t written = 0;
    for (bool open = true; open;) {
      if (written == input.size()) in_ours.close();
      const auto left =
          std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
      require(left > 0, "reward program '{}': expected an answer within {} s, found none", command_,
              timeout_);
      pollfd polled[2] = {{out_ours.fd, POLLIN, 0}, {in_ours.fd, POLLOUT, 0}};
      const int ready =
          ::poll(polled, in_ours.fd >= 0 ? 2 : 1, static_cast<int>(std::min<int64_t>(left, 1000)));
      if (ready < 0 && errno != EINTR) fail("reward program '{}': {}", command_, std::strerror(errno));
      if (ready <= 0) continue;
      if (in_ours.fd >= 0 && polled[1].revents != 0) {
        const ssize_t n = ::send(in_ours.fd, input.data() + written, input.size() - written, MSG_NOSIGNAL);
        if (n >= 0) {
          written += static_cast<size_t>(n);
        } else if (errno != EAGAIN && errno != EINTR) {
          written = input.size();  // it reads no further; its output decides
        }
      }
      if (polled[0].revents != 0) {
        char buffer[1 << 16];
        const ssize_t n = ::read(out_ours.fd, buffer, sizeof buffer);
        if (n > 0) output.append(buffer, static_cast<size_t>(n));
        require(output.size() <= kMostOutput,
                "reward program '{}': expected numbers, found more than {} bytes", command_, kMostOutput);
        open = n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
      }
    }
    // Its output is complete; it has the rest of its time to end.
    int status = 0;
    for (pid_t done = 0; done == 0;) {
      done = ::waitpid(child.pid, &status, WNOHANG);
      if (done != 0) break;
      require(Clock::now() < deadline, "reward program '{}': expected to end within {} s, found it running",
              command_, timeout_);
      ::usleep(1000);
    }
    child.pid = -1;
    require(
        WIFEXITED(status) && WEXITSTATUS(status) == 0,
        "reward program '{}': expected exit status 0, found {}", command_,
        WIFEXITED(status) ? std::to_string(WEXITSTATUS(status)) : fmt::format("signal {}", WTERMSIG(status)));
    return output;
  }

  std::vector<double> parse(const std::string& output, size_t count) const {
    std::vector<double> numbers;
    for (size_t begin = 0, line = 1; begin < output.size(); ++line) {
      const size_t end = std::min(output.find('\n', begin), output.size());
      std::string_view text = std::string_view(output).substr(begin, end - begin);
      begin = end + 1;
      while (!text.empty() && (text.back() == '\r' || text.back() == ' ')) text.remove_suffix(1);
      while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
      double number = 0;
      const auto [stop, code] = std::from_chars(text.data(), text.data() + text.size(), number);
      require(code == std::errc() && stop == text.data() + text.size() && std::isfinite(number),
              "reward program '{}': line {}: expected a number, found '{}'", command_, line,
              text.substr(0, 40));
      numbers.push_back(number);
    }
    require(numbers.size() == count, "reward program '{}': expected {} numbers, one a line, found {}",
            command_, count, numbers.size());
    return numbers;
  }

  static constexpr size_t kMostOutput = size_t{1} << 26;
  std::string command_;
  double timeout_;
};

}  // namespace

std::unique_ptr<Reward> make_program_reward(const std::string& command, double timeout) {
  return std::make_unique<ProgramReward>(command, timeout);
}

}  // namespace qkv
