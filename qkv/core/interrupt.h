// Ctrl-C as a flag that long work polls, so that it can save and stop in order.
#pragma once

namespace qkv {

// Installs handlers for SIGINT and SIGTERM that set the flag; a second SIGINT ends the process at once.
void catch_interrupts();
bool interrupted();
// Where work is given up: Error("interrupted; nothing was written") if interrupted().
void stop_if_interrupted();
// For a loop that handled the interrupt and goes on (a chat that cancels one answer).
void clear_interrupt();

}  // namespace qkv
