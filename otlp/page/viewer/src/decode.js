// Reads the page's block of data. Its layout is described in otlp/page/src/pack.rs, which writes it.

import { plain } from './text.js';

/** Flags of a frame; the bits above them are the number of its kind. */
export const INLINED = 1;
export const GUESSED = 2;

async function inflate(text) {
  let bytes;
  if (Uint8Array.fromBase64) {
    bytes = Uint8Array.fromBase64(text);
  } else {
    const raw = atob(text);
    bytes = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i += 1) bytes[i] = raw.charCodeAt(i);
  }
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Reads columns one after the other. */
class Columns {
  constructor(bytes, at) {
    this.bytes = bytes;
    this.at = at;
  }

  plain(n, out = new Int32Array(n)) {
    const { bytes } = this;
    let at = this.at;
    for (let i = 0; i < n; i += 1) {
      let byte = bytes[at++];
      let value = byte & 127;
      // Numbers beyond 31 bits leave the integer path.
      for (let factor = 128; byte > 127; factor *= 128) {
        byte = bytes[at++];
        value += (byte & 127) * factor;
      }
      out[i] = value;
    }
    this.at = at;
    return out;
  }

  delta(n, out = new Int32Array(n)) {
    const raw = this.plain(n, new Float64Array(n));
    let before = 0;
    for (let i = 0; i < n; i += 1) {
      const value = raw[i];
      before += value % 2 === 0 ? value / 2 : -(value + 1) / 2;
      out[i] = before;
    }
    return out;
  }
}

/** The profile in `text`, the page's block of data. */
export async function decode(text) {
  return parse(await inflate(text.trim()));
}

/** The profile in `bytes`, inflated. */
export function parse(bytes) {
  const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
  const meta = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)));
  if (meta.version !== 4) throw new Error(`the data is of version ${meta.version}; this viewer reads version 4`);
  const columns = new Columns(bytes, 4 + length);
  const { counts } = meta;
  const strings = meta.strings.map(plain);

  const functions = {
    n: counts.functions,
    name: Array.from(columns.delta(counts.functions), (id) => strings[id]),
    module: Array.from(columns.plain(counts.functions), (id) => strings[id]),
    file: Array.from(columns.plain(counts.functions), (id) => strings[id]),
    line: columns.plain(counts.functions, new Float64Array(counts.functions)),
    // The kind that a table paints a function with: that of its first frame.
    flags: new Uint8Array(counts.functions),
  };
  const frames = {
    n: counts.frames,
    function: columns.delta(counts.frames),
    flags: columns.plain(counts.frames, new Uint8Array(counts.frames)),
  };
  for (let i = frames.n - 1; i >= 0; i -= 1) {
    const f = frames.function[i];
    functions.flags[f] = frames.flags[i];
  }

  const places = {
    frame: columns.delta(counts.places),
    line: columns.plain(counts.places, new Float64Array(counts.places)),
    low: columns.delta(counts.places, new Float64Array(counts.places)),
    high: columns.delta(counts.places, new Float64Array(counts.places)),
    // One more than an index into meta.tiers; 0: not known.
    tier: columns.plain(counts.places, new Uint8Array(counts.places)),
  };
  const nodes = tree(columns, counts.nodes, places);
  const n = counts.rows;
  const rows = { n, node: columns.delta(n), thread: columns.plain(n), place: columns.delta(n), values: [] };
  for (let i = 0; i < Math.max(1, meta.types.length); i += 1) rows.values.push(columns.plain(n, new Float64Array(n)));

  // Files that do not say whose a sample is have nothing to choose from.
  if (!rows.thread.some((thread) => thread > 0)) meta.processes = meta.threads = [];
  const processes = meta.processes.map(([pid, name, exe, container]) => ({
    pid,
    name: strings[name],
    executable: strings[exe],
    container: strings[container],
  }));
  const threads = meta.threads.map(([process, tid, name]) => ({ process, tid, name: strings[name] }));
  return { meta, functions, frames, places, nodes, rows, processes, threads };
}

/** The nodes in preorder, node 0 the root: parents and ends of subtrees from depths. */
function tree(columns, count, places) {
  const n = count + 1;
  const depth = new Int32Array(n);
  columns.plain(count, depth.subarray(1));
  const place = columns.plain(count, new Float64Array(count));
  const nodes = {
    n,
    depth,
    parent: new Int32Array(n),
    end: new Int32Array(n),
    frame: new Int32Array(n),
    place: new Int32Array(n),
    several: new Uint8Array(n),
    tiers: new Uint8Array(n),
  };
  nodes.frame[0] = -1;
  nodes.place[0] = -1;
  nodes.parent[0] = -1;
  const path = [0];
  for (let i = 1; i < n; i += 1) {
    const d = depth[i];
    while (path.length > d) nodes.end[path.pop()] = i;
    nodes.parent[i] = path[d - 1];
    path.push(i);
    const p = place[i - 1];
    nodes.several[i] = p % 2;
    nodes.tiers[i] = Math.floor(p / 2) % 2;
    nodes.place[i] = Math.floor(p / 4);
    nodes.frame[i] = places.frame[nodes.place[i]];
  }
  while (path.length) nodes.end[path.pop()] = n;
  return nodes;
}

/** The address of place `id`, as hex; '' if there is none. */
export function address(places, id) {
  const low = places.low[id];
  const high = places.high[id];
  if (!low && !high) return '';
  return high ? `0x${high.toString(16)}${low.toString(16).padStart(8, '0')}` : `0x${low.toString(16)}`;
}
