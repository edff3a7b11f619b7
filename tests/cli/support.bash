# Shared by the command-line tests: `source support.bash "$@"` with the source and build directories. Gives $qkv, a scratch
# directory $work that is the current directory, and the checks below.
set -u
qkv=$2/qkv
if [ ! -x "$qkv" ]; then
  echo "skipped: there is no program $qkv"
  exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
failures=0

complain() {
  echo "FAILED: $*"
  failures=$((failures + 1))
}

# refused WORDS COMMAND...: exit code 2, nothing on standard output, and one line `error: ...` on standard error that has WORDS.
refused() {
  local words=$1
  shift
  "$@" > out 2> err < "${stdin:-/dev/null}"
  local code=$?
  [ $code -eq 2 ] || complain "expected exit code 2, found $code: $*"
  [ ! -s out ] || complain "expected nothing on standard output: $*: $(head -c 200 out)"
  [ "$(wc -l < err)" -eq 1 ] || complain "expected one line on standard error: $*: $(cat err)"
  grep -q '^error: ' err || complain "expected 'error: ...': $*: $(cat err)"
  grep -qF -- "$words" err || complain "expected '$words': $*: $(cat err)"
}

# accepted COMMAND...: exit code 0; the outputs are in `out` and `err`.
accepted() {
  "$@" > out 2> err < "${stdin:-/dev/null}"
  local code=$?
  [ $code -eq 0 ] || complain "expected exit code 0, found $code: $*: $(cat err)"
}

# out_has TEXT, err_has TEXT: about the last command.
out_has() { grep -qF -- "$1" out || complain "expected '$1' on standard output: $(head -c 500 out)"; }
err_has() { grep -qF -- "$1" err || complain "expected '$1' on standard error: $(head -c 500 err)"; }

# A 64-bit number, least significant byte first.
little_endian() {
  local value=$1 i
  for i in 1 2 3 4 5 6 7 8; do
    printf "\\x$(printf %02x $((value & 255)))"
    value=$((value >> 8))
  done
}

# make_model DIR: a Llama of zeros, for which all tokens are equally likely, with a vocabulary of bytes and few words.
make_model() {
  local vocabulary=262 offset=0 header='' name shape bytes
  for _ in $(seq 60); do echo 'the cat sat on the mat and the dog ran'; done > corpus.txt
  "$qkv" tokenizer train corpus.txt --out "$1" --vocab-size $vocabulary > log 2>&1 || complain "tokenizer train: $(cat log)"
  cat > "$1/config.json" << END
{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": $vocabulary, "hidden_size": 8,
 "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4,
 "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "tie_word_embeddings": true}
END
  while read -r name shape bytes; do
    header+=${header:+,}"\"$name\":{\"dtype\":\"F32\",\"shape\":[$shape],\"data_offsets\":[$offset,$((offset + bytes))]}"
    offset=$((offset + bytes))
  done << END
model.embed_tokens.weight $vocabulary,8 $((vocabulary * 32))
model.layers.0.input_layernorm.weight 8 32
model.layers.0.self_attn.q_proj.weight 8,8 256
model.layers.0.self_attn.k_proj.weight 4,8 128
model.layers.0.self_attn.v_proj.weight 4,8 128
model.layers.0.self_attn.o_proj.weight 8,8 256
model.layers.0.post_attention_layernorm.weight 8 32
model.layers.0.mlp.gate_proj.weight 16,8 512
model.layers.0.mlp.up_proj.weight 16,8 512
model.layers.0.mlp.down_proj.weight 8,16 512
model.norm.weight 8 32
END
  header="{$header}"
  {
    little_endian ${#header}
    printf %s "$header"
    head -c "$offset" /dev/zero
  } > "$1/model.safetensors"
}

finish() {
  [ "$failures" -eq 0 ] || {
    echo "$failures checks failed"
    exit 1
  }
  echo "all checks passed"
  exit 0
}
