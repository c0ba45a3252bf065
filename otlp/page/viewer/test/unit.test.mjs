// The parts of the viewer that need no browser: `npm test`.

import assert from 'node:assert/strict';
import test from 'node:test';
import { read, write, INITIAL } from '../src/state.js';
import { allKinds, isMarker, kindOf, kindText, setKinds } from '../src/colors.js';
import { base, count, duration, percent, plain, scale, short } from '../src/text.js';
import { build, callees, callers, functionWeights, kindWeights, matchedWeight } from '../src/tree.js';

/** A profile of `stacks`: [[root, ..., leaf], thread, weight]; functions are single letters. */
function profileOf(stacks) {
  const names = [...new Set(stacks.flatMap(([path]) => [...path]))].sort();
  const id = new Map(names.map((name, i) => [name, i]));
  const paths = [...new Set(stacks.flatMap(([path]) => [...path].map((_, i) => path.slice(0, i + 1))))].sort();
  const n = paths.length + 1;
  const nodes = { n, depth: [0], parent: [-1], frame: [-1], place: [-1], several: new Uint8Array(n), end: [] };
  paths.forEach((path, i) => {
    nodes.depth[i + 1] = path.length;
    nodes.parent[i + 1] = paths.indexOf(path.slice(0, -1)) + 1;
    nodes.frame[i + 1] = id.get(path.at(-1));
    nodes.place[i + 1] = 0;
  });
  for (let i = 0; i < n; i += 1) {
    let end = i + 1;
    while (end < n && nodes.depth[end] > nodes.depth[i]) end += 1;
    nodes.end[i] = end;
  }
  const sorted = stacks.map(([path, thread, weight]) => [paths.indexOf(path) + 1, thread, weight]).sort((a, b) => a[0] - b[0]);
  return {
    nodes,
    functions: { n: names.length, name: names },
    frames: { function: names.map((_, i) => i), flags: names.map((name) => (name === name.toUpperCase() ? 4 : 0)) },
    rows: { n: sorted.length, node: sorted.map((r) => r[0]), thread: sorted.map((r) => r[1]), values: [sorted.map((r) => r[2])] },
  };
}

/** A tree as text: name:total(children). */
function text(profile, tree, i = 0) {
  const name = tree.frame[i] >= 0 ? profile.functions.name[tree.frame[i]] : tree.frame[i] === -1 ? '*' : tree.labels[-2 - tree.frame[i]];
  const children = [];
  for (let c = i + 1; c < tree.end[i]; c = tree.end[c]) if (tree.total[c] > 0) children.push(text(profile, tree, c));
  return `${name}:${tree.total[i]}${children.length ? `(${children.join(' ')})` : ''}`;
}

const PROFILE = profileOf([
  ['ab', 1, 3],
  ['abc', 1, 2],
  ['abX', 2, 5],
  ['dbc', 2, 1],
  ['aba', 1, 4],
]);

test('the tree adds up, and leaves room for what is filtered', () => {
  const tree = build(PROFILE, { type: 0, keep: null, groups: null });
  assert.equal(text(PROFILE, tree), '*:15(a:14(b:14(X:5 a:4 c:2)) d:1(b:1(c:1)))');
  assert.equal(tree.height, 4);
  const some = build(PROFILE, { type: 0, keep: [0, 0, 1], groups: null });
  assert.equal(text(PROFILE, some), '*:6(a:5(b:5(X:5)) d:1(b:1(c:1)))');
});

test('groups split the tree, heaviest first, and keep every weight', () => {
  const groups = { labels: ['?', 'one', 'two'], levels: [[0, 1, 2]] };
  const tree = build(PROFILE, { type: 0, keep: null, groups });
  assert.equal(text(PROFILE, tree), '*:15(one:9(a:9(b:9(a:4 c:2))) two:6(a:5(b:5(X:5)) d:1(b:1(c:1))))');
  const two = { labels: ['?', 'all', 'one', 'two'], levels: [[0, 1, 1], [0, 2, 3]] };
  const nested = build(PROFILE, { type: 0, keep: null, groups: two });
  assert.equal(text(PROFILE, nested), '*:15(all:15(one:9(a:9(b:9(a:4 c:2))) two:6(a:5(b:5(X:5)) d:1(b:1(c:1)))))');
  assert.deepEqual([...nested.self].reduce((a, b) => a + b), 15);
});

test('a function counts once where it recurses', () => {
  const tree = build(PROFILE, { type: 0, keep: null, groups: null });
  const { self, total } = functionWeights(PROFILE, tree);
  const at = (list) => Object.fromEntries(PROFILE.functions.name.map((name, i) => [name, list[i]]));
  assert.deepEqual(at(total), { X: 5, a: 14, b: 15, c: 3, d: 1 });
  assert.deepEqual(at(self), { X: 5, a: 4, b: 3, c: 3, d: 0 });
  const kinds = kindWeights(PROFILE, tree);
  assert.deepEqual([kinds[0], kinds[4]], [10, 5]);
});

test('a search weighs each stack once', () => {
  const tree = build(PROFILE, { type: 0, keep: null, groups: null });
  const match = (names) => PROFILE.functions.name.map((name) => (names.includes(name) ? 1 : 0));
  assert.equal(matchedWeight(PROFILE, tree, match('a')), 14);
  assert.equal(matchedWeight(PROFILE, tree, match('cX')), 8);
  assert.equal(matchedWeight(PROFILE, tree, match('')), 0);
});

test('callers and callees of a function add up to its total', () => {
  const tree = build(PROFILE, { type: 0, keep: null, groups: null });
  const of = (name) => PROFILE.functions.name.indexOf(name);
  assert.equal(text(PROFILE, callees(PROFILE, tree, of('b'))), 'b:15(X:5 a:4 c:3)');
  assert.equal(text(PROFILE, callers(PROFILE, tree, of('b'))), 'b:15(a:14 d:1)');
  assert.equal(text(PROFILE, callers(PROFILE, tree, of('c'))), 'c:3(b:3(a:2 d:1))');
  assert.equal(text(PROFILE, callees(PROFILE, tree, of('a'))), 'a:14(b:14(X:5 a:4 c:2))');
  assert.equal(text(PROFILE, callers(PROFILE, tree, of('a'))), 'a:14');
});

test('callers and callees of random trees keep every weight', () => {
  let seed = 7;
  const random = (n) => {
    seed = (seed * 1103515245 + 12345) % 2147483648;
    return Math.floor((seed / 2147483648) * n);
  };
  const stacks = Array.from({ length: 400 }, () => [Array.from({ length: 1 + random(9) }, () => 'abcdefG'[random(7)]).join(''), random(3), 1 + random(9)]);
  const profile = profileOf(stacks);
  const tree = build(profile, { type: 0, keep: null, groups: null });
  const { total } = functionWeights(profile, tree);
  for (let fn = 0; fn < profile.functions.n; fn += 1) {
    for (const made of [callers(profile, tree, fn), callees(profile, tree, fn)]) {
      assert.equal(made.total[0], total[fn]);
      for (let i = 0; i < made.n; i += 1) {
        let below = 0;
        for (let c = i + 1; c < made.end[i]; c = made.end[c]) below += made.total[c];
        assert.equal(made.self[i], made.total[i] - below);
      }
    }
  }
});

test('characters that act are spelled out', () => {
  assert.equal(plain('evil\u202etxt'), 'evil\\u{202e}txt');
  assert.equal(plain('a\u0000b\u001b[31m\n\u2028\u0085'), 'a\\u{0}b\\u{1b}[31m\\u{a}\\u{2028}\\u{85}');
  assert.equal(plain('naïve <T>'), 'naïve <T>');
});

test('names are shortened without being changed into others', () => {
  assert.equal(short('ns::map<int, std::less<int> >::find(int const&) const'), 'ns::map::find');
  assert.equal(short('<T as core::fmt::Debug>::fmt'), '<T as core::fmt::Debug>::fmt');
  assert.equal(short('main.(*Server).Serve'), 'main.(*Server).Serve');
  assert.equal(short('operator<(a, b)'), 'operator<(a, b)');
  assert.equal(short('read'), 'read');
  assert.deepEqual(['/usr/lib/libc.so.6', '//anon', '[kernel.kallsyms]', ''].map(base), ['libc.so.6', '//anon', '[kernel.kallsyms]', '']);
});

test('weights read as people write them', () => {
  assert.equal(count(1234567), '1,234,567');
  assert.deepEqual([0, 1e-6, 0.0123, 0.1234, 1].map(percent), ['0%', '<0.01%', '1.23%', '12.3%', '100.0%']);
  assert.deepEqual([0, 5, 1500, 2.5e6, 12e9, 90e9].map(duration), ['0 s', '5 ns', '1.50 µs', '2.50 ms', '12 s', '1.50 min']);
  const samples = scale({ kind: 'samples', unit: 'count', period: ['cpu', 'nanoseconds', 10_000_000] });
  assert.equal(samples.main(1), '1 sample');
  assert.equal(samples.time(150), '1.50 s');
  assert.equal(scale({ kind: 'inuse_space', unit: 'bytes', period: ['', '', 0] }).main(1536), '1.50 KiB');
  assert.equal(scale({ kind: 'cpu', unit: 'nanoseconds', period: ['', '', 0] }).main(2e9), '2 s');
});

test('the address remembers the state, and nonsense in it does no harm', () => {
  const state = { ...INITIAL, view: 'callers', type: 2, q: 'a&b=#/x/', processes: [1, 4], zoom: 77, side: false, theme: 'dark', sort: 'name' };
  assert.deepEqual(read(write(state)), state);
  assert.equal(write(INITIAL), '');
  assert.deepEqual(read('#view=__proto__&type=-1&zoom=1e9&processes=a.b&sort=evil&theme=<b>&root=left'), INITIAL);
});

test('kinds are what the data says; inlined functions are told apart where they are compiled code', () => {
  setKinds([[0, 'native', 'Native', 'a'], [4, 'marker', 'Incomplete', 'b'], [13, 'script', 'Ruby', 'c'], [14, 'native', 'Rust', 'd'], [16, 'no such paint', 'Odd', 'e']]);
  assert.deepEqual([0, 1, 4 << 2, 13 << 2, (13 << 2) | 1, (14 << 2) | 1, 16 << 2, 60 << 2].map((flags) => kindOf(flags).name), [
    'Native', 'Inlined', 'Incomplete', 'Ruby', 'Ruby', 'Inlined', 'Odd', 'Other',
  ]);
  assert.equal(kindOf(16 << 2).key, 'other');
  assert.equal(kindText((13 << 2) | 2), 'Ruby, guessed');
  assert.deepEqual([isMarker(16), isMarker(18), isMarker(0), isMarker(-1)], [true, true, false, false]);
});

test('a legend has one row for what is of an unknown kind', () => {
  const rows = () => allKinds().filter(({ name }) => name === 'Other').length;
  setKinds([[0, 'native', 'Native', 'a'], [4, 'marker', 'Incomplete', 'b']]);
  assert.equal(rows(), 1);
  setKinds([[0, 'native', 'Native', 'a'], [4, 'marker', 'Incomplete', 'b'], [30, 'other', 'Other', 'c']]);
  assert.equal(rows(), 1);
});
