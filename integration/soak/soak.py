#!/usr/bin/env python3
"""Runs `profiler agent` before a real Collector while the host churns, and fails unless it stays as it was.

Churn: execs, forks, threads, libraries that are loaded and unloaded, programs that are replaced on disk, a kill of the Collector each
minute; from four minutes on also two minutes without a Collector and, in them, 500 execs a second. Held against bars: memory of the last third against the one before, file descriptors, entries of the kernel's tables
afterwards against what lives, samples published against samples delivered, samples lost.

usage: soak.py --profiler FILE --collector FILE --programs FOLDER [--minutes 5]
"""

import argparse
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

# Each look at the agent, s.
INTERVAL = 2.0
# Quiet before the churn, for a baseline, and the longest wait for it afterwards, s.
QUIET = 12.0
BACK_TO_BASELINE = 120.0
# The Collector is away for this long once a minute, s; and from a minute after the start for this long, if there is the time.
SHORT_OUTAGE = 4.0
LONG_OUTAGE = 120.0
# Execs a second for this long, s, together with the long outage.
STORM_RATE = 500
STORM = 120.0


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Collector:
    """The receiver: it counts nothing and keeps nothing; the agent's own account is what is judged."""

    def __init__(self, binary: str, folder: str) -> None:
        self.port = free_port()
        self.binary = binary
        self.configuration = os.path.join(folder, "collector.yaml")
        self.log = open(os.path.join(folder, "collector.log"), "ab")
        with open(self.configuration, "w", encoding="utf-8") as file:
            file.write(
                f"receivers: {{otlp: {{protocols: {{grpc: {{endpoint: '127.0.0.1:{self.port}'}}}}}}}}\n"
                "exporters: {debug: {verbosity: basic}}\n"
                "service:\n  telemetry: {metrics: {level: none}, logs: {level: warn}}\n"
                "  pipelines: {profiles: {receivers: [otlp], exporters: [debug]}}\n"
            )
        self.start()

    def start(self) -> None:
        command = [self.binary, "--feature-gates=+service.profilesSupport", "--config", self.configuration]
        self.child = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        for _ in range(300):
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.1)
        sys.exit("soak: the Collector does not listen")

    def stop(self) -> None:
        self.child.kill()
        self.child.wait()


class Agent:
    def __init__(self, binary: str, folder: str, endpoint: str) -> None:
        configuration = os.path.join(folder, "agent.yaml")
        with open(configuration, "w", encoding="utf-8") as file:
            file.write(
                "window: 5s\n"
                f"kill_switch: {folder}/disabled\n"
                "telemetry: {listen: 127.0.0.1:0}\n"
                "exporters:\n- name: out\n  otlp:\n"
                f"    endpoint: {endpoint}\n    protocol: grpc\n"
                "    retry: {initial_interval: 500ms, max_interval: 2s, max_elapsed_time: 0s}\n"
                f"    spool: {{directory: {folder}/spool, max_size: 64MiB}}\n"
            )
        self.log = os.path.join(folder, "agent.log")
        with open(self.log, "wb") as log:
            command = [binary, "agent", "--config", configuration]
            self.child = subprocess.Popen(command, stdout=log, stderr=log)
        self.address = None
        for _ in range(300):
            with open(self.log, encoding="utf-8", errors="replace") as text:
                found = re.search(r"The agent has started.*?metrics=\D*([0-9.]+:[0-9]+)", text.read())
            if found:
                self.address = found.group(1)
                return
            if self.child.poll() is not None:
                break
            time.sleep(0.1)
        with open(self.log, encoding="utf-8", errors="replace") as text:
            sys.exit(f"soak: the agent does not start:\n{text.read()}")

    def metrics(self) -> dict[str, float]:
        with urllib.request.urlopen(f"http://{self.address}/metrics", timeout=20) as page:
            lines = page.read().decode().splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[:1] != "#")}


def total(metrics: dict[str, float], name: str, *labels: str) -> float:
    series = ((key, value) for key, value in metrics.items() if key.split("{")[0] == name)
    return sum(value for key, value in series if all(label in key for label in labels))


class Churn:
    """Programs that come and go on threads of this process until it is over."""

    def __init__(self, programs: str, folder: str) -> None:
        self.over = threading.Event()
        self.programs, self.folder = programs, folder
        program = lambda name: os.path.join(programs, name)
        loops = [
            # Execs, a hundred a second; children that live some ms.
            lambda: self.run(program("storm"), "--ms", "4000", "--rate", "100", "--child-ms", "2"),
            # A library opened and closed again and again.
            lambda: self.run(program("plugin_host"), "--ms", "300", "--plugin", program("libplugin.so")),
            lambda: self.run(program("threads"), "--ms", "500"),
            lambda: self.run(program("fork_tree"), "--ms", "500"),
            self.replaced_program,
        ]
        self.threads = [threading.Thread(target=self.repeat, args=(loop,)) for loop in loops]
        self.rounds = 0
        self.storms: list[float] = []
        for thread in self.threads:
            thread.start()

    def run(self, *command: str) -> None:
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False, timeout=120)

    def repeat(self, loop) -> None:
        while not self.over.is_set():
            loop()
            self.rounds += 1
            self.over.wait(0.05)

    def replaced_program(self) -> None:
        """A deployment: a new file under the old name, never seen before as its content differs."""
        new, file = os.path.join(self.folder, "shares.new"), os.path.join(self.folder, "shares")
        shutil.copy(os.path.join(self.programs, "shares"), new)
        with open(new, "ab") as program:
            program.write(os.urandom(16))
        os.rename(new, file)
        self.run(file, "--ms", "300", "--depth", "10")

    def storm(self) -> None:
        """Execs at the highest rate; notes how many a second there were."""
        self.threads.append(threading.Thread(target=self.storm_once))
        self.threads[-1].start()

    def storm_once(self) -> None:
        command = [os.path.join(self.programs, "storm"), "--ms", str(int(STORM * 1000)), "--rate", str(STORM_RATE),
                   "--child-ms", "1", "--parallel", "4"]
        truth = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=STORM * 2).stdout)
        self.storms.append(truth["children"] / (truth["wall_ns"] / 1e9))

    def end(self) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join()


class Judge:
    def __init__(self) -> None:
        self.looks: list[dict[str, float]] = []
        self.problems: list[str] = []

    def hold(self, what: str, value: float, bar: float, unit: str = "") -> None:
        mark = "ok" if value <= bar else "TOO MUCH"
        print(f"   {mark:<8} {what}: {value:.1f}{unit} (at most {bar:.1f}{unit})")
        if value > bar:
            self.problems.append(what)

    def flat(self, what: str, name: str, slack: float, scale: float, unit: str) -> None:
        """The last third is not above the middle one: caches fill in the first."""
        values = [total(look, name) / scale for look in self.looks]
        third = len(values) // 3
        middle, last = values[third : 2 * third], values[2 * third :]
        self.hold(f"{what}, last third of the time", statistics.median(last), statistics.median(middle) + slack, unit)


def living() -> tuple[int, int, int]:
    """Processes that live, their executable mappings, and the files in them."""
    processes, mappings, files = 0, 0, set()
    for entry in os.listdir("/proc"):
        processes += entry.isdigit()
        try:
            with open(f"/proc/{int(entry)}/maps", encoding="utf-8", errors="replace") as maps:
                executable = [line.split(maxsplit=5) for line in maps if "x" in line.split(maxsplit=2)[1]]
        except (ValueError, OSError):
            continue
        mappings += len(executable)
        files.update((fields[3], fields[4], fields[5] if fields[4] == "0" and len(fields) > 5 else "") for fields in executable)
    return processes, mappings, len(files)


def schedule(seconds: float) -> list[tuple[float, float]]:
    """When the Collector goes away, and for how long, s: the long outage first."""
    long = [(60.0, LONG_OUTAGE)] if seconds >= 60 + LONG_OUTAGE + 60 else []
    first = 60 + LONG_OUTAGE + 30 if long else 30
    return long + [(float(at), SHORT_OUTAGE) for at in range(int(first), int(seconds - 10), 60)]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--profiler", required=True)
    parser.add_argument("--collector", required=True)
    parser.add_argument("--programs", required=True)
    parser.add_argument("--minutes", type=float, default=5)
    arguments = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="profiler-soak-")
    judge = Judge()
    collector = Collector(arguments.collector, folder)
    agent = Agent(arguments.profiler, folder, f"http://127.0.0.1:{collector.port}")
    churn = None
    try:
        time.sleep(QUIET)
        baseline = agent.metrics()
        churn = Churn(arguments.programs, folder)
        started, outages = time.monotonic(), schedule(arguments.minutes * 60)
        away_until, storm_at = None, None
        if any(length == LONG_OUTAGE for _, length in outages):
            storm_at = outages[0][0]
        due = list(outages)
        while (elapsed := time.monotonic() - started) < arguments.minutes * 60:
            time.sleep(INTERVAL)
            judge.looks.append(agent.metrics())
            if away_until is None and due and elapsed > due[0][0]:
                away_until = elapsed + due.pop(0)[1]
                collector.stop()
            elif away_until is not None and elapsed > away_until:
                away_until = None
                collector.start()
            if storm_at is not None and elapsed > storm_at:
                storm_at = None
                churn.storm()
        if away_until is not None:
            collector.start()
        churn.end()
        busiest = {name: max(look.get(name, 0) for look in judge.looks) for name in judge.looks[-1]}
        # What has ended is forgotten with a delay; a few processes of the host come and go all the time. Who slept before may have
        # been sampled since: at most, all that lives is known.
        processes, mappings, executables = living()
        alive = {"processes": processes, "images": processes, "verdicts": processes, "mappings": mappings,
                 "executables": executables, "files": executables}
        bars = {name: alive[name.split('"')[1]] + 24 for name in baseline if name.startswith("profiler_table_entries")}
        tables = list(bars)
        until = time.monotonic() + BACK_TO_BASELINE
        while True:
            now = agent.metrics()
            settled = all(now.get(name, 0) <= bars[name] for name in tables)
            delivered = total(now, "profiler_export_samples_total", 'outcome="delivered"')
            waiting = total(now, "profiler_spool_records") + total(now, "profiler_export_queue_samples")
            if (settled and waiting == 0) or time.monotonic() > until:
                break
            time.sleep(INTERVAL)

        print(f"   {churn.rounds} rounds of churn in {arguments.minutes:g} minutes, {len(outages)} outages of the Collector, the longest "
              f"of {max((length for _, length in outages), default=0):.0f} s, "
              f"{total(now, 'profiler_samples_total'):.0f} samples")
        for rate in churn.storms:
            print(f"            {STORM:.0f} s of {rate:.0f} execs a second")
        # Caches have budgets of some MiB each, and take minutes to fill.
        slack = 4 if arguments.minutes >= 30 else 12
        judge.flat("resident memory with kernel maps", "profiler_memory_usage_bytes", slack, 1 << 20, " MiB")
        judge.hold("highest memory", total(busiest, "profiler_memory_usage_bytes") / (1 << 20),
                   total(now, "profiler_memory_limit_bytes") / (1 << 20), " MiB")
        # Files stay open for those who name their functions, until the cache of names gives them up: they follow the churn, not the
        # time. What is opened and never closed, once for each program that comes, is far more.
        descriptors = "profiler_file_descriptor_count"
        judge.hold("most file descriptors", total(busiest, descriptors), total(baseline, descriptors) + 512)
        for name in tables:
            label = name[len("profiler_table_entries"):]
            print(f"            {label} {baseline[name]:.0f} before, {busiest.get(name, 0):.0f} at most")
            judge.hold(f"entries {label} afterwards", now.get(name, 0), bars[name])
        lost = total(now, "profiler_samples_lost_total")
        judge.hold("samples lost", lost, total(now, "profiler_samples_total") * 0.001)
        judge.hold("samples dropped or rejected", total(now, "profiler_export_samples_total", 'outcome="dropped"')
                   + total(now, "profiler_export_samples_total", 'outcome="rejected"'), 0)
        judge.hold("samples still waiting", waiting, 0)
        # The window under way is all that may be missing.
        judge.hold("samples taken and not delivered", total(now, "profiler_samples_total") - lost - delivered,
                   5 * 99 * (os.cpu_count() or 1) * 2)
        if agent.child.poll() is not None:
            judge.problems.append("the agent has ended")
        agent.child.send_signal(signal.SIGTERM)
        judge.hold("exit status at SIGTERM", abs(agent.child.wait(timeout=60)), 0)
    finally:
        if churn:
            churn.end()
        for child in (agent.child, collector.child):
            if child.poll() is None:
                child.kill()
    if judge.problems:
        print(f"soak: {'; '.join(judge.problems)}\n   see {folder}/agent.log", file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    return 0


sys.exit(main())
