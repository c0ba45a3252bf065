// The choice of processes and threads, and the groups that the flame graph can start with.

import { fill, h, icon, popover } from './dom.js';
import { cut, percent } from './text.js';

const MOST = 300;

/** How a process reads. */
export function processText(process) {
  return process.pid === null ? process.name || 'unknown process' : `${process.name || 'process'} (${process.pid})`;
}

/** The weight of each row's thread (0: unknown) in sample type `type`. */
export function threadWeights(profile, type) {
  const out = new Float64Array(profile.threads.length + 1);
  const { rows } = profile;
  for (let i = 0; i < rows.n; i += 1) out[rows.thread[i]] += rows.values[type][i];
  return out;
}

/** Which threads to keep, by row's thread, or null for all. */
export function keepOf(profile, { processes, threads }) {
  if (!processes.length && !threads.length) return null;
  const keep = new Uint8Array(profile.threads.length + 1);
  const whole = new Set(processes);
  profile.threads.forEach((thread, i) => {
    if (whole.has(thread.process)) keep[i + 1] = 1;
  });
  for (const thread of threads) if (thread < profile.threads.length) keep[thread + 1] = 1;
  return keep;
}

/** The groups of `build` for a choice of the user; null for none. */
export function groupsOf(profile, group) {
  if (group === 'none') return null;
  const labels = [];
  const ids = new Map();
  const label = (key, text) => {
    if (!ids.has(key)) {
      ids.set(key, labels.length);
      labels.push(text);
    }
    return ids.get(key);
  };
  const level = (each) => {
    const out = new Int32Array(profile.threads.length + 1);
    out[0] = label('?', 'thread unknown');
    profile.threads.forEach((thread, i) => {
      out[i + 1] = each(thread, profile.processes[thread.process]);
    });
    return out;
  };
  const program = (_, process) => label(`n${process.name}`, process.name || 'no name');
  const process = (thread, p) => label(`p${thread.process}`, processText(p));
  const single = (thread) => label(`t${thread.process}.${thread.tid}.${thread.name}`, `${thread.name || 'thread'} [${thread.tid}]`);
  const levels = { program: [program], process: [process], thread: [process, single] }[group];
  return { labels, levels: levels.map(level) };
}

/** The button and its panel. `get()` gives the state, `set(change)` changes it, `weights()` the threads' weights. */
export function filterButton(profile, { get, set, weights }) {
  const text = h('span', {}, '');
  const button = h('button.field', { type: 'button' }, text, icon('down'));
  const list = h('ul.choices', { 'aria-label': 'processes and threads' });
  const search = h('input', { type: 'search', placeholder: 'Name, pid or tid', 'aria-label': 'find a process or thread', spellcheck: false });
  const open = new Set();
  const clear = h('button.quiet', { type: 'button', onclick: () => set({ processes: [], threads: [] }) }, 'Show all');
  const panel = h('div.panel.filter', { role: 'dialog', 'aria-label': 'Processes and threads' }, h('div.panelhead', {}, search, clear), list);
  const members = profile.processes.map(() => []);
  profile.threads.forEach((thread, i) => members[thread.process].push(i));

  const paint = () => {
    const { processes, threads } = get();
    const chosen = processes.length + threads.length;
    text.textContent = 'All processes';
    if (chosen === 1) {
      text.textContent = processes.length
        ? cut(processText(profile.processes[processes[0]] ?? { pid: '?' }), 28)
        : cut(profile.threads[threads[0]]?.name ?? '?', 28);
    } else if (chosen) text.textContent = `${chosen} chosen`;
    button.classList.toggle('on', chosen > 0);
    clear.disabled = chosen === 0;
    if (panel.hidden) return;
    const weight = weights();
    const whole = weight.reduce((a, b) => a + b, 0);
    const sum = (p) => members[p].reduce((a, t) => a + weight[t + 1], 0);
    const query = search.value.trim().toLowerCase();
    const hit = (t) => `${t.name} ${t.tid}`.toLowerCase().includes(query);
    const rows = profile.processes
      .map((process, p) => ({ process, p, weight: sum(p) }))
      .filter(({ process, p, weight: w }) => {
        if (w <= 0) return false;
        const named = `${process.name} ${process.pid} ${process.executable}`.toLowerCase().includes(query);
        return named || members[p].some((t) => hit(profile.threads[t]));
      })
      .sort((a, b) => b.weight - a.weight || a.p - b.p);
    const items = [];
    const toggle = (key, id) => {
      const now = get()[key];
      set({ [key]: now.includes(id) ? now.filter((x) => x !== id) : [...now, id] });
    };
    const line = (spec, name, title, w, checked, change, extra) =>
      h(
        spec,
        {},
        extra,
        h(
          'label',
          { title },
          h('input', { type: 'checkbox', checked, onchange: change }),
          h('bdi', {}, cut(name, 80)),
          h('span.share', {}, percent(whole ? w / whole : 0)),
        ),
      );
    for (const { process, p, weight: w } of rows) {
      if (items.length >= MOST) {
        items.push(h('li.note', {}, 'More than can be listed; type to narrow.'));
        break;
      }
      const shown = open.has(p) || (query && members[p].some((t) => hit(profile.threads[t])));
      const expand = h(
        'button.quiet.expand',
        {
          type: 'button',
          'aria-expanded': String(Boolean(shown)),
          'aria-label': `threads of ${cut(processText(process), 60)}`,
          onclick: () => {
            if (!open.delete(p)) open.add(p);
            paint();
          },
        },
        icon('down'),
      );
      const whole_ = processes.includes(p);
      items.push(line('li', processText(process), cut(process.executable, 300), w, whole_, () => toggle('processes', p), expand));
      if (!shown) continue;
      const inner = members[p].filter((t) => weight[t + 1] > 0).sort((a, b) => weight[b + 1] - weight[a + 1]);
      for (const t of inner.slice(0, MOST)) {
        const thread = profile.threads[t];
        const name = `${thread.name || 'thread'} [${thread.tid}]`;
        items.push(line('li.inner', name, '', weight[t + 1], whole_ || threads.includes(t), () => toggle('threads', t)));
      }
    }
    // The list is made anew; who was in it by keyboard stays where they were.
    const scrolled = list.scrollTop;
    const at = [...list.querySelectorAll('input, button')].indexOf(document.activeElement);
    fill(list, items);
    list.scrollTop = scrolled;
    if (at >= 0) list.querySelectorAll('input, button')[at]?.focus({ preventScroll: true });
  };
  search.addEventListener('input', paint);
  const wrap = popover(button, panel, paint);
  wrap.paint = paint;
  return wrap;
}
