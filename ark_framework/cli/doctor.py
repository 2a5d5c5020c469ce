"""``ark doctor``: what this machine can do, and the command that mends what it cannot."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from ark_framework.cli import installed, libraries, machine
from ark_framework.cli.finding import Check, look
from ark_framework.cli.plain import echo
from ark_framework.errors import MachineError

CHECKS: tuple[Check, ...] = (
    *(libraries.python, libraries.arrays, libraries.torch, libraries.torchvision),
    *(machine.gpu, libraries.timm, libraries.dicom),
    *(machine.disks, machine.storage, machine.shared_memory, machine.files, machine.threads),
    *(installed.links, installed.plugins, installed.twice),
)


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def doctor(as_json: bool) -> int:
    """Check this machine and say what mends it; exit 5 if something is broken.

    Looks at libraries, GPUs, disks and their speed, limits, links and plugins; writes 16 MB beside
    the stores and takes them away again.  No plugin is imported.

    \b
    ark doctor
    """
    findings = []
    for found in (found for check in CHECKS for found in look(check)):
        findings.append(found)
        if as_json:
            continue
        echo(f"{found.state:<7} {found.name}: {found.message}")
        if found.mend:
            echo(f"        mend it with: {found.mend}")
    if as_json:
        echo(json.dumps([asdict(found) for found in findings], indent=1))
    broken = any(found.state == "broken" for found in findings)
    return MachineError.exit_code if broken else 0
