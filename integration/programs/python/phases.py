"""Works in ways that a Python program has of calling: recursion, callbacks from C, generators, closures, and C code of a thread that has
released the interpreter's lock. Every version from 3.8 on runs it."""
import argparse
import json
import os
import threading
import time
import zlib

shares = {}


def spend(name, function, ms):
    before = time.thread_time_ns()
    function(before + ms * 1000000)
    shares[name] = shares.get(name, 0) + time.thread_time_ns() - before


def work(rounds):
    total = 0
    for number in range(rounds):
        total += number * number
    return total


def at_the_bottom(until):
    while time.thread_time_ns() < until:
        work(300)


def down(depth, ms):
    if depth == 0:
        spend("at_the_bottom", at_the_bottom, ms)
    else:
        down(depth - 1, ms)


def by_key(number):
    return work(100) - number


def sorting(until):
    while time.thread_time_ns() < until:
        sorted(range(20), key=by_key)


def numbers(count):
    for number in range(count):
        yield work(100)


def generating(until):
    while time.thread_time_ns() < until:
        sum(numbers(20))


def adder(more):
    def añadido(number):
        return work(200) + number + more

    return añadido


def closing(until):
    add = adder(3)
    while time.thread_time_ns() < until:
        add(4)


def squeezing(until):
    data = bytes(range(256)) * 400
    while time.thread_time_ns() < until:
        zlib.compress(data)


def in_thread(ms):
    spend("squeezing", squeezing, ms)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ms", type=int, default=1000)
    parser.add_argument("--depth", type=int, default=200)
    options = parser.parse_args()
    # In rounds, so that whatever part of the run is recorded has the same shares.
    rounds = max(options.ms // 50, 1)
    for _ in range(rounds):
        down(options.depth, 10)
        for function in sorting, generating, closing:
            spend(function.__name__, function, 10)
        thread = threading.Thread(target=in_thread, args=(10,))
        thread.start()
        thread.join()
    callers = ["spend", "main", "<module>"]
    stacks = {name: [name] + callers for name in ("sorting", "generating", "closing")}
    bottom = ["at_the_bottom", "spend", "down*%d" % (options.depth + 1), "main", "<module>"]
    stacks.update(at_the_bottom=bottom, squeezing=["squeezing", "spend", "in_thread", "..."])
    print(json.dumps({
        "program": "python/phases", "pid": os.getpid(), "cpu_ns": sum(shares.values()), "shares": shares, "stacks": stacks,
    }))


main()
