// The page: its parts, its state, and how one follows the other.

import { PAINTS, palette, setKinds } from './colors.js';
import { decode } from './decode.js';
import { describe, foot, nameOf, Tooltip } from './details.js';
import { copy, fill, h, icon } from './dom.js';
import { filterButton, groupsOf, keepOf, threadWeights } from './filter.js';
import { Flame } from './flame.js';
import { helpButton } from './help.js';
import { read, write } from './state.js';
import { facts, incompleteWeight, legend, side } from './summary.js';
import { Table } from './table.js';
import { base, count, cut, percent, plain, scale as scaleOf } from './text.js';
import { build, callees, callers, functionWeights, kindWeights, matchedWeight } from './tree.js';

class App {
  constructor(profile, host) {
    this.profile = profile;
    this.host = host;
    const { meta } = profile;
    this.firstGroup = profile.processes.length > 1 ? 'program' : 'none';
    this.state = this.complete(read(location.hash));
    this.cache = {};
    this.tooltip = new Tooltip();
    this.layout();
    this.paint();
    window.addEventListener('hashchange', () => this.adopt());
    window.addEventListener('popstate', () => this.adopt());
    window.matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.theme());
    document.addEventListener('keydown', (event) => this.key(event));
  }

  /** `state` with what the profile decides filled in, and what it does not have taken out. */
  complete(state) {
    const { profile } = this;
    const { meta, processes, threads, functions } = profile;
    if (state.type === null || state.type >= meta.types.length) state.type = meta.shown;
    state.group ??= this.firstGroup;
    if (!processes.length) state.group = 'none';
    state.processes = state.processes.filter((p) => p < processes.length);
    state.threads = state.threads.filter((t) => t < threads.length);
    if (state.fn >= functions.n) state.fn = -1;
    return state;
  }

  adopt() {
    const next = this.complete(read(location.hash));
    if (JSON.stringify(next) === JSON.stringify(this.state)) return;
    this.state = next;
    this.search.value = next.q;
    this.paint();
  }

  /** Changes the state; `step` makes the change one that Back undoes. */
  set(change, step = false) {
    const before = this.state;
    this.state = { ...before, ...change };
    const same = ['type', 'group', 'processes', 'threads'].every((key) => this.state[key] === before[key]);
    if (!same && !('zoom' in change)) this.state.zoom = 0;
    const short = { ...this.state };
    if (short.type === this.profile.meta.shown) short.type = null;
    if (short.group === this.firstGroup) short.group = null;
    const address = write(short) || '#';
    if (address !== location.hash) {
      try {
        if (step) history.pushState(null, '', address);
        else history.replaceState(null, '', address);
      } catch {
        // Browsers limit how often; the next change writes it.
      }
    }
    this.paint();
  }

  layout() {
    const { profile, host } = this;
    const { meta } = profile;
    const { title: what } = meta.types[meta.shown];
    const target = plain(meta.origin.target);
    const title = !target ? plain(what) : what === 'CPU profile' ? target : `${plain(what)}: ${target}`;
    document.title = cut([title, plain(meta.origin.host)].filter(Boolean).join(' on '), 120);
    this.live = h('div.offscreen', { role: 'status', 'aria-live': 'polite' });
    this.tabs = h('div.tabs', { role: 'tablist', 'aria-label': 'Views' });
    this.search = h('input', {
      type: 'search',
      placeholder: 'Find functions, files, modules',
      'aria-label': 'Find functions, files, modules; /…/ is a regular expression',
      title: 'Any part of a name, file or module, or a /regular expression/',
      value: this.state.q,
      spellcheck: false,
    });
    let wait = 0;
    this.search.addEventListener('input', () => {
      clearTimeout(wait);
      wait = setTimeout(() => this.set({ q: this.search.value }), 60);
    });
    this.found = h('output.found', { 'aria-live': 'polite' });
    this.types = h('select.field', { 'aria-label': 'Sample type', onchange: (e) => this.set({ type: Number(e.target.value) }) },
      meta.types.map(({ name, unit }, i) => h('option', { value: i }, `${plain(name)} (${plain(unit)})`)));
    const groups = [['none', 'No grouping'], ['program', 'By program'], ['process', 'By process'], ['thread', 'By thread']];
    this.groups = h('select.field', { 'aria-label': 'Group stacks', onchange: (e) => this.set({ group: e.target.value }) },
      groups.map(([value, name]) => h('option', { value }, name)));
    this.filter = filterButton(profile, {
      get: () => this.state,
      set: (change) => this.set(change),
      weights: () => this.threadWeights(),
    });
    this.flip = h('button.field', { type: 'button', onclick: () => this.set({ root: this.state.root === 'top' ? 'bottom' : 'top' }) });
    this.sideButton = h('button.square', { type: 'button', title: 'Show or hide the summary', 'aria-label': 'Summary', onclick: () => this.set({ side: !this.state.side }) }, icon('panel'));
    const dark = h('button.square', { type: 'button', title: 'Light or dark', 'aria-label': 'Light or dark', onclick: () => this.set({ theme: this.isDark() ? 'light' : 'dark' }) }, icon('sun'));

    this.help = helpButton(plain(meta.origin.producer));
    this.crumbs = h('nav.crumbs', { 'aria-label': 'Zoom' });
    this.flameHost = h('div');
    this.legendHost = h('div.legendstrip');
    this.sideHost = h('aside.side', { 'aria-label': 'Where the time goes' });
    this.flameView = h('section.view.flameview', {}, h('div.main', {}, this.crumbs, this.legendHost, this.flameHost), this.sideHost);
    this.topView = h('section.view.topview');
    this.callersHead = h('div.subject');
    this.upNote = h('span');
    this.downNote = h('span');
    this.upHost = h('div');
    this.downHost = h('div');
    const pick = h('div.pick');
    this.callersView = h('section.view.callersview', {}, pick,
      h('div.pair', {}, this.callersHead, h('h3', {}, 'Callers', this.upNote), this.upHost, h('h3', {}, 'Callees', this.downNote), this.downHost));
    this.foot = h('footer.foot');

    const filterable = profile.processes.length > 0;
    fill(
      host,
      h('header.bar', {}, h('div.brand', {}, h('span.mark', { 'aria-hidden': 'true' }, h('i'), h('i'), h('i')), h('h1', {}, h('bdi', {}, cut(title, 90)))), this.tabs,
        h('div.tools', {}, this.help, this.sideButton, dark)),
      facts(profile, this.totals()),
      h('div.toolbar', { role: 'toolbar', 'aria-label': 'Choices' },
        h('label.searchbox', {}, icon('search'), this.search), this.found, h('span.grow'),
        meta.types.length > 1 ? this.types : h('span.type', {}, `Sample type: ${plain(meta.types[0].name)} (${plain(meta.types[0].unit)})`),
        filterable ? [this.groups, this.filter] : null, this.flip),
      h('main', {}, this.flameView, this.topView, this.callersView),
      this.foot,
      this.live,
    );

    const flame = (into, label, on) => new Flame(into, { profile, label, name: (tree, node) => nameOf(profile, tree, node), on });
    const pointer = (get) => ({
      hover: (node, event) => this.tooltip.show(this.describe(get(), node), event),
      leave: () => this.tooltip.hide(),
    });
    this.flame = flame(this.flameHost, 'Flame graph of all stacks. Arrow keys walk, Enter zooms, Escape goes back.', {
      ...pointer(() => this.flame),
      select: (node) => this.select(this.flame, node),
      zoom: (node) => this.set({ zoom: node }, true),
      painted: () => performance.mark('painted'),
    });
    const inner = (get) => ({
      ...pointer(get),
      select: (node) => this.select(get(), node),
      zoom: (node) => get().zoomTo(node),
    });
    this.up = flame(this.upHost, 'Flame graph of the callers', inner(() => this.up));
    this.down = flame(this.downHost, 'Flame graph of the callees', inner(() => this.down));
    const on = { open: (fn) => this.open(fn), copy: (fn) => this.copyName(fn), sort: (sort) => this.set({ sort }) };
    this.table = new Table(this.topView, { profile, on });
    this.picker = new Table(pick, { profile, on: { ...on, open: (fn) => this.set({ fn }, true) }, narrow: true });
    foot(this.foot, null);
  }

  // Derived values, each computed once for what it depends on.

  memo(name, key, make) {
    const held = this.cache[name];
    if (held && held.key === key) return held.value;
    const value = make();
    this.cache[name] = { key, value };
    return value;
  }

  filterKey() {
    const { type, processes, threads } = this.state;
    return `${type}|${processes}|${threads}`;
  }

  keep() {
    return this.memo('keep', this.filterKey(), () => keepOf(this.profile, this.state));
  }

  threadWeights() {
    return this.memo('threads', this.state.type, () => threadWeights(this.profile, this.state.type));
  }

  /** The tree without groups: what tables and callers are computed from. */
  plainTree() {
    return this.memo('plain', this.filterKey(), () => build(this.profile, { type: this.state.type, keep: this.keep(), groups: null }));
  }

  tree() {
    if (this.state.group === 'none') return this.plainTree();
    return this.memo('tree', `${this.filterKey()}|${this.state.group}`, () => {
      const groups = groupsOf(this.profile, this.state.group);
      return build(this.profile, { type: this.state.type, keep: this.keep(), groups });
    });
  }

  weights() {
    return this.memo('weights', this.filterKey(), () => functionWeights(this.profile, this.plainTree()));
  }

  kinds() {
    return this.memo('kinds', this.filterKey(), () => kindWeights(this.profile, this.plainTree()));
  }

  incomplete() {
    return this.memo('incomplete', this.filterKey(), () => incompleteWeight(this.profile, this.state.type, this.keep()));
  }

  /** Which functions the search finds; null without a search. */
  match() {
    return this.memo('match', this.state.q, () => {
      const query = this.state.q.trim();
      if (!query) return null;
      let test;
      const regex = /^\/(.+)\/i?$/.exec(query);
      if (regex) {
        try {
          const compiled = new RegExp(regex[1], 'i');
          test = (text) => compiled.test(text.length > 4000 ? text.slice(0, 4000) : text);
        } catch {
          test = () => false;
        }
      } else {
        const low = query.toLowerCase();
        test = (text) => text.toLowerCase().includes(low);
      }
      const { functions } = this.profile;
      const known = new Map();
      const shared = (text) => {
        if (!known.has(text)) known.set(text, text !== '' && test(text));
        return known.get(text);
      };
      const out = new Uint8Array(functions.n);
      for (let f = 0; f < functions.n; f += 1) {
        if (test(functions.name[f]) || shared(functions.file[f]) || shared(base(functions.module[f]))) out[f] = 1;
      }
      return out;
    });
  }

  scale() {
    const { meta } = this.profile;
    return scaleOf(meta.types[this.state.type]);
  }

  totals() {
    const { profile } = this;
    const type = profile.meta.shown;
    let whole = 0;
    for (const value of profile.rows.values[type]) whole += value;
    const scale = scaleOf(profile.meta.types[type]);
    return { whole, incomplete: incompleteWeight(profile, type), samples: profile.meta.counts.samples, text: scale.main };
  }

  // Painting.

  isDark() {
    const { theme } = this.state;
    return theme ? theme === 'dark' : window.matchMedia('(prefers-color-scheme: dark)').matches;
  }

  theme() {
    const dark = this.isDark();
    const key = dark ? 'dark' : 'light';
    document.documentElement.dataset.theme = key;
    if (this.themed === key) return;
    this.themed = key;
    const colors = palette(dark);
    for (const name of PAINTS) {
      document.documentElement.style.setProperty(`--kind-${name}`, colors.swatch(name));
    }
    for (const flame of [this.flame, this.up, this.down]) flame.setPalette(colors);
  }

  paint() {
    const { state, profile } = this;
    this.theme();
    this.tooltip.hide();
    const tabs = [['flame', 'Flame graph'], ['top', 'Top functions'], ['callers', 'Callers and callees']];
    const focused = this.tabs.contains(document.activeElement);
    fill(this.tabs, tabs.map(([view, name]) => h('button', {
      type: 'button', role: 'tab', 'aria-selected': String(state.view === view), tabIndex: state.view === view ? 0 : -1,
      onclick: () => this.set({ view }, true),
      onkeydown: (event) => {
        const step = { ArrowRight: 1, ArrowLeft: 2 }[event.key];
        if (step) this.set({ view: tabs[(tabs.findIndex(([v]) => v === view) + step) % 3][0] }, true);
      },
    }, name)));
    if (focused) this.tabs.querySelector('[aria-selected=true]').focus();
    this.types.value = String(state.type);
    this.groups.value = state.group;
    fill(this.flip, icon('flip'), state.root === 'top' ? 'Root at top' : 'Root at bottom');
    this.flip.title = state.root === 'top' ? 'Draw it as a flame graph, root at the bottom' : 'Draw it as an icicle, root at the top';
    this.flip.hidden = this.groups.hidden = state.view !== 'flame';
    this.sideButton.hidden = state.view !== 'flame';
    this.filter.paint();
    this.flameView.hidden = state.view !== 'flame';
    this.topView.hidden = state.view !== 'top';
    this.callersView.hidden = state.view !== 'callers';

    const plainTree = this.plainTree();
    const whole = plainTree.total[0];
    const match = this.match();
    this.found.hidden = match === null;
    if (match) {
      const functions = match.reduce((a, b, f) => a + (b && this.weights().total[f] > 0 ? 1 : 0), 0);
      const weight = matchedWeight(profile, plainTree, match);
      const scale = this.scale();
      fill(this.found, functions ? [h('b', {}, percent(weight / whole)), ` in ${count(functions)} ${functions === 1 ? 'function' : 'functions'}`] : 'no match',
        h('button.quiet', { type: 'button', title: 'End the search', 'aria-label': 'End the search', onclick: () => this.find('') }, icon('close')));
      this.found.title = [scale.main(weight), scale.time(weight)].filter(Boolean).join(' · ');
    }
    if (state.view === 'flame') this.paintFlame(whole, match);
    else if (state.view === 'top') {
      this.table.show({ weights: this.weights(), whole, match, scale: this.scale(), sort: state.sort, selected: state.fn });
    } else this.paintCallers(plainTree, whole, match);
  }

  paintFlame(whole, match) {
    const { state, flame } = this;
    const tree = this.tree();
    const scale = this.scale();
    tree.rootName ??= ['All', scale.main(whole), scale.time(whole)].filter(Boolean).join(' · ');
    flame.whole = whole;
    const empty = whole === 0;
    this.flameHost.classList.toggle('empty', empty);
    this.flameHost.dataset.empty = this.profile.meta.counts.samples
      ? 'No samples here: choose other processes, or another sample type.'
      : 'This profile has no samples. Was the target idle, or had it ended? Record longer, or while it is busy.';
    const changed = flame.tree !== tree || flame.rootAtBottom !== (state.root === 'bottom');
    if (changed) flame.show(tree, { zoom: state.zoom, match, rootAtBottom: state.root === 'bottom' });
    else {
      flame.setMatch(match);
      if (flame.zoomed !== state.zoom) flame.zoomTo(state.zoom < tree.n ? state.zoom : 0);
    }
    this.paintCrumbs(tree);
    this.flameView.classList.toggle('wide', !state.side);
    fill(this.legendHost, legend(this.kinds(), whole, this.incomplete()));
    const key = `${this.filterKey()}|${this.themed}`;
    if (this.sidePainted !== key) {
      this.sidePainted = key;
      side(this.sideHost, {
        profile: this.profile, weights: this.weights(), kinds: this.kinds(), whole, incomplete: this.incomplete(), scale, threads: this.threadWeights(),
        on: { open: (fn) => this.open(fn), process: (p) => this.set({ processes: [p], threads: [] }, true) },
      });
    }
    if (empty) foot(this.foot, null);
    if (changed) foot(this.foot, state.zoom ? this.describe(flame, flame.zoomed) : null, this.actions());
  }

  paintCrumbs(tree) {
    const path = [];
    for (let node = this.flame.zoomed; node >= 0; node = tree.parent[node]) path.unshift(node);
    const crumb = (node, last) =>
      h('li', {}, h('button', { type: 'button', 'aria-current': last ? 'true' : null, title: cut(nameOf(this.profile, tree, node), 400), onclick: () => this.set({ zoom: node }, true) },
        h('bdi', {}, cut(node === 0 ? 'All' : nameOf(this.profile, tree, node), 48))));
    // A deep path shows its ends: where it starts and where we are.
    const shown = path.length > 8 ? [...path.slice(0, 3), -1, ...path.slice(-4)] : path;
    this.crumbs.hidden = path.length < 2;
    fill(this.crumbs, h('ol', {}, shown.map((node, i) => (node < 0 ? h('li.gap', {}, `… ${path.length - 7} …`) : crumb(node, i === shown.length - 1)))),
      h('button.reset', { type: 'button', onclick: () => this.set({ zoom: 0 }, true) }, icon('close'), 'Reset zoom'));
  }

  paintCallers(tree, whole, match) {
    const { state, profile } = this;
    const weights = this.weights();
    let fn = state.fn;
    if (fn < 0 || !(weights.total[fn] > 0)) {
      fn = -1;
      for (let f = 0; f < profile.functions.n; f += 1) if (weights.self[f] > (fn < 0 ? 0 : weights.self[fn])) fn = f;
    }
    const scale = this.scale();
    this.picker.show({ weights, whole, match, scale, sort: state.sort, selected: fn });
    this.subject = fn;
    if (fn < 0) {
      fill(this.callersHead, h('p.hint', {}, 'There are no samples here.'));
      return;
    }
    const [up, down] = this.memo('callers', `${this.filterKey()}|${fn}`, () => {
      const both = [callers(profile, tree, fn), callees(profile, tree, fn)];
      for (const one of both) one.merged = true;
      return both;
    });
    const value = (v) => [percent(v / whole), scale.time(v) || scale.main(v)].join(' · ');
    const name = profile.functions.name[fn];
    fill(
      this.callersHead,
      h('h2', {}, h('bdi', { title: cut(name, 600) }, cut(name, 300))),
      h('p', {}, h('span', {}, 'total ', h('b', {}, value(weights.total[fn]))), h('span', {}, 'self ', h('b', {}, value(weights.self[fn]))),
        profile.functions.module[fn] ? h('span.place', {}, h('bdi', {}, cut(profile.functions.module[fn], 120))) : null,
        profile.functions.file[fn] ? h('span.place', {}, h('bdi', {}, cut(`${profile.functions.file[fn]}${profile.functions.line[fn] ? `:${profile.functions.line[fn]}` : ''}`, 160))) : null),
      h('div.actions', {}, h('button', { type: 'button', onclick: () => this.copyName(fn) }, icon('copy'), 'Copy name'),
        h('button', { type: 'button', onclick: () => this.find(name, 'flame') }, icon('search'), 'Find in the flame graph')),
    );
    this.upNote.textContent = up.n > 1 ? 'what calls it; read upwards' : 'nothing calls it: stacks start here';
    this.downNote.textContent = down.n > 1 ? 'what it calls; read downwards' : 'it calls nothing that was sampled';
    for (const [flame, shown, bottom] of [[this.up, up, true], [this.down, down, false]]) {
      flame.whole = whole;
      flame.host.classList.toggle('single', shown.n < 2);
      if (flame.tree !== shown) flame.show(shown, { match, rootAtBottom: bottom });
      else flame.setMatch(match);
    }
    foot(this.foot, this.describe(this.down, 0), this.actions());
  }

  // What the user does.

  describe(flame, node) {
    return describe(this.profile, flame.tree, node, this.scale(), flame.whole);
  }

  select(flame, node) {
    const d = this.describe(flame, node);
    this.chosen = d.fn;
    foot(this.foot, d, this.actions());
    this.live.textContent = `${cut(d.name, 200)}, total ${d.total.share}, self ${d.self.share}${d.kind ? `, ${d.kind}` : ''}`;
  }

  actions() {
    return {
      open: (fn) => this.open(fn),
      copy: (fn) => this.copyName(fn),
      find: (fn) => this.find(this.profile.functions.name[fn]),
    };
  }

  open(fn) {
    this.set({ view: 'callers', fn }, true);
  }

  find(text, view = this.state.view) {
    this.search.value = text;
    this.set({ q: text, view }, view !== this.state.view);
  }

  async copyName(fn) {
    const done = await copy(this.profile.functions.name[fn]);
    this.toast(done ? 'Name copied' : 'The browser did not allow copying');
  }

  toast(text) {
    this.live.textContent = text;
    const note = h('div.toast', {}, text);
    this.host.append(note);
    setTimeout(() => note.remove(), 1600);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (event.key === 'Escape') {
      if (this.state.q) this.find('');
      else if (this.state.view === 'flame' && this.state.zoom) this.set({ zoom: this.flame.tree.parent[this.state.zoom] }, true);
      if (typing) event.target.blur();
      return;
    }
    if (typing) return;
    const chosen = this.state.view === 'callers' ? this.subject : this.chosen;
    const keys = {
      '/': () => this.search.focus(),
      1: () => this.set({ view: 'flame' }, true),
      2: () => this.set({ view: 'top' }, true),
      3: () => this.set({ view: 'callers' }, true),
      i: () => this.set({ root: this.state.root === 'top' ? 'bottom' : 'top' }),
      t: () => this.set({ theme: this.isDark() ? 'light' : 'dark' }),
      g: () => chosen >= 0 && this.open(chosen),
      c: () => chosen >= 0 && this.copyName(chosen),
      '?': () => this.help.querySelector('button').click(),
    };
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  }
}

async function main() {
  const host = document.getElementById('app');
  const block = document.getElementById('profile');
  try {
    const profile = await decode(block.textContent);
    setKinds(profile.meta.kinds);
    block.remove();
    new App(profile, host);
    performance.mark('ready');
  } catch (error) {
    const old = typeof DecompressionStream === 'undefined';
    fill(host, h('div.failed', { role: 'alert' }, h('h1', {}, 'This profile cannot be shown'),
      h('p', {}, old ? 'The browser is too old: it has to know DecompressionStream (Chrome 80, Firefox 113, Safari 16.4 or newer).' : `The data in the file is damaged or incomplete: ${error.message}`)));
    console.error(error);
  }
}

main();
