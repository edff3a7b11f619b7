# Shared by the tests against other software: `source support.bash SOURCE BUILD`. Gives $qkv, a scratch directory that is the
# current one, $shared (optional data beside the checkout), the checks of tests/cli/support.bash, and the helpers below.
source "$1/tests/cli/support.bash" "$1" "$2"
source_directory=$1
shared=$1/../shared

skip() {
  echo "skipped: $*"
  exit 77
}

# install_peer NAME: sets $peers; skips the test where it cannot be had.
install_peer() {
  local code=0
  peers=$("$source_directory/scripts/install-peers" "$1" 2> peer.err) || code=$?
  [ $code -eq 77 ] && skip "$(tail -n 1 peer.err)"
  [ $code -eq 0 ] || {
    cat peer.err
    exit 1
  }
}

need_python() { command -v python3 > /dev/null || skip "python3 is not installed"; }
need_node() {
  local version
  version=$(node --version 2> /dev/null | sed 's/^v\([0-9]*\).*/\1/')
  [ "${version:-0}" -ge 20 ] || skip "node 20 or later is not installed"
}

# raw_to_safetensors RAW ROWS COLUMNS NAME OUT: raw f32 (rows, columns) as a safetensors file.
raw_to_safetensors() {
  local bytes=$(($2 * $3 * 4)) header
  header="{\"$4\":{\"dtype\":\"F32\",\"shape\":[1,$2,$3],\"data_offsets\":[0,$bytes]}}"
  {
    little_endian ${#header}
    printf %s "$header"
    cat "$1"
  } > "$5"
}
