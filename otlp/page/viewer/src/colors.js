// Kinds of frames: how they are painted. What kinds there are and what they are called, the data says (otlp/page/src/pack.rs).

import { GUESSED, INLINED } from './decode.js';
import { plain } from './text.js';

const INLINE = { key: 'inlined', name: 'Inlined', about: 'a function that the compiler put into its caller' };
const OTHER = { key: 'other', name: 'Other', about: 'a kind this viewer does not know' };

/** Kinds in the order of the legend: flags without guessed, what they are painted as, name, what it is. */
export let KINDS = [];

/** The kinds of the profile that is shown: [number, painted as, name, what it is]. */
export function setKinds(rows) {
  KINDS = rows.map(([number, key, name, about]) => ({ flags: number << 2, key: key in FILLS ? key : 'other', name: plain(name), about: plain(about) }));
  const natives = KINDS.filter(({ key }) => key === 'native');
  KINDS.splice(1, 0, ...natives.slice(0, 1).map(({ flags }) => ({ ...INLINE, flags: flags | INLINED })));
}

/** Fills as hue, saturation, lightness; [light, dark]. Four tones a kind keep neighbours apart. */
const FILLS = {
  native: [[214, 72, 79], [215, 40, 36]],
  inlined: [[262, 62, 87], [262, 26, 44]],
  kernel: [[20, 86, 77], [16, 52, 38]],
  go: [[174, 46, 71], [176, 48, 28]],
  jit: [[84, 50, 72], [88, 36, 31]],
  script: [[50, 74, 74], [48, 52, 33]],
  marker: [[0, 0, 78], [0, 0, 32]],
  other: [[320, 40, 82], [320, 24, 38]],
  group: [[222, 18, 86], [222, 12, 25]],
};
const TONES = [-2.5, 0, 2, 4];

/** The kind of a frame with `flags`. */
export function kindOf(flags) {
  const own = flags & ~GUESSED;
  const kind = KINDS.find(({ flags: known }) => known === (own & ~INLINED)) ?? OTHER;
  if (!(own & INLINED)) return kind;
  return KINDS.find(({ flags: known }) => known === own) ?? (kind.key === 'native' ? { ...INLINE, flags: own } : kind);
}

/** Every kind that a legend has a row for; a file with frames of an unknown kind brings their row itself. */
export function allKinds() {
  return KINDS.some(({ name }) => name === OTHER.name) ? KINDS : [...KINDS, OTHER];
}

/** Whether a frame with `flags` says why its stack is incomplete. */
export function isMarker(flags) {
  return flags >= 0 && kindOf(flags).key === 'marker';
}

/** How a frame's kind reads. */
export function kindText(flags) {
  return `${kindOf(flags).name}${flags & GUESSED ? ', guessed' : ''}`;
}

/** What kinds, inlined functions and groups are painted as: keys of the style sheet's variables. */
export const PAINTS = Object.keys(FILLS);

/** The fills of a theme: `fill(flags, seed)`, `group(seed)`, `swatch(key)`. */
export function palette(dark) {
  const tones = {};
  for (const [key, [light, night]] of Object.entries(FILLS)) {
    const [h, s, l] = dark ? night : light;
    tones[key] = TONES.map((tone) => `hsl(${h} ${s}% ${l + (dark ? tone * 1.1 : tone * 1.2)}%)`);
  }
  const byFlags = Array.from({ length: 256 }, (_, flags) => tones[kindOf(flags).key]);
  return {
    fill: (flags, seed) => byFlags[flags & 255][seed & 3],
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
