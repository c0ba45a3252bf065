// What is known about one node: the tooltip at the pointer, and the line at the foot of the page.

import { isMarker, kindOf, kindText } from './colors.js';
import { address } from './decode.js';
import { fill, h, icon } from './dom.js';
import { base, cut, percent } from './text.js';

/** The name of a node: its function, its group, or the root's. */
export function nameOf(profile, tree, node) {
  const frame = tree.frame[node];
  if (frame >= 0) return profile.functions.name[profile.frames.function[frame]] || '(no name)';
  return frame === -1 ? (tree.rootName ?? 'all') : (tree.labels[-2 - frame] ?? '');
}

/** All that is known about `node`. */
export function describe(profile, tree, node, scale, whole) {
  const frame = tree.frame[node];
  const total = tree.total[node];
  const self = tree.self[node];
  const value = (v) => ({ main: scale.main(v), time: scale.time(v), share: percent(whole ? v / whole : 0) });
  const out = { name: nameOf(profile, tree, node), fn: -1, flags: -1, where: '', module: '', total: value(total), self: value(self) };
  const parent = tree.parent[node];
  if (parent >= 0 && tree.total[parent] > 0) out.ofParent = percent(total / tree.total[parent]);
  if (frame < 0) return out;
  const { functions, frames, places, nodes } = profile;
  const fn = frames.function[frame];
  out.fn = fn;
  out.flags = frames.flags[frame];
  out.kind = kindText(out.flags);
  out.module = functions.module[fn];
  const origin = tree.origin ? tree.origin[node] : node;
  const place = origin >= 0 ? nodes.place[origin] : -1;
  const line = place >= 0 && places.line[place] ? places.line[place] : 0;
  if (place >= 0 && places.tier[place]) {
    out.kind += `, ${profile.meta.tiers[places.tier[place] - 1] ?? '?'}`;
    if (nodes.tiers[origin] || tree.merged) out.kind += ' and perhaps otherwise';
  }
  const more = origin >= 0 && (nodes.several[origin] || tree.merged);
  if (functions.file[fn]) {
    out.where = functions.file[fn] + (line ? `:${line}` : functions.line[fn] ? `:${functions.line[fn]}` : '');
    if (line && more) out.where += ' and other lines';
  }
  if (place >= 0) {
    const at = address(places, place);
    if (at) out.address = at + (more ? ' and others' : '');
  }
  return out;
}

/** The box that follows the pointer. */
export class Tooltip {
  constructor() {
    this.element = h('div.tooltip', { role: 'tooltip', hidden: true });
    document.body.append(this.element);
  }

  show(d, event) {
    const { element } = this;
    const row = (name, v) => (v ? [h('dt', {}, name), h('dd', {}, h('bdi', {}, cut(v, 240)))] : null);
    const weight = (name, v) => [h('dt', {}, name), h('dd', {}, h('b', {}, v.share), ` ${v.main}${v.time ? ` · ${v.time}` : ''}`)];
    fill(
      element,
      h('p.name', {}, h('bdi', {}, cut(d.name, 420))),
      d.kind
        ? h('p.kind', {}, h(`span.swatch${isMarker(d.flags) ? '.hatched' : ''}`, { css: { 'background-color': `var(--kind-${kindOf(d.flags).key})` } }), d.kind, d.kind.includes('guessed') ? ' by frame pointer: likely, not certain' : '')
        : null,
      h('dl', {}, weight('Total', d.total), d.fn >= 0 ? weight('Self', d.self) : null, row('Of parent', d.ofParent), row('Source', d.where), row('Module', d.module), row('Address', d.address)),
    );
    element.hidden = false;
    const { offsetWidth: w, offsetHeight: height } = element;
    const gap = 14;
    let left = event.clientX + gap;
    let top = event.clientY + gap;
    if (left + w > window.innerWidth - 6) left = Math.max(6, event.clientX - gap - w);
    if (top + height > window.innerHeight - 6) top = Math.max(6, event.clientY - gap - height);
    element.style.transform = `translate(${left}px, ${top}px)`;
  }

  hide() {
    this.element.hidden = true;
  }
}

/** The foot of the page: the chosen frame and what can be done with it. `on`: {open(fn), copy(fn), find(fn)}. */
export function foot(host, d, on) {
  if (!d) {
    fill(host, h('p.hint', {}, 'Click a frame to zoom into it. Arrow keys walk, Enter zooms, Esc goes back, / searches, ? lists all keys.'));
    return;
  }
  const action = (title, name, run) => h('button', { type: 'button', onclick: run }, icon(name), title);
  fill(
    host,
    h(
      'div.what',
      {},
      d.kind ? h(`span.swatch${isMarker(d.flags) ? '.hatched' : ''}`, { css: { 'background-color': `var(--kind-${kindOf(d.flags).key})` }, title: d.kind }) : null,
      h('bdi.name', { title: cut(d.name, 600) }, cut(d.name, 500)),
      h('span.place', {}, h('bdi', {}, cut([d.where || d.address, d.module ? base(d.module) : ''].filter(Boolean).join(' · '), 160))),
    ),
    h('div.weights', {}, h('span', {}, 'total ', h('b', {}, d.total.share), ` ${d.total.time || d.total.main}`), d.fn >= 0 ? h('span', {}, 'self ', h('b', {}, d.self.share), ` ${d.self.time || d.self.main}`) : null),
    d.fn >= 0
      ? h('div.actions', {}, action('Callers and callees', 'callers', () => on.open(d.fn)), action('Find all', 'search', () => on.find(d.fn)), action('Copy name', 'copy', () => on.copy(d.fn)))
      : null,
  );
}
