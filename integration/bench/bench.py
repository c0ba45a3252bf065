#!/usr/bin/env python3
"""What `profiler` costs, beside bpftrace and perf on the same machine in the same run. Prints a Markdown page.

Machines differ and are noisy, so ratios within one run are what counts. Everything is measured from outside, the same
way for every tool: BPF run time from the kernel's own statistics, CPU time and memory of the process from /proc, kernel
memory of BPF maps from bpftool.
"""

import argparse
import gzip
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CPUS = os.cpu_count()
HERE = Path(__file__).resolve().parent
BPFTRACE = ["bpftrace", "-e", "profile:hz:99 { @[kstack, ustack, pid] = count(); }"]


# --- what the kernel says -------------------------------------------------------------------------------------------


def bpftool(kind):
    output = subprocess.run(["bpftool", "-j", kind, "show"], capture_output=True, text=True).stdout
    return {entry["id"]: entry for entry in json.loads(output or "[]")}


def process_tree(pid):
    found, todo = [], [pid]
    while todo:
        pid = todo.pop()
        found.append(pid)
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                todo += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
        except OSError:
            pass
    return found


def cpu_seconds(pids):
    """CPU time of the processes' living threads, as the scheduler counts it (ns): clock ticks are too coarse for an agent."""
    total = 0
    for pid in pids:
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                total += int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0])
        except OSError:
            pass
    return total / 1e9


def memory_mib(pids):
    sums = {"Rss": 0, "Pss": 0, "Private_Clean": 0, "Private_Dirty": 0}
    for pid in pids:
        try:
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                key = line.split(":")[0]
                if key in sums:
                    sums[key] += int(line.split()[1])
        except OSError:
            pass
    return {key: value / 1024 for key, value in sums.items()}


def quiet():
    return dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


class Group:
    """Processes that end with the block."""

    def __init__(self, *commands):
        self.commands = commands

    def __enter__(self):
        self.children = [subprocess.Popen(command, **quiet()) for command in self.commands]
        return self

    def __exit__(self, *_):
        for child in self.children:
            try:
                os.killpg(child.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            child.wait()


class Receiver:
    """An OTLP/HTTP receiver that takes everything and counts what came over the wire."""

    def __enter__(self):
        receiver = self
        self.bytes = self.requests = 0

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.bytes += len(body)
                receiver.requests += 1
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def free_port():
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        return server.server_port


def measure(command, warm, window):
    """Runs `command`, and says what it cost for `window` seconds after `warm` seconds."""
    maps_before, programs_before = set(bpftool("map")), set(bpftool("prog"))
    with tempfile.TemporaryDirectory(prefix="profiler-bench-") as folder:
        log = open(Path(folder) / "log", "w+")
        agent = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
        try:
            time.sleep(warm)
            pids, start = process_tree(agent.pid), time.monotonic()
            cpu, programs = cpu_seconds(pids), bpftool("prog")
            time.sleep(window)
            elapsed = time.monotonic() - start
            pids = process_tree(agent.pid)
            cpu_after, programs_after = cpu_seconds(pids), bpftool("prog")
            maps = [entry for key, entry in bpftool("map").items() if key not in maps_before]
            if agent.poll() is not None:
                log.seek(0)
                sys.exit(f"{' '.join(map(str, command))} ended with {agent.returncode}:\n{log.read()}")
            memory = memory_mib(pids)
        finally:
            # Not asked to write its file: naming what a busy host ran takes time that is measured nowhere here.
            if agent.poll() is None:
                os.killpg(agent.pid, signal.SIGKILL)
                agent.wait()
    runs = nanos = 0
    for key, after in programs_after.items():
        if key not in programs_before:
            before = programs.get(key, {})
            count = after.get("run_cnt", 0) - before.get("run_cnt", 0)
            # Side-band and iterator programs run now and then; what runs with every tick is what a sample costs.
            if after.get("type") == "perf_event":
                runs += count
            nanos += after.get("run_time_ns", 0) - before.get("run_time_ns", 0)
    host = elapsed * CPUS
    return {
        "ns_a_sample": nanos / runs if runs else None,
        "samples_a_second": runs / elapsed,
        "bpf_percent": nanos / 1e7 / host,
        "cpu_percent": 100 * (cpu_after - cpu) / host,
        "rss": memory["Rss"],
        "pss": memory["Pss"],
        "private": memory["Private_Clean"] + memory["Private_Dirty"],
        "maps": sum(entry.get("bytes_memlock", 0) for entry in maps) / 1048576,
    }


# --- profiles -------------------------------------------------------------------------------------------------------


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7


def fields(data):
    """Number and value of each field of a protobuf message."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 0:
            value, at = varint(data, at)
        elif key & 7 == 2:
            length, at = varint(data, at)
            value, at = data[at : at + length], at + length
        elif key & 7 == 1:
            value, at = data[at : at + 8], at + 8
        else:
            value, at = data[at : at + 4], at + 4
        yield key >> 3, value


def pprof_samples(path):
    """Number of samples and the time of the first, ns since the epoch."""
    data = gzip.decompress(Path(path).read_bytes())
    strings = [value for number, value in fields(data) if number == 6]
    stamp = strings.index(b"timestamp") if b"timestamp" in strings else -1
    count, first = 0, None
    for number, sample in fields(data):
        if number != 2:
            continue
        values = [value for number, value in fields(sample) if number == 2]
        packed = values[0]
        count += varint(packed, 0)[0] if isinstance(packed, bytes) else packed
        for number, label in fields(sample):
            if number == 3:
                label = dict(fields(label))
                if label.get(1) == stamp:
                    first = min(first or label[3], label[3])
    return count, first


# --- the measurements -----------------------------------------------------------------------------------------------


def figure(value, digits=2):
    return "-" if value is None else f"{value:.{digits}f}"


def table(head, rows):
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")
    print(flush=True)


class Bench:
    def __init__(self, options):
        self.profiler = str(Path(options.profiler).resolve())
        self.window, self.warm, self.rounds = options.window, options.warm, options.rounds
        self.peer, self.only = options.peer, options.only
        self.before = options.before and str(Path(options.before).resolve())
        self.work = Path(tempfile.mkdtemp(prefix="profiler-bench-"))
        self.load = self.build("load", HERE / "load.c")
        self.load_with_fp = self.build("load_fp", HERE / "load.c", ["-fno-omit-frame-pointer"])
        self.storm = self.build("storm", HERE.parent / "programs/c/storm.c")

    def build(self, name, source, flags=("-fomit-frame-pointer",)):
        output = self.work / name
        subprocess.run(["gcc", "-O2", *flags, str(source), "-o", str(output)], check=True)
        return str(output)

    def record(self, hertz, *arguments, profiler=None):
        return [profiler or self.profiler, "record", "-a", "-q", "-F", str(hertz), *arguments]

    def streaming(self, hertz, window="10s", endpoint="http://127.0.0.1:9", listen="off", profiler=None):
        """The daemon; without an endpoint its requests wait for a receiver that never comes."""
        return [profiler or self.profiler, "agent", "--endpoint", endpoint, "--protocol", "http/protobuf", "--rate", str(hertz),
                "--window", window, "--listen", listen, "--set", "limits.cpu=off", "--set", "limits.memory=off",
                "--set", "jitter=0%"]

    def busy(self, frames, load=None):
        return Group(*[[load or self.load, "--frames", str(frames)]] * CPUS)

    def a_sample(self):
        """ns a sample in BPF against bpftrace, all CPUs busy; by turns, since of two at once the later one on each tick finds the
        caches warm and looks cheaper than it is."""
        print("### Kernel time of one sample, all CPUs busy, 99 Hz\n", flush=True)
        rows = []
        for frames, load, name, bar in [
            (7, self.load, "7 frames, no frame pointers", 1.3),
            (35, self.load, "35 frames, no frame pointers", 1.8),
            (35, self.load_with_fp, "35 frames, with frame pointers (bpftrace walks them all)", None),
        ]:
            ours, theirs = [], []
            with self.busy(frames, load):
                for _ in range(self.rounds):
                    ours.append(measure(self.record(99), self.warm, self.window))
                    theirs.append(measure(BPFTRACE, self.warm, self.window))
            mean = lambda all: sum(one["ns_a_sample"] for one in all) / len(all)
            ratio = mean(ours) / mean(theirs)
            agent = sum(one["bpf_percent"] + one["cpu_percent"] for one in ours) / len(ours)
            base = sum(one["bpf_percent"] for one in theirs) / len(theirs)
            rows.append(
                [
                    name,
                    f"{mean(ours):.0f}",
                    f"{mean(theirs):.0f}",
                    f"{ratio:.2f}",
                    figure(bar, 1),
                    f"{agent:.3f} %",
                    f"{base:.3f} %",
                    f"{agent / base:.2f}",
                ]
            )
        table(
            ["load", "profiler, ns", "bpftrace, ns", "ratio", "bar", "profiler BPF + agent, of the host", "bpftrace BPF alone", "ratio (bar 3)"],
            rows,
        )

    def agent(self):
        """CPU and memory of the whole agent."""
        print("### The whole agent\n", flush=True)
        perf = ["perf", "record", "-q", "-F", "99", "-a", "-e", "cpu-clock", "--call-graph", "dwarf", "-o", "perf.data"]
        idle = Group()
        storm = [self.storm, "--ms", "100000000", "--rate", "200", "--child-ms", "2", "--parallel", "8"]
        hundred = Group(*[[self.load, "--frames", "20", "--nap", "100000"]] * 100)
        rows = []
        receiver = Receiver().__enter__()
        daemon = ("profiler agent 99 Hz", self.streaming(99, endpoint=receiver.url))
        peer = []
        if self.peer:
            address = receiver.url.removeprefix("http://")
            peer = [("opentelemetry-ebpf-profiler 99 Hz", [self.peer, "-collection-agent", address, "-disable-tls", "-samples-per-second", "99"])]
        for name, load, tools in [
            ("idle", idle, [("profiler 99 Hz", self.record(99)), ("profiler 999 Hz", self.record(999)), daemon, *peer]),
            (
                "busy, 35 frames",
                self.busy(35),
                [("profiler 99 Hz", self.record(99)), ("profiler 999 Hz", self.record(999)), ("bpftrace 99 Hz", BPFTRACE), ("perf 99 Hz", perf), daemon, *peer],
            ),
            (
                "200 execs/s",
                Group(storm),
                [("profiler 99 Hz", self.record(99)), ("profiler 999 Hz", self.record(999)), ("perf 99 Hz", perf), daemon, *peer],
            ),
            ("100 processes", hundred, [("profiler 99 Hz", self.record(99)), ("perf 99 Hz", perf), daemon, *peer]),
        ]:
            for tool, command in tools:
                # What a daemon costs shows when it has seen its processes, and over whole windows of its own.
                steady = tool.endswith("agent 99 Hz") or "opentelemetry" in tool
                with load:
                    time.sleep(0.5)
                    cost = measure(command, max(self.warm, 15) if steady else self.warm, max(self.window, 20) if steady else self.window)
                rows.append(
                    [
                        name,
                        tool,
                        f"{cost['bpf_percent']:.3f}",
                        f"{cost['cpu_percent']:.3f}",
                        f"{cost['rss']:.1f}",
                        f"{cost['pss']:.1f}",
                        f"{cost['maps']:.1f}",
                        f"{cost['pss'] + cost['maps']:.1f}",
                    ]
                )
        table(["load", "tool", "BPF, % of the host", "agent, %", "RSS, MiB", "PSS, MiB", "maps, MiB", "PSS + maps"], rows)
        receiver.__exit__()
        print("The bar: PSS + maps under 48 MiB with 100 processes. perf keeps nothing in memory and writes all to disk.\n")

    def against(self):
        """This program beside an earlier one (`--before`), by turns over the same loads: what a change costs."""
        if not self.before:
            return
        print(f"### Before and after: daemon at 99 Hz, means of {self.rounds} turns; all processes of each together\n", flush=True)
        storm = [self.storm, "--ms", "100000000", "--rate", "200", "--child-ms", "2", "--parallel", "8"]
        rows = []
        for name, load in [
            ("idle", Group()),
            ("busy, 7 frames", self.busy(7)),
            ("busy, 35 frames", self.busy(35)),
            ("200 execs/s", Group(storm)),
            ("100 processes", Group(*[[self.load, "--frames", "20", "--nap", "100000"]] * 100)),
        ]:
            costs = {self.before: [], self.profiler: []}
            with load:
                time.sleep(0.5)
                for turn in range(self.rounds):
                    for profiler in list(costs) if turn % 2 == 0 else reversed(list(costs)):
                        with Receiver() as receiver:
                            command = self.streaming(99, endpoint=receiver.url, profiler=profiler)
                            costs[profiler].append(measure(command, max(self.warm, 15), max(self.window, 20)))
            for key, what in [
                ("ns_a_sample", "BPF, ns a sample"),
                ("cpu_percent", "CPU, % of the host"),
                ("pss", "PSS, MiB"),
                ("private", "private memory, MiB"),
                ("maps", "maps of BPF, MiB"),
            ]:
                values = {profiler: [one[key] for one in all if one[key] is not None] for profiler, all in costs.items()}
                if all(values.values()):
                    before, after = (sum(all) / len(all) for all in values.values())
                    turns = "; ".join(f"{one:.3g}/{two:.3g}" for one, two in zip(*values.values()))
                    rows.append([name, what, f"{before:.3f}", f"{after:.3f}", f"{after / before:.2f}", turns])
        table(["load", "what", "before", "after", "ratio", "turns (before/after)"], rows)
        rows = []
        for window in (5, 10):
            figures = [self.bytes_a_sample(window, profiler) for profiler in (self.before, self.profiler)]
            (_, raw, zipped), (samples, raw_after, zipped_after) = figures
            rows.append([f"{window} s", f"{samples:.0f}", f"{raw:.1f}", f"{raw_after:.1f}", f"{zipped:.2f}", f"{zipped_after:.2f}", f"{zipped_after / zipped:.2f}"])
        table(["window", "samples", "raw bytes a sample, before", "after", "gzip, before", "after", "ratio of gzip"], rows)

    def first_sample(self):
        print("### Start to first sample (bar 300 ms), and bytes a sample\n", flush=True)
        rows = []
        with self.busy(35):
            for attempt in range(3):
                output = self.work / f"first{attempt}.pb.gz"
                start = time.time_ns()
                subprocess.run(self.record(999, "-d", "2s", "-o", str(output)), check=True, capture_output=True)
                _, first = pprof_samples(output)
                rows.append(["start to first sample", "-" if first is None else f"{(first - start) / 1e6:.0f} ms"])
            for seconds in (5, 60):
                pprof, otlp = self.work / f"{seconds}.pb.gz", self.work / f"{seconds}.otlp"
                subprocess.run(self.record(99, "-d", f"{seconds}s", "-o", str(pprof), "-o", str(otlp)), check=True, capture_output=True)
                count, _ = pprof_samples(pprof)
                zipped = len(gzip.compress(otlp.read_bytes()))
                rows.append([f"pprof (gzip, names and lines), {seconds} s", f"{pprof.stat().st_size / count:.1f} bytes a sample ({count} samples)"])
                rows.append([f"OTLP (gzip), {seconds} s", f"{zipped / count:.1f} bytes a sample"])
            data = self.work / "perf.data"
            subprocess.run(
                ["perf", "record", "-q", "-F", "99", "-a", "-e", "cpu-clock", "--call-graph", "dwarf", "-o", str(data), "sleep", "5"],
                check=True,
                capture_output=True,
            )
            script = subprocess.run(["perf", "script", "-F", "pid", "-G", "-i", str(data)], capture_output=True, text=True).stdout
            rows.append(["perf.data (dwarf), 5 s", f"{data.stat().st_size / max(1, len(script.split())):.0f} bytes a sample"])
        table(["what", "figure"], rows)

    def wire(self):
        """Bytes a sample that the daemon sends, names and resources included."""
        print("### On the wire: `profiler agent`, OTLP/HTTP, gzip, 99 Hz, all CPUs busy with 35 frames\n", flush=True)
        rows = []
        for window in (5, 10, 60):
            samples, raw, zipped = self.bytes_a_sample(window, self.profiler)
            rows.append([f"{window} s", f"{samples:.0f}", f"{raw:.1f}", f"{zipped:.1f}"])
        table(["window", "samples", "bytes a sample, raw", "gzip"], rows)

    def bytes_a_sample(self, window, profiler):
        """Samples that a daemon delivered in its first windows, and bytes of each: before and after gzip."""
        port = free_port()
        with self.busy(35), Receiver() as receiver:
            with Group(self.streaming(99, f"{window}s", receiver.url, f"127.0.0.1:{port}", profiler)):
                time.sleep(window * 2 + 2 if window < 60 else window + 2)
                page = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
        sent = [line for line in page.splitlines() if line.startswith("profiler_export_samples_total") and "delivered" in line]
        raw = [line for line in page.splitlines() if line.startswith("profiler_export_bytes_total") and '"raw"' in line]
        samples, bytes_raw = (float(lines[0].split()[-1]) for lines in (sent, raw))
        return samples, bytes_raw / samples, receiver.bytes / samples

    def run(self):
        # Ended from outside, the loads end too.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
        statistics = Path("/proc/sys/kernel/bpf_stats_enabled")
        before = statistics.read_text()
        statistics.write_text("1")
        try:
            for part in (self.a_sample, self.agent, self.first_sample, self.wire, self.against):
                if self.only in (None, part.__name__):
                    part()
        finally:
            statistics.write_text(before)
            shutil.rmtree(self.work, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profiler", default=str(HERE.parent.parent / "target/release/profiler"))
    parser.add_argument("--window", type=float, default=10, help="seconds measured (default 10)")
    parser.add_argument("--warm", type=float, default=4, help="seconds before that (default 4)")
    parser.add_argument("--rounds", type=int, default=2, help="turns of profiler and bpftrace (default 2)")
    parser.add_argument("--peer", help="an opentelemetry-ebpf-profiler to run beside (no receiver takes what it sends)")
    parser.add_argument("--before", help="an earlier profiler to measure beside, by turns (--only against)")
    parser.add_argument("--only", choices=["a_sample", "agent", "first_sample", "wire", "against"], help="one part alone")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("this measures kernel programs: run it as root (scripts/bench does)")
    print(f"{platform.release()}, {CPUS} CPUs, {time.strftime('%Y-%m-%d')}; windows of {options.window:g} s.\n")
    Bench(options).run()


if __name__ == "__main__":
    main()
