// What a reader should know before reading: where the profile comes from, how much of it there is, what is missing, and
// where the time goes.

import { KINDS, allKinds, kindOf } from './colors.js';
import { fill, h, icon, popover } from './dom.js';
import { processText } from './filter.js';
import { count, cut, duration, percent, plain } from './text.js';

function fact(name, value, title) {
  if (!value) return null;
  return h('div.fact', { title: title ?? null }, h('dt', {}, name), h('dd', {}, h('bdi', {}, cut(value, 80))));
}

/** UTC, so that one file reads the same everywhere. */
function clock(ms) {
  const date = new Date(ms);
  return Number.isNaN(date.getTime()) ? '' : `${date.toISOString().slice(0, 16).replace('T', ' ')} UTC`;
}

/** Sums that the losses add up to: samples that are not there, and stacks that are not whole. */
export function lossSums(meta) {
  let lost = 0;
  let other = 0;
  for (const [reason, n] of meta.losses) {
    if (reason.startsWith('lost')) lost += n;
    else other += n;
  }
  return { lost, other };
}

/** Weight of the stacks that end in a marker where their root should be. */
export function incompleteWeight(profile, type, keep = null) {
  const { nodes, rows, frames } = profile;
  const marked = new Uint8Array(nodes.n);
  for (let i = 1; i < nodes.n; i += 1) {
    const top = nodes.depth[i] === 1;
    marked[i] = top ? ((frames.flags[nodes.frame[i]] & 15) === 4 ? 1 : 0) : marked[nodes.parent[i]];
  }
  let sum = 0;
  for (let i = 0; i < rows.n; i += 1) if (marked[rows.node[i]] && (!keep || keep[rows.thread[i]])) sum += rows.values[type][i];
  return sum;
}

/** The badge that says what is missing, with every reason behind it. */
function lossBadge(profile, totals) {
  const { meta } = profile;
  const { lost } = lossSums(meta);
  const share = lost + totals.samples > 0 ? lost / (lost + totals.samples) : 0;
  const incomplete = totals.whole ? totals.incomplete / totals.whole : 0;
  const none = !meta.losses.some(([, n]) => n > 0) && !totals.incomplete;
  const parts = [];
  if (lost) parts.push(`${count(lost)} lost (${percent(share)})`);
  if (totals.incomplete) parts.push(`${percent(incomplete)} incomplete`);
  if (!parts.length) parts.push(none ? (meta.origin.producer ? 'Nothing lost' : 'No losses reported') : 'Losses reported');
  const grave = share > 0.01 || incomplete > 0.02;
  const button = h(
    `button.badge.${none ? 'good' : grave ? 'bad' : 'note'}`,
    { type: 'button' },
    icon(none ? 'check' : 'warn'),
    parts.join(' · '),
    icon('down'),
  );
  const rows = meta.losses.map(([reason, n]) =>
    h('tr', {}, h('td', {}, h('bdi', {}, cut(plain(reason), 300))), h('td.number', {}, count(n)), h('td.number', {}, totals.samples ? percent(n / (totals.samples + lost)) : '')),
  );
  const panel = h(
    'div.panel.losses',
    { role: 'dialog', 'aria-label': 'What is missing' },
    h('h2', {}, 'What is missing from this profile'),
    rows.length
      ? h('table', {}, h('thead', {}, h('tr', {}, h('th', {}, 'Reason'), h('th.number', {}, 'Count'), h('th.number', {}, 'Of samples'))), h('tbody', {}, rows))
      : h('p', {}, meta.origin.producer ? 'The recording reports no loss.' : 'The file does not report losses.'),
    h(
      'p',
      {},
      totals.incomplete
        ? `${totals.text(totals.incomplete)} (${percent(incomplete)}) are on stacks that could not be followed to their root. They are drawn with a hatched frame that says why.`
        : 'Every stack was followed to its root.',
    ),
    meta.negative ? h('p', {}, `${count(meta.negative)} values below zero have no width and are left out.`) : null,
  );
  return popover(button, panel);
}

/** The head of the page: its title and the facts. */
export function facts(profile, totals) {
  const { meta } = profile;
  const { origin } = meta;
  const { period } = meta.types[meta.shown];
  const rate = origin.frequency
    ? `${count(origin.frequency)} Hz`
    : period[2] > 0
      ? `1 per ${period[1] === 'nanoseconds' ? duration(period[2]) : `${count(period[2])} ${plain(period[1])}`}`
      : '';
  const platform = [origin.cpus ? `${count(origin.cpus)} CPUs` : '', plain(origin.arch)].filter(Boolean).join(', ');
  const used = profile.processes.length;
  const comments = meta.comments.map((text) => plain(text)).join('\n');
  return h(
    'div.facts',
    {},
    h(
      'dl',
      {},
      fact('Host', plain(origin.host), platform),
      fact('Kernel', plain(origin.kernel)),
      fact('Machine', platform),
      fact('Rate', rate, period[2] ? `period: ${count(period[2])} ${plain(period[1])} of ${plain(period[0])}` : null),
      fact('Duration', meta.duration_ns ? duration(meta.duration_ns) : ''),
      fact('Recorded', meta.start_ms ? clock(meta.start_ms) : '', new Date(meta.start_ms).toString()),
      fact('Samples', count(totals.samples)),
      used ? fact('Processes', `${count(used)}, ${count(profile.threads.length)} threads`) : null,
      comments ? fact('Comment', comments, cut(comments, 1000)) : null,
    ),
    lossBadge(profile, totals),
  );
}

/** A bar of all kinds with its legend. */
export function legend(kinds, whole, incomplete) {
  if (!whole) return null;
  const weights = new Map();
  kinds.forEach((weight, flags) => {
    const { name } = kindOf(flags);
    if (weight > 0) weights.set(name, (weights.get(name) ?? 0) + weight);
  });
  const known = allKinds().map((kind) => ({ kind, weight: weights.get(kind.name) ?? 0 })).filter(({ weight }) => weight > 0);
  const stack = [...known];
  // Markers stand at the root end of a stack and have no weight of their own: they are no part of the bar.
  const marker = KINDS.find((kind) => kind.key === 'marker');
  if (incomplete > 0 && !kinds[marker.flags]) known.push({ kind: marker, weight: incomplete });
  return h(
    'div.kinds',
    {},
    h('div.stack', { 'aria-hidden': 'true' }, stack.map(({ kind, weight }) => h('span', { css: { width: `${(weight / whole) * 100}%`, background: `var(--kind-${kind.key})` } }))),
    h(
      'ul.legend',
      { 'aria-label': 'Colours' },
      known.map(({ kind, weight }) =>
        h(
          'li',
          { title: `${kind.name}: ${kind.about}` },
          h(`span.swatch${kind.key === 'marker' ? '.hatched' : ''}`, { css: { 'background-color': `var(--kind-${kind.key})` } }),
          kind.name,
          h('span.share', {}, percent(weight / whole)),
        ),
      ),
    ),
  );
}

function bars(items, whole, onclick, describe) {
  return h(
    'ol.bars',
    {},
    items.map(({ id, name, module, weight, key }) =>
      h(
        'li',
        {},
        h(
          'button',
          { type: 'button', title: describe(name, weight, module), onclick: () => onclick(id) },
          h('span.bar', { css: { width: `${whole ? (weight / whole) * 100 : 0}%`, background: key ? `var(--kind-${key})` : null } }),
          h('bdi.name', {}, cut(name, 200)),
          h('span.share', {}, percent(whole ? weight / whole : 0)),
        ),
      ),
    ),
  );
}

/** The side of the flame graph: kinds, hottest functions, busiest processes. */
export function side(host, { profile, weights, kinds, whole, incomplete, scale, threads, on }) {
  const { functions } = profile;
  host.hidden = !whole;
  const text = (v) => [scale.main(v), scale.time(v)].filter(Boolean).join(' · ');
  const top = [];
  for (let f = 0; f < functions.n; f += 1) if (weights.self[f] > 0) top.push(f);
  top.sort((a, b) => weights.self[b] - weights.self[a]);
  const hot = top.slice(0, 10).map((f) => ({
    id: f,
    name: functions.name[f],
    module: functions.module[f],
    weight: weights.self[f],
    key: kindOf(functions.flags[f]).key,
  }));
  const perProcess = new Float64Array(profile.processes.length);
  profile.threads.forEach((thread, i) => {
    perProcess[thread.process] += threads[i + 1];
  });
  const busy = [...perProcess.keys()].filter((p) => perProcess[p] > 0).sort((a, b) => perProcess[b] - perProcess[a]);
  const all = threads.reduce((a, b) => a + b, 0);
  fill(
    host,
    h('h2', {}, 'Where the time goes'.replace('time', scale.name === 'samples' || scale.name === 'cpu' ? 'time' : scale.name)),
    legend(kinds, whole, incomplete),
    h('h3', {}, scale.name === 'samples' || scale.name === 'cpu' ? 'Hottest functions' : 'Top functions', h('span', {}, 'self')),
    bars(hot, whole, on.open, (name, v, module) => `${cut(name, 600)}\n${module ? `${cut(module, 200)}\n` : ''}${text(v)}\nShow callers and callees`),
    busy.length > 1
      ? [
          h('h3', {}, 'Busiest processes', h('span', {}, 'total')),
          bars(
            busy.slice(0, 8).map((p) => ({ id: p, name: processText(profile.processes[p]), weight: perProcess[p] })),
            all,
            on.process,
            (name, v) => `${cut(name, 300)}\n${text(v)}\nShow this process only`,
          ),
        ]
      : null,
  );
}
