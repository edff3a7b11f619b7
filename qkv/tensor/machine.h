// What this machine can do, measured: the denominators of every utilization figure.
#pragma once

namespace qkv {

struct MachinePeaks {
  double f32_flops = 0;        // fused multiply-adds from registers, all threads
  double bf16_flops = 0;       // a large bf16 product through gemm(), all threads
  double int8_ops = 0;         // int8 dot products from registers, all threads
  double read_bytes_per_second = 0;  // all threads, four streams each
};

// Each measurement takes about `seconds` and is the best of several bursts.
double measure_f32_flops(double seconds = 0.1);
double measure_bf16_flops(double seconds = 0.1);
double measure_int8_ops(double seconds = 0.1);
double measure_read_bandwidth(double seconds = 0.2);
MachinePeaks measure_machine();

}  // namespace qkv
