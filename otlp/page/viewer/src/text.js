// Text of a profile is hostile: it is only ever put on the page as text, and characters that act (control characters,
// line ends, direction overrides) are spelled out, on the page and in what is copied.

const ACTING = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/;
const ALL_ACTING = new RegExp(ACTING, 'g');

/** `text` with every acting character spelled as \u{hex}. */
export function plain(text) {
  if (!ACTING.test(text)) return text;
  return text.replace(ALL_ACTING, (c) => `\\u{${c.charCodeAt(0).toString(16)}}`);
}

/** `text`, at most `length` characters of it. */
export function cut(text, length) {
  return text.length > length ? `${text.slice(0, length - 1)}…` : text;
}

/** The last part of a path; `[vdso]` and `//anon` are no paths. */
export function base(path) {
  if (path.startsWith('//') || path.startsWith('[')) return path;
  return path.slice(path.lastIndexOf('/') + 1) || path;
}

/**
 * A function's name without its parameters and template arguments, for boxes too narrow for all of it:
 * `ns::map<int, long>::find(int const&)` is `ns::map::find`.
 */
export function short(name) {
  if (name.length > 2000) return name;
  if (!/[<(]/.test(name) || name.startsWith('<') || name.includes('(*') || name.includes('operator')) return name;
  let depth = 0;
  let out = '';
  for (const c of name) {
    if (c === '<' || c === '(') depth += 1;
    else if (c === '>' || c === ')') depth -= 1;
    else if (depth === 0) out += c;
  }
  return depth === 0 && out.trim() ? out.trim().replace(/ const$/, '') : name;
}

const whole = new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 });

/** 1234567 as 1,234,567. */
export function count(n) {
  return whole.format(n);
}

/** A part of one as a percentage. */
export function percent(part) {
  if (!Number.isFinite(part)) return '–';
  const p = part * 100;
  if (p === 0) return '0%';
  if (p < 0.01) return '<0.01%';
  if (p < 9.995) return `${p.toFixed(2)}%`;
  return `${p.toFixed(1)}%`;
}

/** Nanoseconds as people say them. */
export function duration(ns) {
  if (ns === 0) return '0 s';
  const units = [['ns', 1], ['µs', 1e3], ['ms', 1e6], ['s', 1e9], ['min', 60e9], ['h', 3600e9]];
  let unit = units[0];
  for (const next of units) if (Math.abs(ns) >= next[1]) unit = next;
  const n = ns / unit[1];
  return `${n >= 100 || Number.isInteger(n) ? whole.format(n) : n.toFixed(n >= 10 ? 1 : 2)} ${unit[0]}`;
}

function bytes(n) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let at = 0;
  while (n >= 1024 && at < units.length - 1) {
    n /= 1024;
    at += 1;
  }
  return `${at === 0 || n >= 100 ? whole.format(n) : n.toFixed(n >= 10 ? 1 : 2)} ${units[at]}`;
}

const TIME = { nanoseconds: 1, microseconds: 1e3, milliseconds: 1e6, seconds: 1e9 };

/**
 * How to write values of a sample type: `main` is the value in its own unit, `time` what it is in CPU time, '' if it is
 * no count of timed samples.
 */
export function scale(type) {
  const [kind, unit] = [plain(type.kind), plain(type.unit)];
  const { period } = type;
  const name = kind.replaceAll('_', ' ');
  if (unit in TIME) return { name, main: (v) => duration(v * TIME[unit]), time: () => '' };
  if (unit === 'bytes') return { name, main: bytes, time: () => '' };
  const noun = unit === 'count' ? name : `${name} ${unit}`;
  const main = (v) => `${count(v)} ${v === 1 ? noun.replace(/s$/, '') : noun}`;
  const each = (kind === 'samples' || kind === 'sample') && period[1] in TIME && period[2] > 0 ? period[2] * TIME[period[1]] : 0;
  return { name, main, time: (v) => (each ? duration(v * each) : ''), bare: count };
}
