#include "qkv/core/interrupt.h"

#include <unistd.h>

#include <csignal>

#include "qkv/core/error.h"

namespace qkv {
namespace {

volatile std::sig_atomic_t flag = 0;

extern "C" void on_signal(int signal) {
  if (flag != 0 && signal == SIGINT) ::_exit(130);
  flag = 1;
}

}  // namespace

void catch_interrupts() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

bool interrupted() { return flag != 0; }
void stop_if_interrupted() { require(!interrupted(), "interrupted; nothing was written"); }
void clear_interrupt() { flag = 0; }

}  // namespace qkv
