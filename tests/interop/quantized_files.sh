#!/usr/bin/env bash
# llama.cpp loads a file of every type that quantize writes, and computes with it.
set -euo pipefail
source "$1/tests/interop/support.bash" "$1" "$2"

install_peer llama-cpp
vocabulary=$shared/data/models/stories260K-f32.gguf
[ -f "$vocabulary" ] || skip "no vocabulary at $vocabulary"
cat > shape.json << END
{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 512, "hidden_size": 256,
 "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
 "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "tie_word_embeddings": false}
END
accepted "$qkv" init shape.json model.gguf --tokenizer "$vocabulary" --dtype f16 --seed 5
for _ in $(seq 120); do echo 'Once upon a time there was a little girl who liked to play in the garden.'; done > text.txt
accepted "$qkv" imatrix model.gguf --calibrate text.txt -o i.gguf --context 128 --max-chunks 4
for type in F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q2_K_S Q3_K_S Q3_K_M Q3_K_L Q4_K_S Q4_K_M Q5_K_S Q5_K_M Q6_K IQ1_S IQ1_M \
  IQ2_XXS IQ2_XS IQ2_S IQ2_M IQ3_XXS IQ3_XS IQ3_S IQ3_M IQ4_NL IQ4_XS TQ1_0 TQ2_0 MXFP4_MOE; do
  accepted "$qkv" quantize model.gguf q.gguf --type $type --imatrix i.gguf
  accepted "$peers/llama-cpp/llama-peer" generate q.gguf --ids 1,100,200,300 --tokens 4
done
accepted "$qkv" quantize model.gguf q.gguf --type Q8_0 --tensor-type 'ffn_=mxfp4'
accepted "$peers/llama-cpp/llama-peer" generate q.gguf --ids 1,100,200,300 --tokens 4
finish
