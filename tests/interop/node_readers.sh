#!/usr/bin/env bash
# GGUF files written by qkv, read by packages of npm: node-llama-cpp loads them and gives the reference's greedy tokens,
# @huggingface/gguf reads the same metadata and tensor list as qkv does.
source "$(dirname "$0")/support.bash" "$@"
need_node
need_python
[ -d "$shared/fixtures/models" ] || skip "no reference checkpoints at $shared/fixtures/models"
install_peer node
cp "$source_directory/tests/interop/node_readers.mjs" "$peers/node/"
for name in llama gpt2 qwen2 mixtral mamba; do
  "$qkv" convert "$shared/fixtures/models/$name" "$name.gguf" > log 2>&1 || complain "$name: convert: $(tail -n 1 log)"
  "$qkv" info "$name.gguf" --json > "$name.json" || complain "$name: info"
  python3 -c 'import json, sys; print(json.dumps(json.load(open(sys.argv[1]))["greedy"]))' \
    "$shared/fixtures/models/$name/expected.json" > "$name.greedy.json"
  node "$peers/node/node_readers.mjs" "$name.gguf" "$name.json" "$name.greedy.json" > out 2> err || complain "$name: $(tail -n 5 err out)"
  cat out
done
finish
