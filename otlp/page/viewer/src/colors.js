// Kinds of frames: what they are called and how they are painted. Numbers are those of otlp/page/src/pack.rs.

import { GUESSED, INLINED } from './decode.js';

/** Kinds in the order of the legend: flags & 31, name, what it is. */
export const KINDS = [
  { flags: 0, key: 'native', name: 'Native', about: 'compiled code of an executable or library' },
  { flags: 0 | INLINED, key: 'inlined', name: 'Inlined', about: 'a function that the compiler put into its caller' },
  { flags: 1, key: 'kernel', name: 'Kernel', about: 'the kernel, its modules and BPF programs' },
  { flags: 2, key: 'go', name: 'Go', about: 'Go code' },
  { flags: 3, key: 'jit', name: 'JIT', about: 'code made at run time' },
  { flags: 4, key: 'marker', name: 'Incomplete', about: 'the stack could not be followed further; the frame says why' },
];

const OTHER = { key: 'other', name: 'Other', about: 'a kind this viewer does not know' };

/** Fills as hue, saturation, lightness; [light, dark]. Four tones a kind keep neighbours apart. */
const FILLS = {
  native: [[214, 72, 79], [215, 40, 36]],
  inlined: [[262, 62, 87], [262, 26, 44]],
  kernel: [[20, 86, 77], [16, 52, 38]],
  go: [[174, 46, 71], [176, 48, 28]],
  jit: [[84, 50, 72], [88, 36, 31]],
  marker: [[0, 0, 78], [0, 0, 32]],
  other: [[320, 40, 82], [320, 24, 38]],
  group: [[222, 18, 86], [222, 12, 25]],
};
const TONES = [-2.5, 0, 2, 4];

/** The kind of a frame with `flags`. */
export function kindOf(flags) {
  const key = flags & (INLINED | 15);
  return KINDS.find((kind) => kind.flags === key) ?? KINDS.find((kind) => kind.flags === (key & 15)) ?? OTHER;
}

/** How a frame's kind reads. */
export function kindText(flags) {
  return `${kindOf(flags).name}${flags & GUESSED ? ', guessed' : ''}`;
}

/** The fills of a theme: `fill(flags, seed)`, `group(seed)`, `swatch(key)`. */
export function palette(dark) {
  const tones = {};
  for (const [key, [light, night]] of Object.entries(FILLS)) {
    const [h, s, l] = dark ? night : light;
    tones[key] = TONES.map((tone) => `hsl(${h} ${s}% ${l + (dark ? tone * 1.1 : tone * 1.2)}%)`);
  }
  const byFlags = Array.from({ length: 32 }, (_, flags) => tones[kindOf(flags).key]);
  return {
    fill: (flags, seed) => byFlags[flags & 31][seed & 3],
    group: (seed) => tones.group[seed & 3],
    swatch: (key) => tones[key][1],
    match: dark ? '#e3b341' : '#ffd33d',
    matchText: '#1b1400',
    text: dark ? '#eceff4' : '#16202e',
    faint: dark ? 0.3 : 0.34,
    outline: dark ? '#ffffff' : '#0b1f44',
    hatch: dark ? 'rgba(255,255,255,.22)' : 'rgba(0,0,0,.20)',
    background: dark ? '#14171c' : '#ffffff',
  };
}
