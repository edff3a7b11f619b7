#!/usr/bin/env bash
# Next-token logits of quantized files on 200 positions, ours and llama.cpp's (no flash attention, f32 keys and values): files that
# llama.cpp wrote, and files of every type that quantize writes, plain and compensated. The likeliest token is the same wherever
# llama.cpp's first two are more than 0.5 apart, and the mean KL divergence is below 1e-2; llama.cpp rounds activations to bytes,
# we do not, so equal they are not, and a position may differ by that alone.
source "$(dirname "$0")/support.bash" "$@"
need_python
source_model=$shared/data/models/stories3M-F16.gguf
[ -f "$source_model" ] || skip "no model at $source_model"
install_peer llama-cpp
peer=$peers/llama-cpp/llama-peer

cat > story.txt << 'END'
Once upon a time, there was a little girl named Lily. She loved to play outside in the park with her dog, Max. One day, Lily found
a big red ball under a tree. She was so happy and wanted to show it to her mom. "Look, Mom! I found a ball!" said Lily. Her mom
smiled and said, "That is a very nice ball. But we should find out who lost it." Lily was sad because she wanted to keep the ball.
Then a boy came to the park. He was crying. "What is wrong?" asked Lily. "I lost my red ball," said the boy. Lily looked at the ball
and gave it to him. The boy was very happy. "Thank you!" he said. "Do you want to play with me?" Lily and the boy played with the
ball all day. Max ran after them and barked. When the sun went down, they were tired but happy. Lily learned that it is good to
share and to help others. From that day on, Lily and the boy were best friends, and they played together in the park every day.
END
for _ in 1 2 3 4; do cat story.txt; done > calibration.txt
"$peer" tokenize "$source_model" --text story.txt | grep -o '[0-9]\+' > tokens
[ "$(wc -l < tokens)" -ge 200 ] || complain "expected at least 200 tokens, found $(wc -l < tokens)"
first=$(sed -n 1,100p tokens | paste -sd,) second=$(sed -n 101,200p tokens | paste -sd,)
echo "[[$first],[$second]]" > rows.json

cat > compare.py << 'END'
# theirs-1 theirs-2 ours.safetensors: the mean of KL(theirs || ours), the positions with a margin above 0.5, and how many of them
# differ in the first token.
import array, json, math, struct, sys
theirs = array.array("f", open(sys.argv[1], "rb").read() + open(sys.argv[2], "rb").read())
data = open(sys.argv[3], "rb").read()
(size,) = struct.unpack("<Q", data[:8])
begin, end = json.loads(data[8 : 8 + size])["logits"]["data_offsets"]
ours = array.array("f", data[8 + size + begin : 8 + size + end])
assert len(ours) == len(theirs), (len(ours), len(theirs))
width = len(ours) // 200
total = clear = wrong = 0
for row in range(200):
    a, b = theirs[row * width : (row + 1) * width], ours[row * width : (row + 1) * width]
    largest, other = max(a), max(b)
    p = [math.exp(v - largest) for v in a]
    log_a, log_b = math.log(sum(p)), math.log(sum(math.exp(v - other) for v in b))
    total += sum(e * (x - largest - log_a - y + other + log_b) for e, x, y in zip(p, a, b)) / sum(p)
    top = a.index(largest)
    if largest - max(a[:top].tolist() + a[top + 1 :].tolist()) > 0.5:
        clear += 1
        wrong += b.index(other) != top
print("%.3g %d %d" % (total / 200, clear, wrong))
END

checked=0
# measure FILE OURS: sets $kl $clear $wrong, of llama.cpp's logits on FILE and ours.
measure() {
  "$peer" logits "$1" --ids "$first" --out one > /dev/null 2> err && "$peer" logits "$1" --ids "$second" --out two > /dev/null 2> err ||
    return 1
  read -r kl clear wrong < <(python3 compare.py one two "$2")
}

compare() {  # compare NAME FILE
  "$qkv" eval logits "$2" --ids-file rows.json --out ours.safetensors > /dev/null 2> err || { complain "$1: $(cat err)"; return; }
  measure "$2" ours.safetensors || { complain "$1: llama.cpp: $(head -n 2 err)"; return; }
  printf '%-24s KL %-9s %s positions with a margin above 0.5, %s with another first token\n' "$1" "$kl" "$clear" "$wrong"
  awk -v kl="$kl" 'BEGIN { exit !(kl < 1e-2) }' || complain "$1: expected a mean KL divergence below 1e-2, found $kl"
  checked=$((checked + 1))
  [ "$wrong" = 0 ] && return
  # The rounding of activations, if llama.cpp says what we say once the same weights are f32, where it rounds none.
  local differing=$wrong
  accepted "$qkv" convert "$2" exact.gguf --dtype f32
  measure exact.gguf ours.safetensors || { complain "$1: llama.cpp: $(head -n 2 err)"; return; }
  [ "$wrong" = 0 ] || complain "$1: expected the same first token as llama.cpp on f32 weights, found $wrong of $clear that differ"
  echo "  $differing of them by llama.cpp's rounding of activations: on the same weights in f32 it has ours (KL $kl)"
}

for model in "$shared"/data/models/stories3M-*.gguf; do compare "llama.cpp's $(basename "$model" .gguf | sed 's/stories3M-//')" "$model"; done
accepted "$qkv" imatrix "$source_model" --calibrate calibration.txt -o importance.gguf --context 64
for type in F32 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q2_K_S Q3_K_S Q3_K_M Q3_K_L Q4_K_S Q4_K_M Q5_K_S Q5_K_M Q6_K IQ1_S IQ1_M \
  IQ2_XXS IQ2_XS IQ2_S IQ2_M IQ3_XXS IQ3_XS IQ3_S IQ3_M IQ4_NL IQ4_XS TQ1_0 TQ2_0; do
  accepted "$qkv" quantize "$source_model" ours.gguf --type $type --imatrix importance.gguf
  compare "$type" ours.gguf
done
accepted "$qkv" quantize "$source_model" ours.gguf --type Q8_0 --tensor-type 'ffn_=mxfp4'
compare 'Q8_0 with MXFP4' ours.gguf
for type in Q4_0 Q4_K_M Q6_K IQ4_XS; do
  accepted "$qkv" quantize "$source_model" ours.gguf --method gptq --type $type --calibrate calibration.txt --calibrate-context 64
  compare "$type, compensated" ours.gguf
done
echo "$checked files"
finish
