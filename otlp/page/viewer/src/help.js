// How to read the page, and its keys.

import { KINDS } from './colors.js';
import { h, popover } from './dom.js';
import { cut } from './text.js';

const KEYS = [
  ['/', 'find'],
  ['1  2  3', 'flame graph, top functions, callers and callees'],
  ['arrows', 'walk the frames'],
  ['Enter', 'zoom into the frame'],
  ['Esc', 'zoom out, or end the search'],
  ['g', 'callers and callees of the frame'],
  ['c', 'copy its name'],
  ['i', 'root at the top or bottom'],
  ['t', 'light or dark'],
];

/** The button that opens it; `producer` made the profile. */
export function helpButton(producer) {
  const kind = ({ key, name, about }) =>
    h('li', {}, h(`span.swatch${key === 'marker' ? '.hatched' : ''}`, { css: { 'background-color': `var(--kind-${key})` } }), h('b', {}, name), ` ${about}`);
  const panel = h(
    'div.panel.help',
    { role: 'dialog', 'aria-label': 'Help' },
    h('h2', {}, 'Reading it'),
    h(
      'p',
      {},
      'A box is a function; the boxes that grow from it, away from the root, are what it calls. Its width is its weight: how many samples found it there. Left to right is not time.',
    ),
    h('ul.legend', {}, KINDS.map(kind), h('li', {}, h('span.swatch.dashed'), h('b', {}, 'Guessed'), ' found by the frame pointer alone: likely, not certain')),
    h('h2', {}, 'Keys'),
    h('table.keys', {}, KEYS.map(([key, what]) => h('tr', {}, h('td', {}, h('kbd', {}, key)), h('td', {}, what)))),
    producer ? h('p.hint', {}, `Recorded by ${cut(producer, 80)}.`) : null,
  );
  return popover(h('button.square', { type: 'button', title: 'Help', 'aria-label': 'Help' }, '?'), panel);
}
