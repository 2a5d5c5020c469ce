"""Every speed benchmark, one after the other, with its result in `benchmarks/results`.

python benchmarks/all.py --films FOLDER           (two cores: about a quarter of an hour)
python benchmarks/all.py --films FOLDER --gpu     (a GPU: Swin-B, ConvNeXt-B, ViT-B)

On a GPU the step of each backbone is measured in bf16, compiled, beside a script's loop in fp32;
the result of each holds its images a second, its share of the matmul rate that was measured in the
same process, and the ten kernels that take the most of its time.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from measuring import cpu_has_bf16

HERE = Path(__file__).parent
BACKBONES = {
    "swin-b": "swin_base_patch4_window7_224",
    "convnext-b": "convnext_base",
    "vit-b": "vit_base_patch16_224",
}


def main() -> None:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--films", type=Path, required=True, help="folder of PNG or JPEG films")
    made.add_argument("--gpu", action="store_true", help="what needs a GPU, alone")
    made.add_argument("--batch", type=int, default=128, help="of the steps on a GPU")
    made.add_argument("--no-compile", action="store_true", help="of the steps on a GPU")
    given = made.parse_args()
    commands = on_gpu(given) if given.gpu else on_cpu(given.films)
    failed = [" ".join(words) for words in commands if not ran(words)]
    if failed:
        raise SystemExit("failed: " + "; ".join(failed))


def on_cpu(films: Path) -> list[list[str]]:
    """Return the commands, with short settings."""
    half = ["step.py", "--precision", "bf16", "--threads", "1", "--name", "step-bf16"]
    return [
        ["startup.py", "--turns", "5"],
        ["pack.py", "--films", str(films), "--turns", "5"],
        ["pipeline.py", "--films", str(films), "--turns", "7"],
        ["step.py", "--threads", "1", "--turns", "20"],
        *([half] if cpu_has_bf16() else []),
        ["scale.py", "--rows", "100000", "1000000", "10000000"],
    ]


def on_gpu(given: argparse.Namespace) -> list[list[str]]:
    """Return the commands for a machine with a GPU."""
    common = ["--batch", str(given.batch), "--steps", "20", "--turns", "5", "--device", "cuda"]
    common += ["--set", "runtime.channels_last=false", "--profile"]
    if not given.no_compile:
        common.append("--compile")
    steps = [
        ["step.py", "--backbone", model, "--precision", "bf16", "--name", f"gpu-{name}", *common]
        for name, model in BACKBONES.items()
    ]
    channels = [each.replace("channels_last=false", "channels_last=true") for each in steps[1]]
    channels[channels.index("gpu-convnext-b")] = "gpu-convnext-b-channels-last"
    way = ["pipeline.py", "--films", str(given.films), "--turns", "5", "--name", "gpu-pipeline"]
    return [*steps, channels, way]


def ran(words: list[str]) -> bool:
    """Run one benchmark, which prints and writes its result."""
    script, *rest = words
    print(f"# {' '.join(words)}", flush=True)
    done = subprocess.run([sys.executable, str(HERE / script), *rest, "--out"], check=False)
    return done.returncode == 0


if __name__ == "__main__":
    main()
