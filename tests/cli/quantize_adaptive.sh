#!/usr/bin/env bash
# quantize to a size or a divergence, and what it says a result costs.
source "$(dirname "$0")/support.bash" "$@"
make_model tiny
cat > shape.json << END
{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 262, "hidden_size": 256,
 "intermediate_size": 256, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2,
 "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "tie_word_embeddings": false}
END
accepted "$qkv" init shape.json model --tokenizer tiny --seed 3
for i in $(seq 60); do echo "the cat $i sat on the mat and the dog ran"; done > text.txt
types=q2_k,q4_k,q6_k,q8_0,f16

# A size is kept to the byte, and said before it is written.
accepted "$qkv" quantize model best.gguf --target-size 300k --candidate-types $types --calibrate text.txt --sensitivity-tokens 256 \
  --report report.html
out_has "predicted KL"
out_has "no choice of this size has less"
out_has "tensors probed one at a time"
out_has "KL divergence"
out_has "same top token"
[ "$(stat -c %s best.gguf)" -le 300000 ] || complain "the file has $(stat -c %s best.gguf) bytes"
[ "$(stat -c %s best.gguf)" -ge 270000 ] || complain "the file has only $(stat -c %s best.gguf) bytes"
out_has "best.gguf: $(stat -c %s best.gguf) bytes"
grep -q 'Size against KL divergence' report.html || complain "no chart in the report"
grep -q 'blk.0.ffn_down.weight' report.html || complain "no tensor in the report"
accepted "$qkv" generate best.gguf --prompt "the cat" --max-tokens 3
accepted "$qkv" check best.gguf
accepted "$qkv" quantize model again.gguf --target-size 300KB --candidate-types $types --calibrate text.txt --sensitivity-tokens 256
cmp -s best.gguf again.gguf || complain "the same command gave another file"

# Bits per weight, a tensor whose type is given, no text, JSON, a dry run.
accepted "$qkv" quantize model bits.gguf --target-bpw 6.1 --tensor-type attn_v=q8_0 --candidate-types $types --json
out_has '"costs":"relative squared error"'
out_has '"name":"blk.0.attn_v.weight","shape":[128,256],"from":"f32","to":"q8_0"'
accepted "$qkv" quantize model --target-bpw 6.1 --candidate-types $types --dry-run
err_has "without --calibrate TEXT types are chosen by the error of the values"
out_has "would write: "

# The smallest file that meets a divergence; a type that does not meet one writes nothing.
accepted "$qkv" quantize model near.gguf --max-kld 0.001 --candidate-types $types --calibrate text.txt --sensitivity-tokens 256 --json
out_has '"measured":{"kl":'
[ -s near.gguf ] || complain "no file that meets the divergence"
"$qkv" quantize model far.gguf --type Q2_K --max-kld 1e-7 --eval text.txt > out 2> err
[ $? -eq 1 ] || complain "expected exit code 1 of a divergence above the limit"
err_has "is above --max-kld 1e-07: nothing is written"
[ "$(echo far.gguf*)" = "far.gguf*" ] || complain "a refused run left $(echo far.gguf*)"
accepted "$qkv" quantize model eight.gguf --type Q8_0 --max-kld 1 --eval text.txt --json
out_has '"same_top":{"value":'

# Importances from a file, sensitivities from a text.
accepted "$qkv" imatrix model --calibrate text.txt -o m.gguf
accepted "$qkv" quantize model both.gguf --target-bpw 3.4 --imatrix m.gguf --calibrate text.txt --sensitivity-tokens 128 --probe off \
  --candidate-types iq3_xxs,iq3_s,q4_k,q6_k --json
out_has '"importances":true'

# What is refused leaves nothing behind.
refused "expected a size of at least" "$qkv" quantize model out.gguf --target-size 1k
refused "expected a size such as 3.8G" "$qkv" quantize model out.gguf --target-size 3.8X
refused "expected one of --target-size and --target-bpw" "$qkv" quantize model out.gguf --target-size 1M --target-bpw 4
refused "neither --type nor --pure can be given" "$qkv" quantize model out.gguf --target-bpw 4 --type Q4_K_M
refused "expected a text to measure the divergence on" "$qkv" quantize model out.gguf --max-kld 0.01
refused "expected a name that ends with .gguf" "$qkv" quantize model out.qkv --target-bpw 6
refused "expected a tensor type such as q6_k or f16, found 'q7'" "$qkv" quantize model out.gguf --target-bpw 6 --candidate-types q4_k,q7
refused "none of them fits tensor" "$qkv" quantize tiny out.gguf --target-bpw 6 --candidate-types q4_k
echo 'short' > short.txt
refused "expected" "$qkv" quantize model out.gguf --target-bpw 6 --calibrate short.txt
[ "$(echo out.*)" = "out.*" ] || complain "a refused run left $(echo out.*)"
finish
