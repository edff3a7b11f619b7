#!/usr/bin/env bash
# What the machine can do: every measurement is a positive number, for every instruction set asked for.
source "$(dirname "$0")/support.bash" "$@"
accepted "$qkv" info --system
for what in processor "instruction sets" threads memory "read bandwidth" "f32 multiply-adds" "bf16 matrix product" "int8 dot products"; do
  out_has "$what"
done
for isa in scalar $("$qkv" info --system --json | sed 's/.*"active_instruction_set":"\([a-z0-9]*\)".*/\1/'); do
  QKV_ISA=$isa accepted "$qkv" info --system --json
  out_has "\"active_instruction_set\":\"$isa\""
  for key in read_bandwidth f32_peak bf16_product_rate int8_peak memory_bytes; do
    grep -qE "\"$key\":[1-9]" out || complain "expected a positive $key with $isa: $(cat out)"
  done
done
finish
