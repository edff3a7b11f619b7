"""PyTorch, imported and set up for its best CPU speed, and what is measured about the process.

Import this before anything else imports torch: the OpenMP policy is read once, when libgomp loads.
"""

import ctypes
import os
import time

# Two settings that cost nothing and help PyTorch on a CPU: OpenMP threads sleep instead of spinning between
# operations (spinning collapses as soon as anything else wants a core), and see `keep_freed_memory`.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch  # noqa: E402  (after the environment is set)

MINIMUM_GFLOPS_PER_THREAD = 10.0


class PeerError(Exception):
    """An error for the user: one sentence, no traceback."""


def keep_freed_memory():
    """Tell glibc to reuse freed blocks instead of returning them to the kernel.

    By default every tensor above 32 MiB is mapped and faulted in afresh at each step.
    """
    m_trim_threshold, m_mmap_max = -1, -4
    mallopt = ctypes.CDLL(None).mallopt
    if mallopt(m_mmap_max, 0) != 1 or mallopt(m_trim_threshold, -1) != 1:
        raise PeerError("[mallopt] memory settings: expected glibc to accept them, found a refusal")


def measure_matmul_gflops(size=1024, repeats=12):
    """The best of several f32 products of two (size, size) matrices, in GFLOP/s."""
    left, right = torch.randn(size, size), torch.randn(size, size)
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        left @ right
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best / 1e9


def prepare(threads, allocator="keep", allow_slow_blas=False):
    """Set the threads and the allocator, refuse a reference BLAS; returns the measured GFLOP/s of a product."""
    torch.set_num_threads(threads)
    if allocator == "keep":
        keep_freed_memory()
    gflops = measure_matmul_gflops()
    needed = MINIMUM_GFLOPS_PER_THREAD * threads
    if gflops < needed and not allow_slow_blas:
        raise PeerError(
            f"[blas] f32 product of 1024 x 1024 on {threads} threads: expected at least {needed:.0f} GFLOP/s, found "
            f"{gflops:.1f}; PyTorch is on the reference BLAS (or the machine is busy): install libopenblas0-openmp, "
            "or pass --allow-slow-blas to measure an unfair peer knowingly"
        )
    return gflops


def environment(gflops, allocator):
    """The facts that every printed result carries."""
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "blas_gflops": round(gflops, 1),
        "cpu_capability": _cpu_capability(),
        "allocator": allocator,
        "omp_wait_policy": os.environ["OMP_WAIT_POLICY"],
    }


def _cpu_capability():
    for line in torch.__config__.show().splitlines():
        if "CPU capability usage" in line:
            return line.split(":")[1].strip()
    return "unknown"


def peak_memory_bytes():
    """VmHWM: the largest resident set of this process so far."""
    return _status_bytes("VmHWM")


def restart_peak_memory():
    """Make the peak start again from the present resident set; returns the new peak in bytes."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return peak_memory_bytes()


def _status_bytes(key):
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024
    raise PeerError(f"[/proc/self/status] {key}: expected a line, found none")
