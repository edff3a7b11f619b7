#!/usr/bin/env bash
# quantize: what is written, what is said about it, and what is refused.
source "$(dirname "$0")/support.bash" "$@"
make_model tiny
cat > shape.json << END
{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 262, "hidden_size": 256,
 "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
 "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "tie_word_embeddings": false}
END
accepted "$qkv" init shape.json model --tokenizer tiny --seed 3

# The mix of Q4_K_M: the head and the more sensitive matrices get six bits.
accepted "$qkv" quantize model small.gguf --type q4_k_m
out_has "q4_k"
out_has "q6_k"
out_has "small.gguf: Q4_K_M"
accepted "$qkv" info small.gguf --tensors
out_has "q4_k"
accepted "$qkv" generate small.gguf --prompt "the cat" --max-tokens 3

# Other types for some tensors, the same for all, .qkv; a dry run writes nothing.
accepted "$qkv" quantize model some.gguf --type Q8_0 --tensor-type 'ffn_(up|gate)=q4_0' --tensor-type ffn_down=F16 \
  --output-tensor-type q5_1 --token-embedding-type q4_1 --json
for words in '"name":"blk.1.ffn_up.weight","shape":[512,256],"from":"f32","to":"q4_0"' '"name":"blk.0.ffn_down.weight","shape":[256,512],"from":"f32","to":"f16"' \
  '"name":"output.weight","shape":[262,256],"from":"f32","to":"q5_1"' '"name":"token_embd.weight","shape":[262,256],"from":"f32","to":"q4_1"' \
  '"name":"blk.0.attn_q.weight","shape":[256,256],"from":"f32","to":"q8_0"'; do
  out_has "$words"
done
accepted "$qkv" quantize model pure.qkv --type Q4_K_M --pure --json
grep -q q6_k out && complain "--pure left a q6_k tensor"
accepted "$qkv" generate pure.qkv --prompt "the cat" --max-tokens 3
accepted "$qkv" quantize model --type Q2_K --dry-run
out_has "bits per weight"
accepted "$qkv" quantize model none.gguf --type Q2_K --dry-run
[ -e none.gguf ] && complain "a dry run wrote a file"

# Rows that no block fits.
accepted "$qkv" quantize tiny tiny.gguf --type Q4_K_M
err_has "rows of 8 are not whole blocks of q4_k: f16 instead"

# What is refused leaves nothing behind.
refused "expected a file type such as Q4_K_M, found 'Q4_K_L'" "$qkv" quantize model out.gguf --type Q4_K_L
refused "expected a name that ends with .gguf or .qkv" "$qkv" quantize model out.safetensors
refused "expected REGEX=TYPE, found 'q4_0'" "$qkv" quantize model out.gguf --tensor-type q4_0
refused "--tensor-type" "$qkv" quantize model out.gguf --tensor-type '(=q4_0'
refused "expected a tensor type such as q6_k or f16, found 'i32'" "$qkv" quantize model out.gguf --output-tensor-type i32
refused "needs importances" "$qkv" quantize model out.gguf --type IQ2_XXS
refused "nowhere" "$qkv" quantize nowhere out.gguf
refused "expected an existing directory" "$qkv" quantize model no/where/out.gguf
echo 'not an importance matrix at all' > wrong.dat
refused "this is no importance matrix" "$qkv" quantize model out.gguf --imatrix wrong.dat
refused "expected an importance matrix" "$qkv" quantize model out.gguf --imatrix small.gguf

# Not a number: refused with its place, or kept by choice.
accepted "$qkv" convert model bad.safetensors
accepted "$qkv" info bad.safetensors --json
cp model/config.json .
offset=$(($(head -c 8 bad.safetensors | od -An -tu8) + 8))
printf '\xff\xff\xff\x7f' | dd of=bad.safetensors bs=1 seek=$offset conv=notrunc 2> /dev/null
refused "expected finite values up to 65504, found nan at row 0, column 0" "$qkv" quantize bad.safetensors out.gguf --type Q8_0
accepted "$qkv" quantize bad.safetensors kept.gguf --type Q8_0 --keep-nonfinite
err_has "NaN, infinite or beyond 65504: kept as f32"
[ "$(echo out.*)" = "out.*" ] || complain "a refused run left $(echo out.*)"

# Importances: collected, written in both forms, used, and refused where they are of another model.
for _ in $(seq 80); do echo 'the cat sat on the mat and the dog ran'; done > text.txt
accepted "$qkv" imatrix model --calibrate text.txt -o m.gguf
out_has "importances of 14 matrices"
accepted "$qkv" imatrix model --calibrate text.txt -o m.dat --max-chunks 2 --json
out_has '"chunks":2'
for file in m.gguf m.dat; do
  accepted "$qkv" quantize model weighted.gguf --type IQ2_XXS --imatrix $file --json
  out_has '"importances":true'
done
accepted "$qkv" generate weighted.gguf --prompt "the cat" --max-tokens 3
accepted "$qkv" quantize model direct.gguf --type IQ1_M --calibrate text.txt
refused "the importance matrix is of another model" "$qkv" quantize tiny out.gguf --imatrix m.gguf
head -c 500 m.dat > cut.dat
refused "found the end of the file" "$qkv" quantize model out.gguf --imatrix cut.dat
echo 'short' > short.txt
refused "expected at least 64 tokens to calibrate with" "$qkv" imatrix model --calibrate short.txt -o out.gguf
refused "expected a name that ends with .gguf or .dat" "$qkv" imatrix model --calibrate text.txt -o out.bin
[ "$(echo out.*)" = "out.*" ] || complain "a refused run left $(echo out.*)"
finish
