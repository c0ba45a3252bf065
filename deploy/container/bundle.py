#!/usr/bin/env python3
"""Prints the OCI configuration that a container runtime makes of the chart's DaemonSet, as far as it concerns the profiler:
capabilities, no new privileges, a read-only root, the host's pids, sysfs read-only.

usage: bundle.py RENDERED.yaml COMMAND...
"""

import json
import re
import sys


def capabilities(manifest: str) -> list[str]:
    """The list under `add:`; read from the text, since Python has no YAML of its own."""
    added = re.search(r"^( *)add:\n((?:\1  - .*\n)+)", manifest, re.MULTILINE)
    if not added or "drop: [ALL]" not in manifest or "readOnlyRootFilesystem: true" not in manifest:
        sys.exit("bundle.py: the manifest does not drop all capabilities and add some")
    return [f"CAP_{name}" for name in re.findall(r"- (\w+)", added.group(2))]


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:
        names = capabilities(file.read())
    configuration = {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": sys.argv[2:],
            "env": ["PATH=/usr/bin"],
            "cwd": "/",
            "capabilities": {kind: names for kind in ("bounding", "effective", "permitted")},
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
        ],
        # No pid namespace: hostPID. No network namespace either; the command needs none.
        "linux": {
            "namespaces": [{"type": "mount"}, {"type": "ipc"}, {"type": "uts"}],
            # What runtimes hide and protect by default.
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    }
    json.dump(configuration, sys.stdout)


main()
