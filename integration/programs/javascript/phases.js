// Works in ways that JavaScript has of calling: recursion, callbacks from builtins, closures, classes, generators, async functions, regular
// expressions, and what is mostly the engine's own code. Every Node.js from 18 on runs it.
'use strict';
const fs = require('fs');

const shares = {};
const schedule = fs.openSync(`/proc/self/task/${process.pid}/schedstat`, 'r');
const text = Buffer.alloc(64);
let kept = 0;

// CPU time of this thread, ns. `process.threadCpuUsage` is too new; that of the process has what the engine's other threads do.
function cpu() {
    // Brings what the kernel has counted up to date.
    process.cpuUsage();
    const length = fs.readSync(schedule, text, 0, text.length, 0);
    return Number(text.toString('latin1', 0, length).split(' ')[0]);
}

function spend(name, phase, ms) {
    const before = cpu();
    phase(before + ms * 1e6);
    shares[name] = (shares[name] || 0) + cpu() - before;
}

function work(rounds) {
    let total = 0;
    for (let number = 0; number < rounds; number++) {
        total = (total * 31 + number) % 65521;
    }
    return total;
}

function atTheBottom(until) {
    while (cpu() < until) {
        for (let i = 0; i < 20; i++) kept += work(1000);
    }
}

function down(depth, ms) {
    if (depth === 0) {
        spend('atTheBottom', atTheBottom, ms);
    } else {
        down(depth - 1, ms);
    }
}

function bottom() {
    return work(10000);
}

function descend(depth) {
    return depth === 0 ? bottom() : descend(depth - 1) + 1;
}

// The same so often that it is compiled, and perhaps inlined.
function recursing(until) {
    while (cpu() < until) {
        for (let i = 0; i < 3; i++) kept += descend(100);
    }
}

function byKey(a, b) {
    return (work(20) & 0) + a - b;
}

function sorting(until) {
    const numbers = Array.from({ length: 200 }, (_, i) => (i * 7919) % 211);
    while (cpu() < until) {
        for (let i = 0; i < 3; i++) kept += numbers.slice().sort(byKey)[i];
    }
}

function adder(more) {
    return function añadido(number) {
        return work(200) + number + more;
    };
}

function closing(until) {
    const adders = [1, 2, 3, 4, 5].map(adder);
    while (cpu() < until) {
        for (let i = 0; i < 200; i++) kept += adders[i % 5](i);
    }
}

class Shape {
    #side;
    constructor(side) {
        this.#side = side;
    }
    get side() {
        return this.#side;
    }
    area() {
        return work(50) + this.side;
    }
}
class Square extends Shape {
    area() {
        return super.area() * this.side;
    }
}
class Circle extends Shape {
    area() {
        return super.area() * 3;
    }
}
class Oval extends Shape {
    radius = 2;
    area() {
        return super.area() * this.radius;
    }
}

function classes(until) {
    const shapes = [new Shape(1), new Square(2), new Circle(3), new Oval(4)];
    while (cpu() < until) {
        for (let i = 0; i < 400; i++) kept += shapes[i % 4].area();
    }
}

function* numbers(count) {
    for (let number = 0; number < count; number++) {
        yield work(100) + number;
    }
}

function generating(until) {
    while (cpu() < until) {
        for (let i = 0; i < 10; i++) for (const number of numbers(20)) kept += number;
    }
}

function stringifying(until) {
    const tree = { list: Array.from({ length: 300 }, (_, i) => ({ id: i, name: `näme ${i}`, tags: ['a', 'b'] })) };
    while (cpu() < until) {
        kept += JSON.parse(JSON.stringify(tree)).list.length;
    }
}

function matching(until) {
    const words = 'the quick brown fox jumps over the lazy dog 0123456789 '.repeat(40);
    while (cpu() < until) {
        for (let i = 0; i < 5; i++) kept += words.replace(/([a-z]+) ([a-z]+)/g, '$2 $1').length;
    }
}

// Measures what it does between two waits: what the engine does to go on there is under no function.
async function awaiting(ms) {
    for (let left = ms * 1e6; left > 0;) {
        await null;
        const before = cpu();
        for (let i = 0; i < 100; i++) kept += work(1000);
        const spent = cpu() - before;
        left -= spent;
        shares.awaiting = (shares.awaiting || 0) + spent;
    }
}

async function main() {
    const argument = (name, otherwise) => {
        const at = process.argv.indexOf(name);
        return at < 0 ? otherwise : Number(process.argv[at + 1]);
    };
    const ms = argument('--ms', 1000);
    const depth = argument('--depth', 100);
    // In rounds, so that whatever part of the run is recorded has the same shares.
    const phases = [recursing, sorting, closing, classes, generating, stringifying, matching];
    for (let round = 0; round < Math.max(ms / 90, 1); round++) {
        down(depth, 10);
        for (const phase of phases) spend(phase.name, phase, 10);
        await awaiting(10);
    }
    const stacks = { awaiting: ['awaiting', '...'] };
    stacks.atTheBottom = ['atTheBottom', 'spend', `down*${depth + 1}`, 'main', '...'];
    for (const phase of phases) stacks[phase.name] = [phase.name, 'spend', 'main', '...'];
    const cpu_ns = Object.values(shares).reduce((one, other) => one + other, 0);
    console.log(JSON.stringify({ program: 'javascript/phases', pid: process.pid, cpu_ns, shares, stacks }));
}

main();
