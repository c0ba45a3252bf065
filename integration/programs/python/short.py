"""Works for 80 ms of CPU time: with the interpreter's start a script that lives some 100 ms. Every version from 3.8 on runs it."""
import time

begun = time.process_time_ns()


def work(rounds):
    total = 0
    for number in range(rounds):
        total += number * number
    return total


def main():
    while time.process_time_ns() < begun + 80_000_000:
        work(300)


main()

import json
import os

spent = time.process_time_ns() - begun
print(json.dumps({"program": "python/short", "pid": os.getpid(), "cpu_ns": spent, "shares": {"<module>": spent}}))
