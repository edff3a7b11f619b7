// Ctrl-C as a flag that long work polls, so that it can save and stop in order.
#pragma once

namespace qkv {

// Installs handlers for SIGINT and SIGTERM that set the flag; a second SIGINT ends the process at once.
void catch_interrupts();
bool interrupted();
// For a loop that handled the interrupt and goes on (a chat that cancels one answer).
void clear_interrupt();

}  // namespace qkv
