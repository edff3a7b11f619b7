#!/usr/bin/python3
"""The PyTorch peer of qkv's training benchmarks: the same model, the same steps, in plain PyTorch.

  torch_llama.py bench      time training steps of a given shape; one JSON line
  torch_llama.py train      train from a checkpoint on a recorded batch trace; metrics.jsonl
  torch_llama.py attention  time and peak memory of attention, forward and backward; one JSON line per length
  torch_llama.py selftest   compare logits, gradients and AdamW steps with a reference folder
"""

import argparse
import contextlib
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch_runtime as runtime
from torch_runtime import PeerError, torch
from llama_model import Llama, LlamaShape, causal_bias, decayed_adamw, eager_attention, loss_sum
from peer_files import BatchTrace, load_llama, read_safetensors, write_trace


def precision(dtype):
    """The context of a forward pass: nothing for f32, autocast for bf16."""
    return torch.autocast("cpu", torch.bfloat16) if dtype == "bf16" else contextlib.nullcontext()


def train_step(model, optimizer, clip, dtype, tokens, targets, documents, micro_batch):
    """One optimizer step on (B, T) tokens; returns the mean loss over counted targets and the gradient's norm."""
    counted = max(1, int((targets != -100).sum()))
    total = 0.0
    for first in range(0, tokens.size(0), micro_batch):
        rows = slice(first, first + micro_batch)
        with precision(dtype):
            logits = model(tokens[rows], None if documents is None else documents[rows])
        loss = loss_sum(logits, targets[rows]) / counted
        del logits
        loss.backward()
        total += loss.item()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), clip if clip > 0 else math.inf)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total, norm.item()


def run_bench(arguments, facts):
    torch.manual_seed(arguments.seed)
    shape = LlamaShape(arguments.vocab, arguments.dim, arguments.layers, arguments.heads,
                       arguments.kv_heads or arguments.heads, arguments.hidden, arguments.tied)
    model = Llama(shape)
    optimizer = decayed_adamw(model, 3e-4, (0.9, 0.95), 1e-8, 0.1, arguments.adamw == "foreach")
    tokens = torch.randint(shape.vocab, (arguments.batch, arguments.seq + 1))
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    seconds, processor_seconds = [], []
    for _ in range(arguments.warmup + arguments.steps):
        start, processor_start = time.perf_counter(), time.process_time()
        loss, _ = train_step(model, optimizer, 1.0, arguments.dtype, inputs, targets, None, arguments.batch)
        seconds.append(time.perf_counter() - start)
        processor_seconds.append(time.process_time() - processor_start)
    timed = seconds[arguments.warmup :]
    print(json.dumps({
        "tokens_per_second_median": round(arguments.batch * arguments.seq / statistics.median(timed), 1),
        "step_seconds": [round(s, 4) for s in timed],
        "processor_seconds": [round(s, 4) for s in processor_seconds[arguments.warmup :]],
        "vm_hwm_bytes": runtime.peak_memory_bytes(),
        "parameters": sum(p.numel() for p in model.parameters()),
        "dtype": arguments.dtype,
        "adamw": arguments.adamw,
        "last_loss": round(loss, 4),
        **facts,
    }))


def learning_rates(settings, steps):
    """The learning rate of every step: linear warmup from lr / warmup_steps, then the schedule.

    `lr_per_step` in the settings, where present, is used as it stands.
    """
    if "lr_per_step" in settings:
        if len(settings["lr_per_step"]) < steps:
            raise PeerError(f"[lr_per_step] length: expected at least {steps}, found {len(settings['lr_per_step'])}")
        return settings["lr_per_step"][:steps]
    total, warmup = settings.get("steps", steps), settings.get("warmup_steps", 0)
    floor, schedule = settings.get("min_lr_ratio", 0.0), settings.get("schedule", "cosine")
    decay_steps = settings.get("decay_steps", max(1, total // 10))
    shapes = {
        "constant": lambda step: 1.0,
        "linear": lambda step: 1.0 - (step - warmup) / max(1, total - warmup),
        "cosine": lambda step: 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup)))),
        "wsd": lambda step: min(1.0, (total - step) / decay_steps),
    }
    if schedule not in shapes:
        raise PeerError(f"[schedule] name: expected one of {sorted(shapes)}, found {schedule}")

    def ratio(step):
        if step < warmup:
            return (step + 1) / warmup
        return floor + (1.0 - floor) * max(0.0, shapes[schedule](step))

    return [settings["lr"] * ratio(step) for step in range(steps)]


def evaluate(model, trace, dtype, micro_batch):
    """The mean loss over every counted target of the trace."""
    total, counted = 0.0, 0
    with torch.no_grad(), precision(dtype):
        for tokens, targets, documents in trace:
            for first in range(0, tokens.size(0), micro_batch):
                rows = slice(first, first + micro_batch)
                logits = model(tokens[rows], None if documents is None else documents[rows])
                total += loss_sum(logits, targets[rows]).item()
            counted += int((targets != -100).sum())
    return total / max(1, counted)


def run_train(arguments, facts):
    settings = json.loads(Path(arguments.settings).read_text())
    model = load_llama(arguments.model)
    trace = BatchTrace(arguments.trace)
    validation = BatchTrace(arguments.validation) if arguments.validation else None
    for part in filter(None, (trace, validation)):
        if part.vocab > model.shape.vocab:
            raise PeerError(f"[{part.path}] vocabulary: expected at most {model.shape.vocab}, found {part.vocab}")
    steps = min(trace.steps, settings.get("steps", trace.steps))
    rates = learning_rates(settings, steps)
    optimizer = decayed_adamw(model, settings["lr"], settings.get("betas", (0.9, 0.95)), settings.get("eps", 1e-8),
                              settings.get("weight_decay", 0.1), arguments.adamw == "foreach")
    tokens_per_step = trace.sequences * trace.length
    micro_batch = arguments.micro_batch or trace.sequences
    output = Path(arguments.output)
    output.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    with open(output / "metrics.jsonl", "w") as metrics:

        def record(**values):
            metrics.write(json.dumps(values) + "\n")
            metrics.flush()

        def record_evaluation(step):
            if validation:
                loss = evaluate(model, validation, arguments.dtype, micro_batch)
                record(kind="eval", step=step, tokens=step * tokens_per_step, loss=loss, perplexity=math.exp(loss))

        record_evaluation(0)
        for step, (batch, rate) in enumerate(zip(trace, rates), 1):
            for group in optimizer.param_groups:
                group["lr"] = rate
            step_start = time.perf_counter()
            loss, norm = train_step(model, optimizer, settings.get("clip", 1.0), arguments.dtype, *batch, micro_batch)
            now = time.perf_counter()
            record(kind="train", step=step, tokens=step * tokens_per_step, loss=loss, lr=rate, grad_norm=norm,
                   tokens_per_second=tokens_per_step / (now - step_start), elapsed_seconds=now - start)
            if step == steps or (arguments.eval_every and step % arguments.eval_every == 0):
                record_evaluation(step)
    print(json.dumps({"steps": steps, "seconds": round(time.perf_counter() - start, 2), "dtype": arguments.dtype,
                      "vm_hwm_bytes": runtime.peak_memory_bytes(), "metrics": str(output / "metrics.jsonl"), **facts}))


def run_attention(arguments, facts):
    """Each length in two fresh processes: the time with freed memory kept, the peak with glibc's own policy.

    Keeping freed memory is faster, but fragments a heap of such large blocks to more than twice what is in use.
    """
    if not arguments.in_process:
        for length in arguments.lengths:
            timed = attention_process(arguments, length, "keep", arguments.repeats)
            small = attention_process(arguments, length, "default", 1)
            timed["peak_growth_mib"] = small["peak_growth_mib"]
            timed["allocator"] = "keep for time, default for memory"
            print(json.dumps(timed), flush=True)
        return
    length = arguments.lengths[0]
    torch.manual_seed(0)
    q, k, v, gradient = (torch.randn(1, arguments.heads, length, arguments.head_dim) for _ in range(4))
    leaves = [x.requires_grad_() for x in (q, k, v)]
    bias = causal_bias(length)
    baseline = runtime.restart_peak_memory()
    milliseconds = []
    for _ in range(arguments.repeats + 1):
        start = time.perf_counter()
        eager_attention(q, k, v, bias).backward(gradient)
        milliseconds.append(1e3 * (time.perf_counter() - start))
        for x in leaves:
            x.grad = None
    print(json.dumps({"length": length, "heads": arguments.heads, "head_dim": arguments.head_dim,
                      "milliseconds_median": round(statistics.median(milliseconds[1:]), 1),
                      "milliseconds": [round(m, 1) for m in milliseconds[1:]],
                      "peak_growth_mib": round((runtime.peak_memory_bytes() - baseline) / 2**20, 1), **facts}))


def attention_process(arguments, length, allocator, repeats):
    """The result of `attention --in-process` for one length."""
    command = [sys.executable, __file__, "attention", "--in-process", "--lengths", length, "--heads", arguments.heads,
               "--head-dim", arguments.head_dim, "--repeats", repeats, "--threads", arguments.threads,
               "--allocator", allocator]
    if arguments.allow_slow_blas:
        command.append("--allow-slow-blas")
    finished = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, text=True)
    if finished.returncode:
        raise PeerError(f"[attention] length {length}: expected a result, found exit status {finished.returncode}")
    return json.loads(finished.stdout)


def run_selftest(arguments, facts):
    folder = Path(arguments.fixture)
    expected = read_safetensors(folder / "expected.safetensors")
    notes = json.loads((folder / "expected.json").read_text())["train"]
    tokens = expected["input_ids"]
    targets = torch.full_like(tokens, -100)
    targets[:, :-1] = tokens[:, 1:]
    failures = []

    def check(name, found, wanted, tolerance):
        difference = (torch.as_tensor(found) - torch.as_tensor(wanted)).abs().max().item()
        passed = difference <= tolerance  # False for NaN
        print(f"{'ok  ' if passed else 'FAIL'} {name}: largest difference {difference:.3g}, allowed {tolerance:.3g}")
        if not passed:
            failures.append(name)

    model = load_llama(folder)
    check("logits", model(tokens).detach(), expected["logits"], 1e-4)
    (loss_sum(model(tokens), targets) / int((targets != -100).sum())).backward()
    gradients = read_safetensors(folder / "expected_grads.safetensors")
    worst = max((p.grad - gradients[name]).abs().max().item() for name, p in model.named_parameters())
    check("gradients", worst, 0.0, 1e-5)

    for adamw in ("foreach", "loop"):
        model = load_llama(folder)
        # The reference decays every parameter, norms too.
        optimizer = torch.optim.AdamW(model.parameters(), 1e-3, (0.9, 0.95), 1e-8, 0.1, foreach=adamw == "foreach")
        steps = [train_step(model, optimizer, 0.0, "f32", tokens, targets, None, rows) for rows in (2, 1, 2)]
        check(f"losses of three AdamW steps ({adamw})", [s[0] for s in steps], notes["losses_f32"][:3], 2e-5)
        check(f"gradient norms ({adamw})", [s[1] for s in steps], notes["grad_norms_f32"], 1e-4)
        final = read_safetensors(folder / "expected_adamw3.safetensors")
        worst = max((p.detach() - final[name]).abs().max().item() for name, p in model.named_parameters())
        check(f"weights after three steps ({adamw})", worst, 0.0, 1e-4)

    model = load_llama(folder).eval()
    first, second = tokens[0, :20], tokens[1, :12]
    row = torch.cat((first, second)).unsqueeze(0)
    with tempfile.TemporaryDirectory() as temporary, torch.no_grad():
        path = Path(temporary) / "batches.trace"
        write_trace(path, model.shape.vocab, [(row, row, [0, 20, 32])])
        ((read_tokens, read_targets, documents),) = BatchTrace(path)
        check("trace round trip", torch.stack((read_tokens, read_targets)), torch.stack((row, row)), 0)
        alone = torch.cat((model(first.unsqueeze(0)), model(second.unsqueeze(0))), dim=1)
        check("packed documents equal separate ones", model(row, documents), alone, 1e-5)
    if failures:
        raise PeerError(f"[selftest] {len(failures)} checks failed: {', '.join(failures)}")


def parse_arguments():
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--threads", type=int, default=2)
    common.add_argument("--allocator", choices=("keep", "default"), default="keep", help="keep: reuse freed memory")
    common.add_argument("--allow-slow-blas", action="store_true")
    training = argparse.ArgumentParser(add_help=False)
    training.add_argument("--dtype", choices=("f32", "bf16"), default="f32", help="bf16: autocast, f32 weights")
    training.add_argument("--adamw", choices=("foreach", "loop"), default="foreach")

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    modes = parser.add_subparsers(dest="mode", required=True)
    bench = modes.add_parser("bench", parents=[common, training])
    for name in ("dim", "layers", "heads", "hidden", "vocab", "batch", "seq"):
        bench.add_argument(f"--{name}", type=int, required=True)
    bench.add_argument("--kv-heads", type=int, help="as many as heads when left out")
    bench.add_argument("--tied", action="store_true", help="the head is the embedding")
    bench.add_argument("--steps", type=int, default=5)
    bench.add_argument("--warmup", type=int, default=1)
    bench.add_argument("--seed", type=int, default=0)
    bench.set_defaults(run=run_bench)

    train = modes.add_parser("train", parents=[common, training])
    train.add_argument("--model", required=True, help="Hugging Face directory with the initial weights")
    train.add_argument("--trace", required=True, help="batch trace")
    train.add_argument("--settings", required=True, help="JSON of hyperparameters (README.md)")
    train.add_argument("--validation", help="batch trace of the validation set")
    train.add_argument("--eval-every", type=int, default=0, help="steps; 0: only before and after")
    train.add_argument("--micro-batch", type=int, default=0, help="sequences per forward pass; 0: all of a step")
    train.add_argument("--output", required=True, help="folder for metrics.jsonl")
    train.set_defaults(run=run_train)

    attention = modes.add_parser("attention", parents=[common])
    attention.add_argument("--lengths", type=int, nargs="+", default=[1024, 2048, 4096])
    attention.add_argument("--heads", type=int, default=12)
    attention.add_argument("--head-dim", type=int, default=64)
    attention.add_argument("--repeats", type=int, default=5)
    attention.add_argument("--in-process", action="store_true", help="the first length only, in this process")
    attention.set_defaults(run=run_attention)

    selftest = modes.add_parser("selftest", parents=[common])
    selftest.add_argument("fixture", help="Hugging Face directory with expected.safetensors beside the weights")
    selftest.set_defaults(run=run_selftest)
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    try:
        gflops = runtime.prepare(arguments.threads, arguments.allocator, arguments.allow_slow_blas)
        arguments.run(arguments, runtime.environment(gflops, arguments.allocator))
    except (PeerError, OSError, KeyError, json.JSONDecodeError) as error:
        sys.exit(f"torch_llama: {error}")


if __name__ == "__main__":
    main()
