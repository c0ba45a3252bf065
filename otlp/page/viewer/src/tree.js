// Trees as the flame graph draws them, and what is read off them. A tree is a set of columns in preorder:
//   frame   index of a frame; -1 the root; -2 - k the group k of `labels`
//   depth   0 the root
//   end     one past the last node below
//   total, self, x   weight with and without children, and where it starts
//   origin  the node of the profile it shows; null if the tree is the profile's own
// A subtree is a range, so a walk that skips one goes to its end.

import { GUESSED } from './decode.js';

/** Columns for `n` nodes. */
function blank(n) {
  return {
    n,
    labels: [],
    frame: new Int32Array(n),
    depth: new Int32Array(n),
    parent: new Int32Array(n),
    end: new Int32Array(n),
    origin: new Int32Array(n),
    total: new Float64Array(n),
    self: new Float64Array(n),
    x: null,
  };
}

/** Adds children to their parents, and gives every node its place from left to right. */
function settle(tree) {
  const { n, parent, total, end } = tree;
  for (let i = n - 1; i > 0; i -= 1) total[parent[i]] += total[i];
  const x = new Float64Array(n);
  const next = new Float64Array(n);
  let depth = 0;
  for (let i = 1; i < n; i += 1) {
    const p = parent[i];
    const at = next[p];
    x[i] = at;
    next[i] = at;
    next[p] = at + total[i];
    if (total[i] > 0 && tree.depth[i] > depth) depth = tree.depth[i];
  }
  tree.x = x;
  tree.height = depth + 1;
  if (n) end[0] = n;
  return tree;
}

/**
 * The tree of the profile's rows.
 * `keep`: a Uint8Array by row's thread, or null for all. `groups`: null, or {labels, levels}, where levels are one or two
 * arrays that give a thread its label.
 */
export function build(profile, { type, keep, groups }) {
  const { nodes, rows } = profile;
  const values = rows.values[type];
  if (groups) return grouped(profile, values, keep, groups);
  const tree = { ...nodes, labels: [], origin: null, total: new Float64Array(nodes.n), self: null, x: null };
  for (let i = 0; i < rows.n; i += 1) {
    if (!keep || keep[rows.thread[i]]) tree.total[rows.node[i]] += values[i];
  }
  tree.self = tree.total.slice();
  return settle(tree);
}

/** Rows by the labels of their threads, heaviest group first; each list is in the order of the rows. */
function split(rows, list, values, label) {
  const parts = new Map();
  for (const row of list) {
    const key = label[rows.thread[row]];
    let part = parts.get(key);
    if (!part) parts.set(key, (part = { label: key, rows: [], weight: 0 }));
    part.rows.push(row);
    part.weight += values[row];
  }
  return [...parts.values()].sort((a, b) => b.weight - a.weight || a.label - b.label);
}

function grouped(profile, values, keep, groups) {
  const { nodes, rows } = profile;
  const list = [];
  for (let i = 0; i < rows.n; i += 1) if (values[i] > 0 && (!keep || keep[rows.thread[i]])) list.push(i);
  const out = new Growing(Math.ceil(nodes.n * 1.5) + 16);
  out.push(-1, 0, -1, 0);
  // The last group that a node of the profile was put in, and where: rows are in preorder, so the missing ancestors of a
  // row's node, outermost first, are the next nodes of the group's preorder.
  const stamp = new Int32Array(nodes.n).fill(-1);
  const where = new Int32Array(nodes.n);
  const path = [];
  let serial = 0;
  const place = (part, level, parent) => {
    const head = out.push(-2 - part.label, level, parent, -1);
    if (level < groups.levels.length) {
      for (const inner of split(rows, part.rows, values, groups.levels[level])) place(inner, level + 1, head);
      return;
    }
    serial += 1;
    stamp[0] = serial;
    where[0] = head;
    for (const row of part.rows) {
      let node = rows.node[row];
      while (stamp[node] !== serial) {
        path.push(node);
        node = nodes.parent[node];
      }
      while (path.length) {
        const below = path.pop();
        stamp[below] = serial;
        where[below] = out.push(nodes.frame[below], nodes.depth[below] + level, where[nodes.parent[below]], below);
      }
      out.self[where[rows.node[row]]] += values[row];
    }
  };
  for (const part of split(rows, list, values, groups.levels[0])) place(part, 1, 0);
  return out.finish(groups.labels);
}

/** A tree that grows in preorder. */
class Growing {
  constructor(room) {
    Object.assign(this, blank(room));
    this.n = 0;
  }

  push(frame, depth, parent, origin) {
    if (this.n === this.frame.length) {
      for (const key of ['frame', 'depth', 'parent', 'end', 'origin', 'total', 'self']) {
        const wider = new this[key].constructor(this.n * 2 + 16);
        wider.set(this[key]);
        this[key] = wider;
      }
    }
    const i = this.n++;
    this.frame[i] = frame;
    this.depth[i] = depth;
    this.parent[i] = parent;
    this.origin[i] = origin;
    return i;
  }

  finish(labels) {
    const { n } = this;
    const tree = { n, labels };
    for (const key of ['frame', 'depth', 'parent', 'end', 'origin', 'self']) tree[key] = this[key].subarray(0, n);
    tree.total = this.self.slice(0, n);
    // In preorder the last node of a subtree is known once its parent's next child, or nothing, follows.
    tree.end.fill(0);
    for (let i = n - 1; i >= 0; i -= 1) {
      if (tree.end[i] <= i) tree.end[i] = i + 1;
      const p = tree.parent[i];
      if (p >= 0 && tree.end[p] < tree.end[i]) tree.end[p] = tree.end[i];
    }
    return settle(tree);
  }
}

/** Self and total weight of each function; recursion counts once. */
export function functionWeights(profile, tree) {
  const { frames } = profile;
  const n = profile.functions.n;
  const self = new Float64Array(n);
  const total = new Float64Array(n);
  const open = new Int32Array(n);
  const path = new Int32Array(tree.height + 2);
  let length = 0;
  const { frame, depth, end } = tree;
  for (let i = 0; i < tree.n; ) {
    if (tree.total[i] === 0) {
      i = end[i];
      continue;
    }
    const d = depth[i];
    while (length > d) {
      const f = path[--length];
      if (f >= 0) open[f] -= 1;
    }
    const f = frame[i] >= 0 ? frames.function[frame[i]] : -1;
    while (length < d) path[length++] = -1;
    path[length++] = f;
    if (f >= 0) {
      if (open[f]++ === 0) total[f] += tree.total[i];
      self[f] += tree.self[i];
    }
    i += 1;
  }
  return { self, total };
}

/** Self weight by flags of the frame (kind and inlined, not guessed). */
export function kindWeights(profile, tree) {
  const out = new Float64Array(256);
  for (let i = 0; i < tree.n; i += 1) {
    if (tree.self[i] > 0 && tree.frame[i] >= 0) out[profile.frames.flags[tree.frame[i]] & ~GUESSED] += tree.self[i];
  }
  return out;
}

/** Weight of all stacks that hold a function for which `match[function]`. */
export function matchedWeight(profile, tree, match) {
  const { frames } = profile;
  let sum = 0;
  for (let i = 0; i < tree.n; ) {
    const f = tree.frame[i];
    if (tree.total[i] === 0) i = tree.end[i];
    else if (f >= 0 && match[frames.function[f]]) {
      sum += tree.total[i];
      i = tree.end[i];
    } else i += 1;
  }
  return sum;
}

/** The nodes of `fn` that no other node of `fn` is above of. */
function outermost(profile, tree, fn) {
  const { frames } = profile;
  const list = [];
  for (let i = 0; i < tree.n; ) {
    const f = tree.frame[i];
    if (tree.total[i] === 0) i = tree.end[i];
    else if (f >= 0 && frames.function[f] === fn) {
      list.push(i);
      i = tree.end[i];
    } else i += 1;
  }
  return list;
}

/** What `fn` calls: the subtrees of its outermost frames as one. Recursive calls show below. */
export function callees(profile, tree, fn) {
  const list = outermost(profile, tree, fn);
  // Nodes of `tree` that a node of the new tree stands for, as a linked list through `next`.
  const next = new Int32Array(tree.n).fill(-1);
  for (let i = 0; i + 1 < list.length; i += 1) next[list[i]] = list[i + 1];
  return merge(tree, list, list[0] ?? -1, {
    next,
    expand(first, add) {
      for (let at = first; at >= 0; at = next[at]) {
        for (let child = at + 1; child < tree.end[at]; child = tree.end[child]) {
          if (tree.total[child] > 0) add(child, child, tree.total[child]);
        }
      }
    },
    alone(at, head, depth, out) {
      const shift = depth - tree.depth[at];
      const path = [head];
      out.self[head] = tree.self[at];
      for (let i = at + 1; i < tree.end[at]; ) {
        if (tree.total[i] === 0) {
          i = tree.end[i];
          continue;
        }
        const d = tree.depth[i] - tree.depth[at];
        path[d] = out.push(tree.frame[i], tree.depth[i] + shift, path[d - 1], origin(tree, i));
        out.self[path[d]] = tree.self[i];
        i += 1;
      }
    },
  });
}

/** What calls `fn`: the ways to its outermost frames, seen from below. */
export function callers(profile, tree, fn) {
  const list = outermost(profile, tree, fn);
  // An occurrence walks up: `at` is where it is now.
  const at = Int32Array.from(list);
  const next = new Int32Array(list.length).fill(-1);
  for (let i = 0; i + 1 < list.length; i += 1) next[i] = i + 1;
  return merge(tree, list, list.length ? 0 : -1, {
    next,
    expand(first, add) {
      for (let o = first; o >= 0; ) {
        // Read before `add`, which puts the occurrence on another list.
        const following = next[o];
        const up = tree.parent[at[o]];
        if (up > 0) {
          at[o] = up;
          add(o, up, tree.total[list[o]]);
        }
        o = following;
      }
    },
    alone(o, head, depth, out) {
      let below = head;
      for (let up = tree.parent[at[o]]; up > 0; up = tree.parent[up]) {
        depth += 1;
        below = out.push(tree.frame[up], depth, below, origin(tree, up));
      }
      out.self[below] = tree.total[list[o]];
    },
  });
}

/** The node of the profile that node `i` of `tree` shows. */
function origin(tree, i) {
  return tree.origin ? tree.origin[i] : i;
}

/**
 * A tree whose every node stands for a list of members, linked by `next`; it starts with the list at `first`.
 * `expand(first, add)` steps each member of a list on: `add(member, node, weight)`, with the node of `tree` it is at then;
 * members at nodes of one frame become one child. `alone` writes all that is below a member that has no other beside it.
 * Children come out heaviest first.
 */
function merge(tree, starts, first, { next, expand, alone }) {
  const out = new Growing(1024);
  if (first < 0) return out.finish(tree.labels);
  const whole = starts.reduce((sum, node) => sum + tree.total[node], 0);
  const pending = [[{ frame: tree.frame[starts[0]], first, weight: whole, origin: origin(tree, starts[0]) }, 0, -1]];
  const slot = new Map();
  while (pending.length) {
    const [node, depth, parent] = pending.pop();
    const i = out.push(node.frame, depth, parent, node.origin);
    if (next[node.first] < 0) {
      alone(node.first, i, depth, out);
      continue;
    }
    slot.clear();
    let below = 0;
    expand(node.first, (member, at, weight) => {
      const frame = tree.frame[at];
      let child = slot.get(frame);
      if (!child) {
        child = { frame, first: -1, weight: 0, origin: origin(tree, at) };
        slot.set(frame, child);
      }
      next[member] = child.first;
      child.first = member;
      child.weight += weight;
      below += weight;
    });
    out.self[i] = Math.max(0, node.weight - below);
    const children = [...slot.values()].sort((a, b) => a.weight - b.weight || b.frame - a.frame);
    for (const child of children) pending.push([child, depth + 1, i]);
  }
  return out.finish(tree.labels);
}
