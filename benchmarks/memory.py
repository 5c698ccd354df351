"""The peak memory of one training step."""

from __future__ import annotations

import itertools
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.nets import CONVNET, MAXOUT_240, MAXOUT_1600, TINY
from benchmarks.report import Bar, Section, Table
from benchmarks.steps import OURS, Step, clean, hand, naive, ours, sgd
from benchmarks.timing import Run, Spread, figure

os.environ.setdefault("KINETO_LOG_LEVEL", "99")

MIB = 2**20
STEPS: dict[str, Step] = {"clean, by hand": clean, "mixed, by hand": hand, OURS: ours, "naive, by hand": naive}


def peak_bytes(action: Callable[[], object], device: torch.device) -> int:
    """Return the most bytes that torch's allocator had out during an action, over what it had out before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        action()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        action()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace.json")
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    changes = sorted((event["args"] for event in events if event["name"] == "[memory]"), key=lambda a: a["Ev Idx"])
    return max(itertools.accumulate((int(args["Bytes"]) for args in changes), initial=0))


def peak_of_step(step: Step, net: nn.Module, run: Run, x: torch.Tensor, y: torch.Tensor) -> int:
    """Return the peak of a step that starts without gradients, with the optimizer's momentum at hand."""
    optimizer = sgd(net)
    for _ in range(2):
        step(net, optimizer, x, y)
    optimizer.zero_grad()
    return peak_bytes(lambda: step(net, optimizer, x, y), run.device)


def measure(run: Run) -> Section:
    """Count the memory of a step of every network."""
    nets = [TINY] if run.quick else [MAXOUT_240, MAXOUT_1600, CONVNET]
    table = Table(["MiB at the peak of a step", *(f"{net.name}, batch {net.shape[0]}" for net in nets)])
    section = Section("Memory", [table], [NOTE])
    columns = []
    for net in nets:
        x, y = net.batch(run.device)
        peaks = {name: peak_of_step(step, net.made(run.device), run, x, y) for name, step in STEPS.items()}
        gradients = sum(p.numel() * p.element_size() for p in net.made(run.device).parameters())
        floor = peaks["clean, by hand"] + gradients
        if net.bar is not None:
            section.bars.append(Bar(f"memory of {net.name}: {OURS} / (clean + gradients)", peaks[OURS] / floor, 1.1))
        columns.append({**peaks, "one copy of the gradients": gradients, "clean + one copy": floor})
        section.raw |= {f"{net.name}: {name}, bytes": Spread.of([count]) for name, count in columns[-1].items()}
    table.rows += [[name, *(figure(column[name] / MIB) for column in columns)] for name in columns[0]]
    return section


NOTE = """\
What torch's allocator hands out from the start of a step to its end, less what comes back, at its highest: \
activations, gradients, perturbed inputs and everything in passing. The step starts without gradients, so one copy of \
them is in every figure; weights, momentum and the batch, which live on between steps, are not. The clean gradient is \
kept while the second pass runs, hence the copy that is allowed for."""
