// Works in functions each of which V8 runs in one way, where it is told so by their names (`--sparkplug-filter=inSparkplug` ...), and says in
// which: needs `--allow-natives-syntax`.
'use strict';
const fs = require('fs');

const schedule = fs.openSync(`/proc/self/task/${process.pid}/schedstat`, 'r');
const text = Buffer.alloc(64);
let kept = 0;

// As in phases.js.
function cpu() {
    process.cpuUsage();
    const length = fs.readSync(schedule, text, 0, text.length, 0);
    return Number(text.toString('latin1', 0, length).split(' ')[0]);
}

function inInterpreter(rounds) {
    let total = 0;
    for (let number = 0; number < rounds; number++) total = (total * 31 + number) % 65521;
    return total;
}

function inSparkplug(rounds) {
    let total = 0;
    for (let number = 0; number < rounds; number++) total = (total * 31 + number) % 65521;
    return total;
}

function inMaglev(rounds) {
    let total = 0;
    for (let number = 0; number < rounds; number++) total = (total * 31 + number) % 65521;
    return total;
}

function inTurbofan(rounds) {
    let total = 0;
    for (let number = 0; number < rounds; number++) total = (total * 31 + number) % 65521;
    return total;
}

function spend(phase, ms) {
    const before = cpu();
    while (cpu() < before + ms * 1e6) {
        for (let i = 0; i < 10; i++) kept += phase(1000);
    }
    return cpu() - before;
}

const ms = Number(process.argv[process.argv.indexOf('--ms') + 1]);
const phases = [inInterpreter, inSparkplug, inMaglev, inTurbofan];
const status = () => phases.map((phase) => %GetOptimizationStatus(phase));
// When Maglev is chosen differs; older versions do not know how to be told, nor has every build Maglev.
try {
    new Function('f', '%PrepareFunctionForOptimization(f); f(9); %OptimizeMaglevOnNextCall(f); f(9)')(inMaglev);
} catch {}
// Compilers work beside it: until for a while nothing has become other than it was.
let steady = 0;
for (let before = ''; steady < 30; before = status().join()) {
    steady = before === status().join() ? steady + 1 : 0;
    for (const phase of phases) spend(phase, 3);
}
const [interpreted, baseline, maglev, turbofan] = status();
const shares = {};
for (let round = 0; round < Math.max(ms / 40, 1); round++) {
    for (const phase of phases) shares[phase.name] = (shares[phase.name] || 0) + spend(phase, 10);
}
const cpu_ns = Object.values(shares).reduce((one, other) => one + other, 0);
// Bits that all versions have, at whatever place: what is optimized shares one besides the first, as does what is interpreted.
const compiled = {
    inSparkplug: baseline >= 1 << 14,
    inMaglev: (maglev & turbofan) > 1,
    inTurbofan: (turbofan & interpreted) === 1,
};
console.log(JSON.stringify({ program: 'javascript/tiers', pid: process.pid, cpu_ns, shares, compiled }));
