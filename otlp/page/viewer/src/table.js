// The table of functions; only the rows on the screen are elements, so its length costs nothing.

import { kindOf, kindText } from './colors.js';
import { fill, h, icon } from './dom.js';
import { base, cut, percent } from './text.js';

const ROW = 28;

/** `on`: {open(fn), copy(fn), sort(key)}. `narrow` leaves the columns that a side list has no room for. */
export class Table {
  constructor(host, { profile, on, narrow = false }) {
    this.profile = profile;
    this.on = on;
    this.narrow = narrow;
    this.list = [];
    this.selected = -1;
    this.sort = '-self';
    this.head = h('div.head', { role: 'row' });
    this.body = h('div.rows', { role: 'rowgroup' });
    this.scroller = h('div.scroller', { role: 'presentation', tabIndex: 0, 'aria-label': 'functions', onscroll: () => this.paint() }, this.body);
    this.scroller.addEventListener('keydown', (event) => this.key(event));
    this.root = h(`div.table${narrow ? '.narrow' : ''}`, { role: 'grid', 'aria-label': 'Functions' }, this.head, this.scroller);
    host.append(this.root);
    new ResizeObserver(() => this.paint()).observe(this.scroller);
  }

  /** `weights`: {self, total}; `match`: Uint8Array or null; `whole`: the weight that percentages are of. */
  show({ weights, whole, match, scale, sort, selected = this.selected }) {
    Object.assign(this, { weights, whole, scale, sort, selected });
    const { functions } = this.profile;
    const list = [];
    for (let f = 0; f < functions.n; f += 1) if (weights.total[f] > 0 && (!match || match[f])) list.push(f);
    const back = sort.startsWith('-') ? -1 : 1;
    const key = sort.replace('-', '');
    const text = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
    const orders = {
      self: (a, b) => weights.self[a] - weights.self[b] || weights.total[a] - weights.total[b],
      total: (a, b) => weights.total[a] - weights.total[b] || weights.self[a] - weights.self[b],
      name: (a, b) => text(functions.name[a], functions.name[b]),
      module: (a, b) => text(functions.module[a], functions.module[b]) || text(functions.name[a], functions.name[b]),
    };
    const order = orders[key];
    list.sort((a, b) => back * order(a, b) || a - b);
    this.list = list;
    this.root.setAttribute('aria-rowcount', list.length + 1);
    this.columns();
    this.body.style.height = `${list.length * ROW}px`;
    this.paint();
  }

  columns() {
    const column = (key, title, help) => {
      const on = this.sort.replace('-', '') === key;
      const descending = this.sort.startsWith('-');
      const mark = on ? (descending ? ' ▾' : ' ▴') : '';
      const first = key === 'self' || key === 'total' ? '-' : '';
      const next = on ? (descending ? key : `-${key}`) : first + key;
      return h(
        `div.cell.${key}`,
        { role: 'columnheader', 'aria-sort': on ? (descending ? 'descending' : 'ascending') : 'none' },
        h('button', { type: 'button', title: help, onclick: () => this.on.sort(next) }, title, h('span.mark', {}, mark)),
      );
    };
    const bare = this.narrow ? [] : [column('module', 'Module', 'Executable or library')];
    fill(
      this.head,
      column('self', 'Self', 'In the function itself'),
      column('total', 'Total', 'In the function and all that it calls'),
      column('name', 'Function', 'Name of the function'),
      bare,
    );
  }

  paint() {
    const { scroller, list } = this;
    const height = scroller.clientHeight;
    if (!height || !this.weights) return;
    const first = Math.max(0, Math.floor(scroller.scrollTop / ROW) - 4);
    const last = Math.min(list.length, Math.ceil((scroller.scrollTop + height) / ROW) + 4);
    const rows = [];
    for (let i = first; i < last; i += 1) rows.push(this.row(list[i], i));
    if (!list.length) rows.push(h('p.none', {}, 'No function matches.'));
    fill(this.body, rows);
  }

  row(f, i) {
    const { profile, weights, whole, scale } = this;
    const { functions } = profile;
    const value = (key, v) =>
      h(
        `div.cell.${key}`,
        { role: 'gridcell', title: [scale.main(v), scale.time(v)].filter(Boolean).join(' · ') },
        h('span.bar', { css: { width: `${whole ? Math.min(100, (v / whole) * 100) : 0}%` } }),
        h('span.share', {}, percent(v / whole)),
        this.narrow ? null : h('span.value', {}, scale.time(v) || (scale.bare ?? scale.main)(v)),
      );
    const kind = kindOf(functions.flags[f]);
    return h(
      `div.row${f === this.selected ? '.selected' : ''}`,
      {
        role: 'row',
        'aria-rowindex': i + 2,
        'aria-selected': String(f === this.selected),
        css: { transform: `translateY(${i * ROW}px)` },
        onclick: () => this.on.open(f),
      },
      value('self', weights.self[f]),
      value('total', weights.total[f]),
      h(
        'div.cell.name',
        { role: 'gridcell' },
        h('span.swatch', { css: { background: `var(--kind-${kind.key})` }, title: kindText(functions.flags[f]) }),
        h('bdi', { title: cut(functions.name[f], 600) }, cut(functions.name[f], 400)),
        h(
          'button.quiet.onrow',
          {
            type: 'button',
            tabIndex: -1,
            title: 'Copy the name',
            'aria-label': 'Copy the name',
            onclick: (event) => {
              event.stopPropagation();
              this.on.copy(f);
            },
          },
          icon('copy'),
        ),
      ),
      this.narrow
        ? null
        : h('div.cell.module', { role: 'gridcell', title: cut(functions.module[f], 600) }, h('bdi', {}, cut(base(functions.module[f]), 200))),
    );
  }

  key(event) {
    const at = this.list.indexOf(this.selected);
    const page = Math.max(1, Math.floor(this.scroller.clientHeight / ROW) - 1);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (event.key === 'Enter' && at >= 0) this.on.open(this.selected);
    else if (event.key === 'c' && at >= 0) this.on.copy(this.selected);
    else if (event.key in steps && this.list.length) {
      const to = Math.min(this.list.length - 1, Math.max(0, at + steps[event.key]));
      this.selected = this.list[to];
      const y = to * ROW;
      if (y < this.scroller.scrollTop) this.scroller.scrollTop = y;
      else if (y + ROW > this.scroller.scrollTop + this.scroller.clientHeight) {
        this.scroller.scrollTop = y + ROW - this.scroller.clientHeight;
      }
      this.paint();
      this.on.select?.(this.selected);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }
}
