// The flame graph on a canvas: only what is on the screen is drawn, at most one box a pixel and row, whatever the profile's size.

import { isMarker } from './colors.js';
import { GUESSED } from './decode.js';
import { short } from './text.js';

const ROW = 20;
const FONT = '12px system-ui, "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans", Arial, sans-serif';

/**
 * A flame graph in `host`. `on`: {hover(node, event), leave(), select(node), zoom(node)}; `label(tree, node)` is the whole name.
 */
export class Flame {
  constructor(host, { profile, name, on, label }) {
    this.profile = profile;
    this.name = name;
    this.on = on;
    this.tree = null;
    this.zoomed = 0;
    this.selected = -1;
    this.hovered = -1;
    this.match = null;
    this.rootAtBottom = false;
    this.shorts = new Map();
    this.widths = new Map();
    this.host = host;
    host.classList.add('flame');
    this.scroller = host.appendChild(document.createElement('div'));
    this.scroller.className = 'scroller';
    this.spacer = this.scroller.appendChild(document.createElement('div'));
    this.spacer.className = 'spacer';
    this.window = this.spacer.appendChild(document.createElement('div'));
    this.window.className = 'window';
    this.canvas = this.window.appendChild(document.createElement('canvas'));
    // Outlines have a canvas of their own: a pointer that moves must not draw the graph anew.
    this.overlay = this.window.appendChild(document.createElement('canvas'));
    this.overlay.className = 'overlay';
    this.outlines = this.overlay.getContext('2d');
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute('role', 'application');
    this.canvas.setAttribute('aria-roledescription', 'flame graph');
    this.canvas.setAttribute('aria-label', label);
    this.context = this.canvas.getContext('2d');
    this.listen();
    new ResizeObserver(() => this.resized()).observe(this.scroller);
  }

  listen() {
    const { canvas, scroller } = this;
    scroller.addEventListener('scroll', () => this.draw());
    canvas.addEventListener('mousemove', (event) => {
      const node = this.at(event.offsetX, event.offsetY);
      if (node !== this.hovered) {
        this.hovered = node;
        this.outline();
      }
      canvas.style.cursor = node >= 0 ? 'pointer' : 'default';
      if (node >= 0) this.on.hover(node, event);
      else this.on.leave();
    });
    canvas.addEventListener('mouseleave', () => {
      this.hovered = -1;
      this.outline();
      this.on.leave();
    });
    canvas.addEventListener('click', (event) => {
      const node = this.at(event.offsetX, event.offsetY);
      if (node < 0) return;
      this.selected = node;
      this.outline();
      this.on.select(node);
      this.on.zoom(node);
    });
    canvas.addEventListener('keydown', (event) => this.key(event));
  }

  /** Shows `tree` from its root. */
  show(tree, { zoom = 0, match = this.match, rootAtBottom = this.rootAtBottom } = {}) {
    this.tree = tree;
    this.match = match;
    this.rootAtBottom = rootAtBottom;
    this.hovered = -1;
    this.selected = -1;
    this.zoomTo(zoom < tree.n ? zoom : 0);
  }

  setMatch(match) {
    this.match = match;
    this.draw();
  }

  setPalette(palette) {
    this.palette = palette;
    this.draw();
  }

  /** Makes `node` as wide as the graph. */
  zoomTo(node) {
    this.zoomed = node;
    const { tree } = this;
    const before = this.scroller.scrollTop;
    let deepest = 0;
    const minimum = tree.total[node] / 6000;
    for (let i = node; i < tree.end[node]; ) {
      if (tree.total[i] <= 0 || tree.total[i] < minimum) i = tree.end[i];
      else {
        if (tree.depth[i] > deepest) deepest = tree.depth[i];
        i += 1;
      }
    }
    this.rows = deepest + 1;
    this.resized();
    const row = tree.depth[node];
    const y = this.rootAtBottom ? (this.rows - 1 - row) * ROW : row * ROW;
    const room = this.height;
    let target = before;
    if (this.rootAtBottom) target = Math.max(0, y + ROW - room + Math.min(row, 4) * ROW);
    else target = Math.max(0, y - 4 * ROW);
    this.scroller.scrollTop = target;
    this.draw();
  }

  resized() {
    if (!this.tree) return;
    this.width = this.scroller.clientWidth;
    this.height = this.scroller.clientHeight;
    if (!this.width || !this.height) return;
    const ratio = window.devicePixelRatio || 1;
    const content = Math.max(this.rows * ROW, this.height);
    this.spacer.style.height = `${content}px`;
    this.window.style.height = `${this.height}px`;
    for (const canvas of [this.canvas, this.overlay]) {
      canvas.width = Math.round(this.width * ratio);
      canvas.height = Math.round(this.height * ratio);
    }
    this.ratio = ratio;
    this.draw();
  }

  /** Redraws before the next frame of the screen. */
  draw() {
    if (this.pending || !this.tree) return;
    this.pending = true;
    requestAnimationFrame(() => {
      this.pending = false;
      this.paint();
    });
  }

  /** Top of `row` on the canvas. */
  top(row) {
    const scroll = this.scroller.scrollTop;
    if (!this.rootAtBottom) return row * ROW - scroll;
    return Math.max(this.rows * ROW, this.height) - (row + 1) * ROW - scroll;
  }

  paint() {
    const { context: c, tree, palette, zoomed, width, height, ratio } = this;
    if (!palette || !width || !height) return;
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    c.fillStyle = palette.background;
    c.fillRect(0, 0, width, height);
    c.font = FONT;
    c.textBaseline = 'middle';
    for (let up = tree.parent[zoomed]; up >= 0; up = tree.parent[up]) this.box(up, 0, width, 0.55);
    const { x, total, depth, end } = tree;
    const x0 = x[zoomed];
    const perWeight = total[zoomed] > 0 ? width / total[zoomed] : 0;
    const drawn = new Float64Array(tree.height + 1).fill(-1);
    const pixel = 1 / ratio;
    // Rows that can be seen; children of a row that is off the far side need no look.
    const visible = (d) => {
      const y = this.top(d);
      return y < height && y + ROW > 0;
    };
    let deepest = depth[zoomed];
    while (deepest + 1 < this.rows && (this.rootAtBottom ? this.top(deepest + 1) + ROW > 0 : this.top(deepest + 1) < height)) {
      deepest += 1;
    }
    for (let i = zoomed; i < end[zoomed]; ) {
      const w = total[i] * perWeight;
      const d = depth[i];
      if (w <= 0 || d > deepest) {
        i = end[i];
        continue;
      }
      const left = (x[i] - x0) * perWeight;
      if (left + w <= drawn[d]) {
        i = end[i];
        continue;
      }
      if (w >= pixel) {
        if (visible(d)) this.box(i, left, w, 1);
        drawn[d] = left + w;
      } else {
        // Many boxes share this pixel: the first stands for all of them, fainter the less of it is its own.
        const start = Math.max(drawn[d], Math.floor(left * ratio) / ratio);
        if (visible(d)) this.box(i, start, pixel, Math.max(0.35, w * ratio));
        drawn[d] = start + pixel;
      }
      i += 1;
    }
    this.outline();
    this.on.painted?.();
  }

  /** Draws the outlines of the selected frame and of the one under the pointer. */
  outline() {
    const { tree, zoomed, outlines: c, width, height, ratio } = this;
    if (!tree || !width || !this.palette) return;
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    c.clearRect(0, 0, width, height);
    const perWeight = tree.total[zoomed] > 0 ? width / tree.total[zoomed] : 0;
    if (this.selected >= 0) this.frameBox(this.selected, tree.x[zoomed], perWeight, 2);
    if (this.hovered >= 0 && this.hovered !== this.selected) this.frameBox(this.hovered, tree.x[zoomed], perWeight, 1);
  }

  box(node, left, width, alpha) {
    const { context: c, tree, palette, profile } = this;
    const y = this.top(tree.depth[node]);
    if (y >= this.height || y + ROW <= 0) return;
    const frame = tree.frame[node];
    const flags = frame >= 0 ? profile.frames.flags[frame] : -1;
    const fn = frame >= 0 ? profile.frames.function[frame] : -1;
    const hit = this.match !== null && fn >= 0 && this.match[fn] === 1;
    c.fillStyle = hit ? palette.match : flags < 0 ? palette.group(frame === -1 ? 1 : 2) : palette.fill(flags, fn * 7);
    if (this.match !== null && !hit) alpha *= palette.faint;
    c.globalAlpha = alpha;
    const w = width > 2.5 ? width - 1 : width;
    c.fillRect(left, y, w, ROW - 1);
    if (width > 6 && isMarker(flags)) this.hatch(left, y, w);
    if (width > 14 && flags >= 0 && flags & GUESSED) this.guessed(left, y, w);
    if (width > 28) {
      const whole = this.name(tree, node);
      // Groups are written bold, which is about a tenth wider.
      const text = this.fit(fn, whole, (width - 9) * (flags < 0 ? 0.88 : 1));
      if (text) {
        c.globalAlpha = this.match !== null && !hit ? 0.62 : alpha < 1 ? 0.75 : 1;
        c.fillStyle = hit ? palette.matchText : palette.text;
        if (flags < 0) c.font = `600 ${FONT}`;
        c.fillText(text, left + 4, y + ROW / 2);
        if (flags < 0) c.font = FONT;
      }
    }
    c.globalAlpha = 1;
  }

  hatch(left, y, width) {
    const { context: c } = this;
    c.save();
    c.beginPath();
    c.rect(left, y, width, ROW - 1);
    c.clip();
    c.strokeStyle = this.palette.hatch;
    c.beginPath();
    for (let at = left - ROW; at < Math.min(left + width, this.width); at += 7) {
      c.moveTo(at, y + ROW);
      c.lineTo(at + ROW, y);
    }
    c.stroke();
    c.restore();
  }

  /** A dashed line below says: likely, not certain. */
  guessed(left, y, width) {
    const { context: c } = this;
    c.strokeStyle = this.palette.text;
    c.setLineDash([3, 3]);
    c.beginPath();
    c.moveTo(left + 1, y + ROW - 2.5);
    c.lineTo(left + width - 1, y + ROW - 2.5);
    c.stroke();
    c.setLineDash([]);
  }

  frameBox(node, x0, perWeight, thickness) {
    const { outlines: c, tree, zoomed } = this;
    const above = tree.depth[node] < tree.depth[zoomed];
    const left = above ? 0 : Math.max(0, (tree.x[node] - x0) * perWeight);
    const w = above ? this.width : Math.min(this.width - left, tree.total[node] * perWeight);
    if (w <= 0) return;
    c.strokeStyle = this.palette.outline;
    c.lineWidth = thickness;
    c.strokeRect(left + thickness / 2, this.top(tree.depth[node]) + thickness / 2, Math.max(1, w - 1 - thickness), ROW - 1 - thickness);
    c.lineWidth = 1;
  }

  /** As much of a name as `room` pixels hold: whole, without its parameters, or cut. */
  fit(fn, whole, room) {
    const limited = whole.length > 400 ? whole.slice(0, 400) : whole;
    if (this.measure(limited) <= room) return limited;
    let text = limited;
    if (fn >= 0) {
      text = this.shorts.get(fn);
      if (text === undefined) this.shorts.set(fn, (text = short(limited)));
      if (this.measure(text) <= room) return text;
    }
    const dots = this.measure('…');
    let used = 0;
    let i = 0;
    for (const c of text) {
      used += this.measure(c);
      if (used > room - dots) break;
      i += c.length;
    }
    return i > 1 ? `${text.slice(0, i)}…` : '';
  }

  /** Width of `text`, as the sum of its characters: within a pixel or two, and hundreds of times faster than asking. */
  measure(text) {
    let sum = 0;
    for (const c of text) {
      let w = this.widths.get(c);
      if (w === undefined) {
        this.context.font = FONT;
        w = this.context.measureText(c).width;
        this.widths.set(c, w);
      }
      sum += w;
    }
    return sum;
  }

  /** The node at a point of the canvas; -1 if there is none. */
  at(px, py) {
    const { tree, zoomed } = this;
    if (!tree || !tree.total[zoomed]) return -1;
    const scroll = this.scroller.scrollTop;
    const row = this.rootAtBottom
      ? Math.floor((Math.max(this.rows * ROW, this.height) - py - scroll) / ROW)
      : Math.floor((py + scroll) / ROW);
    const base = tree.depth[zoomed];
    if (row < 0) return -1;
    if (row <= base) {
      let node = zoomed;
      while (tree.depth[node] > row) node = tree.parent[node];
      return node;
    }
    const weight = tree.x[zoomed] + (px / this.width) * tree.total[zoomed];
    let node = zoomed;
    while (tree.depth[node] < row) {
      let found = -1;
      for (let child = node + 1; child < tree.end[node]; child = tree.end[child]) {
        if (weight >= tree.x[child] && weight < tree.x[child] + tree.total[child]) {
          found = child;
          break;
        }
      }
      if (found < 0) return -1;
      node = found;
    }
    return node;
  }

  key(event) {
    const { tree } = this;
    if (!tree || event.ctrlKey || event.metaKey || event.altKey) return;
    let node = this.selected >= 0 ? this.selected : this.zoomed;
    const down = this.rootAtBottom ? 'ArrowUp' : 'ArrowDown';
    const up = this.rootAtBottom ? 'ArrowDown' : 'ArrowUp';
    if (event.key === down) node = this.child(node, 0);
    else if (event.key === up) node = tree.parent[node];
    else if (event.key === 'ArrowRight') node = this.sibling(node, 1);
    else if (event.key === 'ArrowLeft') node = this.sibling(node, -1);
    else if (event.key === 'Home') node = 0;
    else if (event.key === 'Enter' || event.key === ' ') this.on.zoom(node);
    else return;
    event.preventDefault();
    if (node < 0) return;
    this.selected = node;
    this.reveal(node);
    this.on.select(node);
    this.outline();
  }

  child(node) {
    const { tree } = this;
    for (let c = node + 1; c < tree.end[node]; c = tree.end[c]) if (tree.total[c] > 0) return c;
    return node;
  }

  sibling(node, step) {
    const { tree } = this;
    const p = tree.parent[node];
    if (p < 0) return node;
    const all = [];
    for (let c = p + 1; c < tree.end[p]; c = tree.end[c]) if (tree.total[c] > 0) all.push(c);
    return all[all.indexOf(node) + step] ?? node;
  }

  /** Brings a row into view, and zooms out as far as the node needs. */
  reveal(node) {
    const { tree, zoomed } = this;
    const inside = node >= zoomed && node < tree.end[zoomed];
    if (!inside && tree.depth[node] >= tree.depth[zoomed]) this.on.zoom(tree.parent[node]);
    const y = this.top(tree.depth[node]);
    if (y < 0) this.scroller.scrollTop += y - ROW;
    else if (y + ROW > this.height) this.scroller.scrollTop += y + 2 * ROW - this.height;
  }
}
