"""Accelerators and what joins them, as published; every number can be replaced by a measured one."""

from __future__ import annotations

from dataclasses import dataclass, replace

from recipes.errors import UserError, nearest


@dataclass(frozen=True)
class Hardware:
    """One accelerator and its links.

    peak_tflops: dense matmul peak at the planned precision, 10^12 FLOP/s. memory_gib: what a process can allocate.
    intra_gbit: one GPU's links to the others of its node, inter_gbit: all network cards of a node together; both in one
    direction, 10^9 bit/s. intra_latency_us, inter_latency_us: one step of a ring inside and between nodes.
    compute_ratio: share of the peak that forward and backward reach (model FLOPs utilisation). link_ratio: share of a
    link's rate that a collective reaches. overlap_ratio: share of the computing time behind which ZeRO 3's prefetched
    weights may hide. memory_gbyte_s: of the GPU's memory, 10^9 byte/s, reads and writes together; memory_ratio: share of it that
    the optimizer's step reaches. launch_us: host time of one operation in eager mode. imbalance_ratio: how much longer than
    the mean the slowest of the processes takes between two collectives. reserved_gib: memory for the CUDA context, NCCL's buffers and fragmentation.
    fused_attention: scores are not kept for the backward pass.

    on_cpu: the cores that compute also launch: one after the other, where a GPU's host launches ahead meanwhile. Collectives
    are gloo's.
    """

    name: str
    peak_tflops: float
    memory_gib: float
    intra_gbit: float
    inter_gbit: float
    intra_latency_us: float
    inter_latency_us: float
    compute_ratio: float
    link_ratio: float
    overlap_ratio: float
    memory_gbyte_s: float
    memory_ratio: float
    launch_us: float
    imbalance_ratio: float
    reserved_gib: float
    fused_attention: bool

    @property
    def on_cpu(self) -> bool:
        return self.name == "cpu"


@dataclass(frozen=True)
class _Gpu:
    """bf16_tflops: None where the GPU has no bf16. fp32_tflops: without TF32, which torch leaves off by default."""

    bf16_tflops: float | None
    fp32_tflops: float
    memory_gib: float
    intra_gbit: float
    memory_gbyte_s: float


# NVIDIA's data sheets: peaks without sparsity; NVLink is given there for both directions together, here for one.
# Memory is what the driver shows (GiB), which is less than the name says.
_GPUS = {
    "a100-40": _Gpu(312, 19.5, 39.4, 2400, 1555),  # A100 SXM4 data sheet: NVLink 600 GB/s
    "a100-80": _Gpu(312, 19.5, 79.2, 2400, 2039),
    "h100": _Gpu(989, 67, 79.1, 3600, 3350),  # H100 SXM5: 1979 TFLOPS with sparsity, NVLink 900 GB/s
    "h200": _Gpu(989, 67, 139.8, 3600, 4800),
    "b200": _Gpu(2250, 75, 167, 7200, 8000),  # HGX B200: NVLink 1.8 TB/s; 180 GB in the DGX
    "l4": _Gpu(121, 30.3, 22, 252, 300),  # no NVLink: PCIe 4.0 x16
    "a10g": _Gpu(70, 31.2, 22, 252, 600),
    "v100": _Gpu(None, 15.7, 31.7, 1200, 900),  # V100 SXM2 32 GB: NVLink 300 GB/s
}

KNOWN = [*_GPUS, "cpu"]

# As torch.cuda.get_device_name says it. PCIe variants have other peaks.
_DEVICE_NAMES = {
    "NVIDIA A100-SXM4-40GB": "a100-40",
    "NVIDIA A100-SXM4-80GB": "a100-80",
    "NVIDIA H100 80GB HBM3": "h100",
    "NVIDIA H200": "h200",
    "NVIDIA B200": "b200",
    "NVIDIA L4": "l4",
    "NVIDIA A10G": "a10g",
    "Tesla V100-SXM2-16GB": "v100",
    "Tesla V100-SXM2-32GB": "v100",
}

# Between the 0.13 (T5-base, without compiling) and 0.31 (compiled) of nanoT5 on an A100; docs/planning.md has the list.
COMPUTE_RATIO = 0.25
# nccl-tests on A100 reach 230 to 250 of NVLink's 300 GB/s.
LINK_RATIO = 0.8
# NCCL's own cost model (src/graph/tuning.cc, ring, simple protocol): 3.4 us over NVLink, 14 us over a network.
INTRA_LATENCY_US, INTER_LATENCY_US = 3.4, 14.0
# STREAM-like kernels reach 0.8 to 0.9 of these GPUs' memory; AdamW unfused is such a kernel after the other.
MEMORY_RATIO = 0.8
# Python, dispatcher, autograd and driver: 5 to 25 us an operation in eager mode, less in the backward pass.
LAUNCH_US = 10.0
# Of a CPU of unknown make: one core of an AMD EPYC, from what benchmarks/host_scaling.py measures on 0.4 of one.
CPU_LAUNCH_US, CPU_MEMORY_GBYTE_S = 30.0, 12.0
DEFAULT_INTER_GBIT = 400.0
RESERVED_GIB = 2.0


def precision_on(gpu: str, precision: str) -> str:
    """``auto`` as training would take it: bf16 where the GPU has it; a CPU of unknown make counts as one without."""
    check_known(gpu)
    has_bf16 = gpu != "cpu" and _GPUS[gpu].bf16_tflops is not None
    if precision == "auto":
        return "bf16" if has_bf16 else "fp32"
    if precision == "bf16" and gpu != "cpu" and not has_bf16:
        raise UserError(f"training.precision is bf16, which {gpu} does not have: set training.precision=fp32")
    return precision


def peak_flops_of(device_name: str, precision: str) -> float | None:
    """Dense matmul peak in FLOP/s of the device that torch calls so; None where none is published here."""
    gpu = _GPUS.get(_DEVICE_NAMES.get(device_name, ""))
    if gpu is None:
        return None
    # Tensor cores are as fast in fp16 as in bf16, on the GPUs that have both.
    tflops = gpu.fp32_tflops if precision == "fp32" else gpu.bf16_tflops
    return None if tflops is None else tflops * 1e12


def check_known(gpu: str) -> None:
    if gpu not in KNOWN:
        raise UserError(f"--gpu {gpu}: not known{nearest(gpu, KNOWN)}")


def hardware_for(gpu: str, precision: str, **given: float | None) -> Hardware:
    """The published numbers, with those ``given`` (fields of `Hardware`, None for as published) in their place.

    Raises:
        UserError: unknown GPU, or a CPU whose peak, memory or links are not given.
    """
    check_known(gpu)
    given = {name: value for name, value in given.items() if value is not None}
    if gpu == "cpu":
        flags = {"peak_tflops": "--peak-tflops or --peak-gflops", "memory_gib": "--memory-gib"}
        flags |= {"inter_gbit": "--bandwidth-gbit"}
        missing = [flag for field, flag in flags.items() if field not in given]
        if missing:
            raise UserError(f"--gpu cpu: nothing is published for it; give {', '.join(missing)}")
        given.setdefault("intra_gbit", given["inter_gbit"])
        published, peak = (
            _Gpu(None, given["peak_tflops"], given["memory_gib"], given["intra_gbit"], CPU_MEMORY_GBYTE_S),
            None,
        )
    else:
        published = _GPUS[gpu]
        peak = published.bf16_tflops if precision == "bf16" else published.fp32_tflops
    hardware = Hardware(
        name=gpu,
        peak_tflops=given.get("peak_tflops", peak),
        memory_gib=published.memory_gib,
        intra_gbit=published.intra_gbit,
        inter_gbit=DEFAULT_INTER_GBIT,
        intra_latency_us=INTRA_LATENCY_US,
        inter_latency_us=INTER_LATENCY_US,
        compute_ratio=COMPUTE_RATIO,
        link_ratio=LINK_RATIO,
        overlap_ratio=0.0,
        memory_gbyte_s=published.memory_gbyte_s,
        memory_ratio=1.0 if gpu == "cpu" else MEMORY_RATIO,
        launch_us=CPU_LAUNCH_US if gpu == "cpu" else LAUNCH_US,
        imbalance_ratio=0.0,
        reserved_gib=0.0 if gpu == "cpu" else RESERVED_GIB,
        fused_attention=gpu != "cpu",
    )
    return replace(hardware, **given)
