/* Built from otlp/page/viewer/src by `npm run build`; edit there. */
(() => {
  // src/text.js
  var ACTING = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/;
  var ALL_ACTING = new RegExp(ACTING, "g");
  function plain(text) {
    if (!ACTING.test(text)) return text;
    return text.replace(ALL_ACTING, (c) => `\\u{${c.charCodeAt(0).toString(16)}}`);
  }
  function cut(text, length) {
    return text.length > length ? `${text.slice(0, length - 1)}…` : text;
  }
  function base(path) {
    if (path.startsWith("//") || path.startsWith("[")) return path;
    return path.slice(path.lastIndexOf("/") + 1) || path;
  }
  function short(name) {
    if (name.length > 2e3) return name;
    if (!/[<(]/.test(name) || name.startsWith("<") || name.includes("(*") || name.includes("operator")) return name;
    let depth = 0;
    let out = "";
    for (const c of name) {
      if (c === "<" || c === "(") depth += 1;
      else if (c === ">" || c === ")") depth -= 1;
      else if (depth === 0) out += c;
    }
    return depth === 0 && out.trim() ? out.trim().replace(/ const$/, "") : name;
  }
  var whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
  function count(n) {
    return whole.format(n);
  }
  function percent(part) {
    if (!Number.isFinite(part)) return "–";
    const p = part * 100;
    if (p === 0) return "0%";
    if (p < 0.01) return "<0.01%";
    if (p < 9.995) return `${p.toFixed(2)}%`;
    return `${p.toFixed(1)}%`;
  }
  function duration(ns) {
    if (ns === 0) return "0 s";
    const units = [["ns", 1], ["µs", 1e3], ["ms", 1e6], ["s", 1e9], ["min", 6e10], ["h", 36e11]];
    let unit = units[0];
    for (const next of units) if (Math.abs(ns) >= next[1]) unit = next;
    const n = ns / unit[1];
    return `${n >= 100 || Number.isInteger(n) ? whole.format(n) : n.toFixed(n >= 10 ? 1 : 2)} ${unit[0]}`;
  }
  function bytes(n) {
    const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let at = 0;
    while (n >= 1024 && at < units.length - 1) {
      n /= 1024;
      at += 1;
    }
    return `${at === 0 || n >= 100 ? whole.format(n) : n.toFixed(n >= 10 ? 1 : 2)} ${units[at]}`;
  }
  var TIME = { nanoseconds: 1, microseconds: 1e3, milliseconds: 1e6, seconds: 1e9 };
  function scale(type) {
    const [kind, unit] = [plain(type.kind), plain(type.unit)];
    const { period } = type;
    const name = kind.replaceAll("_", " ");
    if (unit in TIME) return { name, main: (v) => duration(v * TIME[unit]), time: () => "" };
    if (unit === "bytes") return { name, main: bytes, time: () => "" };
    const noun = unit === "count" ? name : `${name} ${unit}`;
    const main2 = (v) => `${count(v)} ${v === 1 ? noun.replace(/s$/, "") : noun}`;
    const each = (kind === "samples" || kind === "sample") && period[1] in TIME && period[2] > 0 ? period[2] * TIME[period[1]] : 0;
    return { name, main: main2, time: (v) => each ? duration(v * each) : "", bare: count };
  }

  // src/decode.js
  var INLINED = 1;
  var GUESSED = 2;
  async function inflate(text) {
    let bytes2;
    if (Uint8Array.fromBase64) {
      bytes2 = Uint8Array.fromBase64(text);
    } else {
      const raw = atob(text);
      bytes2 = new Uint8Array(raw.length);
      for (let i = 0; i < raw.length; i += 1) bytes2[i] = raw.charCodeAt(i);
    }
    const stream = new Blob([bytes2]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }
  var Columns = class {
    constructor(bytes2, at) {
      this.bytes = bytes2;
      this.at = at;
    }
    plain(n, out = new Int32Array(n)) {
      const { bytes: bytes2 } = this;
      let at = this.at;
      for (let i = 0; i < n; i += 1) {
        let byte = bytes2[at++];
        let value = byte & 127;
        for (let factor = 128; byte > 127; factor *= 128) {
          byte = bytes2[at++];
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
  };
  async function decode(text) {
    return parse(await inflate(text.trim()));
  }
  function parse(bytes2) {
    const length = new DataView(bytes2.buffer, bytes2.byteOffset).getUint32(0, true);
    const meta = JSON.parse(new TextDecoder().decode(bytes2.subarray(4, 4 + length)));
    if (meta.version !== 4) throw new Error(`the data is of version ${meta.version}; this viewer reads version 4`);
    const columns = new Columns(bytes2, 4 + length);
    const { counts } = meta;
    const strings = meta.strings.map(plain);
    const functions = {
      n: counts.functions,
      name: Array.from(columns.delta(counts.functions), (id) => strings[id]),
      module: Array.from(columns.plain(counts.functions), (id) => strings[id]),
      file: Array.from(columns.plain(counts.functions), (id) => strings[id]),
      line: columns.plain(counts.functions, new Float64Array(counts.functions)),
      // The kind that a table paints a function with: that of its first frame.
      flags: new Uint8Array(counts.functions)
    };
    const frames = {
      n: counts.frames,
      function: columns.delta(counts.frames),
      flags: columns.plain(counts.frames, new Uint8Array(counts.frames))
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
      tier: columns.plain(counts.places, new Uint8Array(counts.places))
    };
    const nodes = tree(columns, counts.nodes, places);
    const n = counts.rows;
    const rows = { n, node: columns.delta(n), thread: columns.plain(n), place: columns.delta(n), values: [] };
    for (let i = 0; i < Math.max(1, meta.types.length); i += 1) rows.values.push(columns.plain(n, new Float64Array(n)));
    if (!rows.thread.some((thread) => thread > 0)) meta.processes = meta.threads = [];
    const processes = meta.processes.map(([pid, name, exe, container]) => ({
      pid,
      name: strings[name],
      executable: strings[exe],
      container: strings[container]
    }));
    const threads = meta.threads.map(([process, tid, name]) => ({ process, tid, name: strings[name] }));
    return { meta, functions, frames, places, nodes, rows, processes, threads };
  }
  function tree(columns, count2, places) {
    const n = count2 + 1;
    const depth = new Int32Array(n);
    columns.plain(count2, depth.subarray(1));
    const place = columns.plain(count2, new Float64Array(count2));
    const nodes = {
      n,
      depth,
      parent: new Int32Array(n),
      end: new Int32Array(n),
      frame: new Int32Array(n),
      place: new Int32Array(n),
      several: new Uint8Array(n),
      tiers: new Uint8Array(n)
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
  function address(places, id) {
    const low = places.low[id];
    const high = places.high[id];
    if (!low && !high) return "";
    return high ? `0x${high.toString(16)}${low.toString(16).padStart(8, "0")}` : `0x${low.toString(16)}`;
  }

  // src/colors.js
  var INLINE = { key: "inlined", name: "Inlined", about: "a function that the compiler put into its caller" };
  var OTHER = { key: "other", name: "Other", about: "a kind this viewer does not know" };
  var KINDS = [];
  function setKinds(rows) {
    KINDS = rows.map(([number2, key, name, about]) => ({ flags: number2 << 2, key: key in FILLS ? key : "other", name: plain(name), about: plain(about) }));
    const natives = KINDS.filter(({ key }) => key === "native");
    KINDS.splice(1, 0, ...natives.slice(0, 1).map(({ flags }) => ({ ...INLINE, flags: flags | INLINED })));
  }
  var FILLS = {
    native: [[214, 72, 79], [215, 40, 36]],
    inlined: [[262, 62, 87], [262, 26, 44]],
    kernel: [[20, 86, 77], [16, 52, 38]],
    go: [[174, 46, 71], [176, 48, 28]],
    jit: [[84, 50, 72], [88, 36, 31]],
    script: [[50, 74, 74], [48, 52, 33]],
    marker: [[0, 0, 78], [0, 0, 32]],
    other: [[320, 40, 82], [320, 24, 38]],
    group: [[222, 18, 86], [222, 12, 25]]
  };
  var TONES = [-2.5, 0, 2, 4];
  function kindOf(flags) {
    const own = flags & ~GUESSED;
    const kind = KINDS.find(({ flags: known }) => known === (own & ~INLINED)) ?? OTHER;
    if (!(own & INLINED)) return kind;
    return KINDS.find(({ flags: known }) => known === own) ?? (kind.key === "native" ? { ...INLINE, flags: own } : kind);
  }
  function allKinds() {
    return KINDS.some(({ name }) => name === OTHER.name) ? KINDS : [...KINDS, OTHER];
  }
  function isMarker(flags) {
    return flags >= 0 && kindOf(flags).key === "marker";
  }
  function kindText(flags) {
    return `${kindOf(flags).name}${flags & GUESSED ? ", guessed" : ""}`;
  }
  var PAINTS = Object.keys(FILLS);
  function palette(dark) {
    const tones = {};
    for (const [key, [light, night]] of Object.entries(FILLS)) {
      const [h2, s, l] = dark ? night : light;
      tones[key] = TONES.map((tone) => `hsl(${h2} ${s}% ${l + (dark ? tone * 1.1 : tone * 1.2)}%)`);
    }
    const byFlags = Array.from({ length: 256 }, (_, flags) => tones[kindOf(flags).key]);
    return {
      fill: (flags, seed) => byFlags[flags & 255][seed & 3],
      group: (seed) => tones.group[seed & 3],
      swatch: (key) => tones[key][1],
      match: dark ? "#e3b341" : "#ffd33d",
      matchText: "#1b1400",
      text: dark ? "#eceff4" : "#16202e",
      faint: dark ? 0.3 : 0.34,
      outline: dark ? "#ffffff" : "#0b1f44",
      hatch: dark ? "rgba(255,255,255,.22)" : "rgba(0,0,0,.20)",
      background: dark ? "#14171c" : "#ffffff"
    };
  }

  // src/dom.js
  function h(spec, props, ...children) {
    const [tag, ...classes] = spec.split(".");
    const element = document.createElement(tag || "div");
    if (classes.length) element.className = classes.join(" ");
    for (const [key, value] of Object.entries(props ?? {})) {
      if (value === null || value === void 0 || value === false) continue;
      if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
      else if (key === "css") for (const [name, v] of Object.entries(value)) element.style.setProperty(name, v);
      else if (key in element && !key.includes("-") && key !== "role") element[key] = value;
      else element.setAttribute(key, value === true ? "" : value);
    }
    add(element, children);
    return element;
  }
  function add(element, children) {
    for (const child of children) {
      if (Array.isArray(child)) add(element, child);
      else if (child !== null && child !== void 0 && child !== false) element.append(child);
    }
  }
  function fill(element, ...children) {
    element.replaceChildren();
    add(element, children);
    return element;
  }
  var ICONS = {
    sun: "M8 4.5a3.5 3.5 0 1 0 0 7 3.5 3.5 0 0 0 0-7ZM8 .8v1.7M8 13.5v1.7M.8 8h1.7M13.5 8h1.7M2.9 2.9l1.2 1.2M11.9 11.9l1.2 1.2M2.9 13.1l1.2-1.2M11.9 4.1l1.2-1.2",
    search: "M7 2.2a4.8 4.8 0 1 0 0 9.6 4.8 4.8 0 0 0 0-9.6ZM10.6 10.6 14 14",
    flip: "M4.5 13.5v-11M2 5l2.5-2.5L7 5M11.5 2.5v11M9 11l2.5 2.5L14 11",
    copy: "M5.5 5.5h8v8h-8zM10.5 5.5v-3h-8v8h3",
    close: "M4 4l8 8M12 4l-8 8",
    down: "M4 6.5 8 10.5l4-4",
    warn: "M8 2 1.5 13.5h13ZM8 6.3v3.6M8 11.6v.4",
    check: "M3 8.5 6.5 12 13 4.5",
    callers: "M8 1.5v13M3.5 5 8 1.5 12.5 5M3.5 11 8 14.5l4.5-3.5",
    panel: "M2 3h12v10H2zM10 3v10"
  };
  function icon(name) {
    const ns = "http://www.w3.org/2000/svg";
    const svg = document.createElementNS(ns, "svg");
    svg.setAttribute("viewBox", "0 0 16 16");
    svg.setAttribute("class", "icon");
    svg.setAttribute("aria-hidden", "true");
    const path = document.createElementNS(ns, "path");
    path.setAttribute("d", ICONS[name]);
    svg.append(path);
    return svg;
  }
  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      const area = h("textarea.offscreen", { value: text, readOnly: true });
      document.body.append(area);
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      return done;
    }
  }
  function popover(button, panel, onopen) {
    const wrap = h("div.pop", {}, button, panel);
    panel.hidden = true;
    button.setAttribute("aria-haspopup", "dialog");
    const set = (open) => {
      panel.hidden = !open;
      button.setAttribute("aria-expanded", String(open));
      if (!open) return;
      onopen?.();
      panel.style.removeProperty("transform");
      const over = panel.getBoundingClientRect().right - (window.innerWidth - 8);
      if (over > 0) panel.style.setProperty("transform", `translateX(${-over}px)`);
      panel.querySelector("input")?.focus();
    };
    set(false);
    button.addEventListener("click", () => set(panel.hidden));
    document.addEventListener("mousedown", (event) => {
      if (!wrap.contains(event.target)) set(false);
    });
    wrap.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || panel.hidden) return;
      set(false);
      button.focus();
      event.stopPropagation();
    });
    wrap.addEventListener("focusout", (event) => {
      if (event.relatedTarget && !wrap.contains(event.relatedTarget)) set(false);
    });
    wrap.close = () => set(false);
    return wrap;
  }

  // src/details.js
  function nameOf(profile, tree2, node) {
    const frame = tree2.frame[node];
    if (frame >= 0) return profile.functions.name[profile.frames.function[frame]] || "(no name)";
    return frame === -1 ? tree2.rootName ?? "all" : tree2.labels[-2 - frame] ?? "";
  }
  function describe(profile, tree2, node, scale2, whole2) {
    const frame = tree2.frame[node];
    const total = tree2.total[node];
    const self = tree2.self[node];
    const value = (v) => ({ main: scale2.main(v), time: scale2.time(v), share: percent(whole2 ? v / whole2 : 0) });
    const out = { name: nameOf(profile, tree2, node), fn: -1, flags: -1, where: "", module: "", total: value(total), self: value(self) };
    const parent = tree2.parent[node];
    if (parent >= 0 && tree2.total[parent] > 0) out.ofParent = percent(total / tree2.total[parent]);
    if (frame < 0) return out;
    const { functions, frames, places, nodes } = profile;
    const fn = frames.function[frame];
    out.fn = fn;
    out.flags = frames.flags[frame];
    out.kind = kindText(out.flags);
    out.module = functions.module[fn];
    const origin2 = tree2.origin ? tree2.origin[node] : node;
    const place = origin2 >= 0 ? nodes.place[origin2] : -1;
    const line = place >= 0 && places.line[place] ? places.line[place] : 0;
    if (place >= 0 && places.tier[place]) {
      out.kind += `, ${profile.meta.tiers[places.tier[place] - 1] ?? "?"}`;
      if (nodes.tiers[origin2] || tree2.merged) out.kind += " and perhaps otherwise";
    }
    const more = origin2 >= 0 && (nodes.several[origin2] || tree2.merged);
    if (functions.file[fn]) {
      out.where = functions.file[fn] + (line ? `:${line}` : functions.line[fn] ? `:${functions.line[fn]}` : "");
      if (line && more) out.where += " and other lines";
    }
    if (place >= 0) {
      const at = address(places, place);
      if (at) out.address = at + (more ? " and others" : "");
    }
    return out;
  }
  var Tooltip = class {
    constructor() {
      this.element = h("div.tooltip", { role: "tooltip", hidden: true });
      document.body.append(this.element);
    }
    show(d, event) {
      const { element } = this;
      const row = (name, v) => v ? [h("dt", {}, name), h("dd", {}, h("bdi", {}, cut(v, 240)))] : null;
      const weight = (name, v) => [h("dt", {}, name), h("dd", {}, h("b", {}, v.share), ` ${v.main}${v.time ? ` · ${v.time}` : ""}`)];
      fill(
        element,
        h("p.name", {}, h("bdi", {}, cut(d.name, 420))),
        d.kind ? h("p.kind", {}, h(`span.swatch${isMarker(d.flags) ? ".hatched" : ""}`, { css: { "background-color": `var(--kind-${kindOf(d.flags).key})` } }), d.kind, d.kind.includes("guessed") ? " by frame pointer: likely, not certain" : "") : null,
        h("dl", {}, weight("Total", d.total), d.fn >= 0 ? weight("Self", d.self) : null, row("Of parent", d.ofParent), row("Source", d.where), row("Module", d.module), row("Address", d.address))
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
  };
  function foot(host, d, on) {
    if (!d) {
      fill(host, h("p.hint", {}, "Click a frame to zoom into it. Arrow keys walk, Enter zooms, Esc goes back, / searches, ? lists all keys."));
      return;
    }
    const action = (title, name, run) => h("button", { type: "button", onclick: run }, icon(name), title);
    fill(
      host,
      h(
        "div.what",
        {},
        d.kind ? h(`span.swatch${isMarker(d.flags) ? ".hatched" : ""}`, { css: { "background-color": `var(--kind-${kindOf(d.flags).key})` }, title: d.kind }) : null,
        h("bdi.name", { title: cut(d.name, 600) }, cut(d.name, 500)),
        h("span.place", {}, h("bdi", {}, cut([d.where || d.address, d.module ? base(d.module) : ""].filter(Boolean).join(" · "), 160)))
      ),
      h("div.weights", {}, h("span", {}, "total ", h("b", {}, d.total.share), ` ${d.total.time || d.total.main}`), d.fn >= 0 ? h("span", {}, "self ", h("b", {}, d.self.share), ` ${d.self.time || d.self.main}`) : null),
      d.fn >= 0 ? h("div.actions", {}, action("Callers and callees", "callers", () => on.open(d.fn)), action("Find all", "search", () => on.find(d.fn)), action("Copy name", "copy", () => on.copy(d.fn))) : null
    );
  }

  // src/filter.js
  var MOST = 300;
  function processText(process) {
    return process.pid === null ? process.name || "unknown process" : `${process.name || "process"} (${process.pid})`;
  }
  function threadWeights(profile, type) {
    const out = new Float64Array(profile.threads.length + 1);
    const { rows } = profile;
    for (let i = 0; i < rows.n; i += 1) out[rows.thread[i]] += rows.values[type][i];
    return out;
  }
  function keepOf(profile, { processes, threads }) {
    if (!processes.length && !threads.length) return null;
    const keep = new Uint8Array(profile.threads.length + 1);
    const whole2 = new Set(processes);
    profile.threads.forEach((thread, i) => {
      if (whole2.has(thread.process)) keep[i + 1] = 1;
    });
    for (const thread of threads) if (thread < profile.threads.length) keep[thread + 1] = 1;
    return keep;
  }
  function groupsOf(profile, group) {
    if (group === "none") return null;
    const labels = [];
    const ids = /* @__PURE__ */ new Map();
    const label = (key, text) => {
      if (!ids.has(key)) {
        ids.set(key, labels.length);
        labels.push(text);
      }
      return ids.get(key);
    };
    const level = (each) => {
      const out = new Int32Array(profile.threads.length + 1);
      out[0] = label("?", "thread unknown");
      profile.threads.forEach((thread, i) => {
        out[i + 1] = each(thread, profile.processes[thread.process]);
      });
      return out;
    };
    const program = (_, process2) => label(`n${process2.name}`, process2.name || "no name");
    const process = (thread, p) => label(`p${thread.process}`, processText(p));
    const single = (thread) => label(`t${thread.process}.${thread.tid}.${thread.name}`, `${thread.name || "thread"} [${thread.tid}]`);
    const levels = { program: [program], process: [process], thread: [process, single] }[group];
    return { labels, levels: levels.map(level) };
  }
  function filterButton(profile, { get, set, weights }) {
    const text = h("span", {}, "");
    const button = h("button.field", { type: "button" }, text, icon("down"));
    const list = h("ul.choices", { "aria-label": "processes and threads" });
    const search = h("input", { type: "search", placeholder: "Name, pid or tid", "aria-label": "find a process or thread", spellcheck: false });
    const open = /* @__PURE__ */ new Set();
    const clear = h("button.quiet", { type: "button", onclick: () => set({ processes: [], threads: [] }) }, "Show all");
    const panel = h("div.panel.filter", { role: "dialog", "aria-label": "Processes and threads" }, h("div.panelhead", {}, search, clear), list);
    const members = profile.processes.map(() => []);
    profile.threads.forEach((thread, i) => members[thread.process].push(i));
    const paint = () => {
      const { processes, threads } = get();
      const chosen = processes.length + threads.length;
      text.textContent = "All processes";
      if (chosen === 1) {
        text.textContent = processes.length ? cut(processText(profile.processes[processes[0]] ?? { pid: "?" }), 28) : cut(profile.threads[threads[0]]?.name ?? "?", 28);
      } else if (chosen) text.textContent = `${chosen} chosen`;
      button.classList.toggle("on", chosen > 0);
      clear.disabled = chosen === 0;
      if (panel.hidden) return;
      const weight = weights();
      const whole2 = weight.reduce((a, b) => a + b, 0);
      const sum = (p) => members[p].reduce((a, t) => a + weight[t + 1], 0);
      const query = search.value.trim().toLowerCase();
      const hit = (t) => `${t.name} ${t.tid}`.toLowerCase().includes(query);
      const rows = profile.processes.map((process, p) => ({ process, p, weight: sum(p) })).filter(({ process, p, weight: w }) => {
        if (w <= 0) return false;
        const named = `${process.name} ${process.pid} ${process.executable}`.toLowerCase().includes(query);
        return named || members[p].some((t) => hit(profile.threads[t]));
      }).sort((a, b) => b.weight - a.weight || a.p - b.p);
      const items = [];
      const toggle = (key, id) => {
        const now = get()[key];
        set({ [key]: now.includes(id) ? now.filter((x) => x !== id) : [...now, id] });
      };
      const line = (spec, name, title, w, checked, change, extra) => h(
        spec,
        {},
        extra,
        h(
          "label",
          { title },
          h("input", { type: "checkbox", checked, onchange: change }),
          h("bdi", {}, cut(name, 80)),
          h("span.share", {}, percent(whole2 ? w / whole2 : 0))
        )
      );
      for (const { process, p, weight: w } of rows) {
        if (items.length >= MOST) {
          items.push(h("li.note", {}, "More than can be listed; type to narrow."));
          break;
        }
        const shown = open.has(p) || query && members[p].some((t) => hit(profile.threads[t]));
        const expand = h(
          "button.quiet.expand",
          {
            type: "button",
            "aria-expanded": String(Boolean(shown)),
            "aria-label": `threads of ${cut(processText(process), 60)}`,
            onclick: () => {
              if (!open.delete(p)) open.add(p);
              paint();
            }
          },
          icon("down")
        );
        const whole_ = processes.includes(p);
        items.push(line("li", processText(process), cut(process.executable, 300), w, whole_, () => toggle("processes", p), expand));
        if (!shown) continue;
        const inner = members[p].filter((t) => weight[t + 1] > 0).sort((a, b) => weight[b + 1] - weight[a + 1]);
        for (const t of inner.slice(0, MOST)) {
          const thread = profile.threads[t];
          const name = `${thread.name || "thread"} [${thread.tid}]`;
          items.push(line("li.inner", name, "", weight[t + 1], whole_ || threads.includes(t), () => toggle("threads", t)));
        }
      }
      const scrolled = list.scrollTop;
      const at = [...list.querySelectorAll("input, button")].indexOf(document.activeElement);
      fill(list, items);
      list.scrollTop = scrolled;
      if (at >= 0) list.querySelectorAll("input, button")[at]?.focus({ preventScroll: true });
    };
    search.addEventListener("input", paint);
    const wrap = popover(button, panel, paint);
    wrap.paint = paint;
    return wrap;
  }

  // src/flame.js
  var ROW = 20;
  var FONT = '12px system-ui, "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans", Arial, sans-serif';
  var Flame = class {
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
      this.shorts = /* @__PURE__ */ new Map();
      this.widths = /* @__PURE__ */ new Map();
      this.host = host;
      host.classList.add("flame");
      this.scroller = host.appendChild(document.createElement("div"));
      this.scroller.className = "scroller";
      this.spacer = this.scroller.appendChild(document.createElement("div"));
      this.spacer.className = "spacer";
      this.window = this.spacer.appendChild(document.createElement("div"));
      this.window.className = "window";
      this.canvas = this.window.appendChild(document.createElement("canvas"));
      this.overlay = this.window.appendChild(document.createElement("canvas"));
      this.overlay.className = "overlay";
      this.outlines = this.overlay.getContext("2d");
      this.canvas.tabIndex = 0;
      this.canvas.setAttribute("role", "application");
      this.canvas.setAttribute("aria-roledescription", "flame graph");
      this.canvas.setAttribute("aria-label", label);
      this.context = this.canvas.getContext("2d");
      this.listen();
      new ResizeObserver(() => this.resized()).observe(this.scroller);
    }
    listen() {
      const { canvas, scroller } = this;
      scroller.addEventListener("scroll", () => this.draw());
      canvas.addEventListener("mousemove", (event) => {
        const node = this.at(event.offsetX, event.offsetY);
        if (node !== this.hovered) {
          this.hovered = node;
          this.outline();
        }
        canvas.style.cursor = node >= 0 ? "pointer" : "default";
        if (node >= 0) this.on.hover(node, event);
        else this.on.leave();
      });
      canvas.addEventListener("mouseleave", () => {
        this.hovered = -1;
        this.outline();
        this.on.leave();
      });
      canvas.addEventListener("click", (event) => {
        const node = this.at(event.offsetX, event.offsetY);
        if (node < 0) return;
        this.selected = node;
        this.outline();
        this.on.select(node);
        this.on.zoom(node);
      });
      canvas.addEventListener("keydown", (event) => this.key(event));
    }
    /** Shows `tree` from its root. */
    show(tree2, { zoom = 0, match = this.match, rootAtBottom = this.rootAtBottom } = {}) {
      this.tree = tree2;
      this.match = match;
      this.rootAtBottom = rootAtBottom;
      this.hovered = -1;
      this.selected = -1;
      this.zoomTo(zoom < tree2.n ? zoom : 0);
    }
    setMatch(match) {
      this.match = match;
      this.draw();
    }
    setPalette(palette2) {
      this.palette = palette2;
      this.draw();
    }
    /** Makes `node` as wide as the graph. */
    zoomTo(node) {
      this.zoomed = node;
      const { tree: tree2 } = this;
      const before = this.scroller.scrollTop;
      let deepest = 0;
      const minimum = tree2.total[node] / 6e3;
      for (let i = node; i < tree2.end[node]; ) {
        if (tree2.total[i] <= 0 || tree2.total[i] < minimum) i = tree2.end[i];
        else {
          if (tree2.depth[i] > deepest) deepest = tree2.depth[i];
          i += 1;
        }
      }
      this.rows = deepest + 1;
      this.resized();
      const row = tree2.depth[node];
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
      const { context: c, tree: tree2, palette: palette2, zoomed, width, height, ratio } = this;
      if (!palette2 || !width || !height) return;
      c.setTransform(ratio, 0, 0, ratio, 0, 0);
      c.fillStyle = palette2.background;
      c.fillRect(0, 0, width, height);
      c.font = FONT;
      c.textBaseline = "middle";
      for (let up = tree2.parent[zoomed]; up >= 0; up = tree2.parent[up]) this.box(up, 0, width, 0.55);
      const { x, total, depth, end } = tree2;
      const x0 = x[zoomed];
      const perWeight = total[zoomed] > 0 ? width / total[zoomed] : 0;
      const drawn = new Float64Array(tree2.height + 1).fill(-1);
      const pixel = 1 / ratio;
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
      const { tree: tree2, zoomed, outlines: c, width, height, ratio } = this;
      if (!tree2 || !width || !this.palette) return;
      c.setTransform(ratio, 0, 0, ratio, 0, 0);
      c.clearRect(0, 0, width, height);
      const perWeight = tree2.total[zoomed] > 0 ? width / tree2.total[zoomed] : 0;
      if (this.selected >= 0) this.frameBox(this.selected, tree2.x[zoomed], perWeight, 2);
      if (this.hovered >= 0 && this.hovered !== this.selected) this.frameBox(this.hovered, tree2.x[zoomed], perWeight, 1);
    }
    box(node, left, width, alpha) {
      const { context: c, tree: tree2, palette: palette2, profile } = this;
      const y = this.top(tree2.depth[node]);
      if (y >= this.height || y + ROW <= 0) return;
      const frame = tree2.frame[node];
      const flags = frame >= 0 ? profile.frames.flags[frame] : -1;
      const fn = frame >= 0 ? profile.frames.function[frame] : -1;
      const hit = this.match !== null && fn >= 0 && this.match[fn] === 1;
      c.fillStyle = hit ? palette2.match : flags < 0 ? palette2.group(frame === -1 ? 1 : 2) : palette2.fill(flags, fn * 7);
      if (this.match !== null && !hit) alpha *= palette2.faint;
      c.globalAlpha = alpha;
      const w = width > 2.5 ? width - 1 : width;
      c.fillRect(left, y, w, ROW - 1);
      if (width > 6 && isMarker(flags)) this.hatch(left, y, w);
      if (width > 14 && flags >= 0 && flags & GUESSED) this.guessed(left, y, w);
      if (width > 28) {
        const whole2 = this.name(tree2, node);
        const text = this.fit(fn, whole2, (width - 9) * (flags < 0 ? 0.88 : 1));
        if (text) {
          c.globalAlpha = this.match !== null && !hit ? 0.62 : alpha < 1 ? 0.75 : 1;
          c.fillStyle = hit ? palette2.matchText : palette2.text;
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
      const { outlines: c, tree: tree2, zoomed } = this;
      const above = tree2.depth[node] < tree2.depth[zoomed];
      const left = above ? 0 : Math.max(0, (tree2.x[node] - x0) * perWeight);
      const w = above ? this.width : Math.min(this.width - left, tree2.total[node] * perWeight);
      if (w <= 0) return;
      c.strokeStyle = this.palette.outline;
      c.lineWidth = thickness;
      c.strokeRect(left + thickness / 2, this.top(tree2.depth[node]) + thickness / 2, Math.max(1, w - 1 - thickness), ROW - 1 - thickness);
      c.lineWidth = 1;
    }
    /** As much of a name as `room` pixels hold: whole, without its parameters, or cut. */
    fit(fn, whole2, room) {
      const limited = whole2.length > 400 ? whole2.slice(0, 400) : whole2;
      if (this.measure(limited) <= room) return limited;
      let text = limited;
      if (fn >= 0) {
        text = this.shorts.get(fn);
        if (text === void 0) this.shorts.set(fn, text = short(limited));
        if (this.measure(text) <= room) return text;
      }
      const dots = this.measure("…");
      let used = 0;
      let i = 0;
      for (const c of text) {
        used += this.measure(c);
        if (used > room - dots) break;
        i += c.length;
      }
      return i > 1 ? `${text.slice(0, i)}…` : "";
    }
    /** Width of `text`, as the sum of its characters: within a pixel or two, and hundreds of times faster than asking. */
    measure(text) {
      let sum = 0;
      for (const c of text) {
        let w = this.widths.get(c);
        if (w === void 0) {
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
      const { tree: tree2, zoomed } = this;
      if (!tree2 || !tree2.total[zoomed]) return -1;
      const scroll = this.scroller.scrollTop;
      const row = this.rootAtBottom ? Math.floor((Math.max(this.rows * ROW, this.height) - py - scroll) / ROW) : Math.floor((py + scroll) / ROW);
      const base2 = tree2.depth[zoomed];
      if (row < 0) return -1;
      if (row <= base2) {
        let node2 = zoomed;
        while (tree2.depth[node2] > row) node2 = tree2.parent[node2];
        return node2;
      }
      const weight = tree2.x[zoomed] + px / this.width * tree2.total[zoomed];
      let node = zoomed;
      while (tree2.depth[node] < row) {
        let found = -1;
        for (let child = node + 1; child < tree2.end[node]; child = tree2.end[child]) {
          if (weight >= tree2.x[child] && weight < tree2.x[child] + tree2.total[child]) {
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
      const { tree: tree2 } = this;
      if (!tree2 || event.ctrlKey || event.metaKey || event.altKey) return;
      let node = this.selected >= 0 ? this.selected : this.zoomed;
      const down = this.rootAtBottom ? "ArrowUp" : "ArrowDown";
      const up = this.rootAtBottom ? "ArrowDown" : "ArrowUp";
      if (event.key === down) node = this.child(node, 0);
      else if (event.key === up) node = tree2.parent[node];
      else if (event.key === "ArrowRight") node = this.sibling(node, 1);
      else if (event.key === "ArrowLeft") node = this.sibling(node, -1);
      else if (event.key === "Home") node = 0;
      else if (event.key === "Enter" || event.key === " ") this.on.zoom(node);
      else return;
      event.preventDefault();
      if (node < 0) return;
      this.selected = node;
      this.reveal(node);
      this.on.select(node);
      this.outline();
    }
    child(node) {
      const { tree: tree2 } = this;
      for (let c = node + 1; c < tree2.end[node]; c = tree2.end[c]) if (tree2.total[c] > 0) return c;
      return node;
    }
    sibling(node, step) {
      const { tree: tree2 } = this;
      const p = tree2.parent[node];
      if (p < 0) return node;
      const all = [];
      for (let c = p + 1; c < tree2.end[p]; c = tree2.end[c]) if (tree2.total[c] > 0) all.push(c);
      return all[all.indexOf(node) + step] ?? node;
    }
    /** Brings a row into view, and zooms out as far as the node needs. */
    reveal(node) {
      const { tree: tree2, zoomed } = this;
      const inside = node >= zoomed && node < tree2.end[zoomed];
      if (!inside && tree2.depth[node] >= tree2.depth[zoomed]) this.on.zoom(tree2.parent[node]);
      const y = this.top(tree2.depth[node]);
      if (y < 0) this.scroller.scrollTop += y - ROW;
      else if (y + ROW > this.height) this.scroller.scrollTop += y + 2 * ROW - this.height;
    }
  };

  // src/help.js
  var KEYS = [
    ["/", "find"],
    ["1  2  3", "flame graph, top functions, callers and callees"],
    ["arrows", "walk the frames"],
    ["Enter", "zoom into the frame"],
    ["Esc", "zoom out, or end the search"],
    ["g", "callers and callees of the frame"],
    ["c", "copy its name"],
    ["i", "root at the top or bottom"],
    ["t", "light or dark"]
  ];
  function helpButton(producer) {
    const kind = ({ key, name, about }) => h("li", {}, h(`span.swatch${key === "marker" ? ".hatched" : ""}`, { css: { "background-color": `var(--kind-${key})` } }), h("b", {}, name), ` ${about}`);
    const panel = h(
      "div.panel.help",
      { role: "dialog", "aria-label": "Help" },
      h("h2", {}, "Reading it"),
      h(
        "p",
        {},
        "A box is a function; the boxes that grow from it, away from the root, are what it calls. Its width is its weight: how many samples found it there. Left to right is not time."
      ),
      h("ul.legend", {}, KINDS.map(kind), h("li", {}, h("span.swatch.dashed"), h("b", {}, "Guessed"), " found by the frame pointer alone: likely, not certain")),
      h("h2", {}, "Keys"),
      h("table.keys", {}, KEYS.map(([key, what]) => h("tr", {}, h("td", {}, h("kbd", {}, key)), h("td", {}, what)))),
      producer ? h("p.hint", {}, `Recorded by ${cut(producer, 80)}.`) : null
    );
    return popover(h("button.square", { type: "button", title: "Help", "aria-label": "Help" }, "?"), panel);
  }

  // src/state.js
  var INITIAL = {
    view: "flame",
    type: null,
    group: null,
    q: "",
    root: "top",
    zoom: 0,
    fn: -1,
    sort: "-self",
    processes: [],
    threads: [],
    theme: "",
    side: true
  };
  var VIEWS = ["flame", "top", "callers"];
  var GROUPS = ["none", "program", "process", "thread"];
  var THEMES = ["", "light", "dark"];
  var SORTS = /^-?(name|module|self|total)$/;
  var number = (text) => /^\d{1,9}$/.test(text) ? Number(text) : null;
  var numbers = (text) => text.split(".").map(number).filter((n) => n !== null);
  function read(hash) {
    const state = { ...INITIAL };
    const params = new URLSearchParams(hash.replace(/^#/, ""));
    const take = (key, parse2) => {
      const value = params.has(key) ? parse2(params.get(key)) : null;
      if (value !== null && value !== void 0) state[key] = value;
    };
    const among = (list) => (text) => list.includes(text) ? text : null;
    take("view", among(VIEWS));
    take("type", number);
    take("group", among(GROUPS));
    take("q", (text) => text.slice(0, 1e3));
    take("root", among(["top", "bottom"]));
    take("zoom", number);
    take("fn", number);
    take("sort", (text) => SORTS.test(text) ? text : null);
    take("processes", numbers);
    take("threads", numbers);
    take("theme", among(THEMES));
    take("side", (text) => text !== "off");
    return state;
  }
  function write(state) {
    const params = new URLSearchParams();
    for (const [key, first] of Object.entries(INITIAL)) {
      const value = state[key];
      if (Array.isArray(value)) {
        if (value.length) params.set(key, value.join("."));
      } else if (key === "side") {
        if (!value) params.set(key, "off");
      } else if (value !== first && value !== null) {
        params.set(key, String(value));
      }
    }
    const text = params.toString();
    return text ? `#${text}` : "";
  }

  // src/summary.js
  function fact(name, value, title) {
    if (!value) return null;
    return h("div.fact", { title: title ?? null }, h("dt", {}, name), h("dd", {}, h("bdi", {}, cut(value, 80))));
  }
  function clock(ms) {
    const date = new Date(ms);
    return Number.isNaN(date.getTime()) ? "" : `${date.toISOString().slice(0, 16).replace("T", " ")} UTC`;
  }
  function lossSums(meta) {
    let lost = 0;
    let other = 0;
    for (const [reason, n] of meta.losses) {
      if (reason.startsWith("lost")) lost += n;
      else other += n;
    }
    return { lost, other };
  }
  function incompleteWeight(profile, type, keep = null) {
    const { nodes, rows, frames } = profile;
    const marked = new Uint8Array(nodes.n);
    for (let i = 1; i < nodes.n; i += 1) {
      const top = nodes.depth[i] === 1;
      marked[i] = top ? (frames.flags[nodes.frame[i]] & 15) === 4 ? 1 : 0 : marked[nodes.parent[i]];
    }
    let sum = 0;
    for (let i = 0; i < rows.n; i += 1) if (marked[rows.node[i]] && (!keep || keep[rows.thread[i]])) sum += rows.values[type][i];
    return sum;
  }
  function lossBadge(profile, totals) {
    const { meta } = profile;
    const { lost } = lossSums(meta);
    const share = lost + totals.samples > 0 ? lost / (lost + totals.samples) : 0;
    const incomplete = totals.whole ? totals.incomplete / totals.whole : 0;
    const none = !meta.losses.some(([, n]) => n > 0) && !totals.incomplete;
    const parts = [];
    if (lost) parts.push(`${count(lost)} lost (${percent(share)})`);
    if (totals.incomplete) parts.push(`${percent(incomplete)} incomplete`);
    if (!parts.length) parts.push(none ? meta.origin.producer ? "Nothing lost" : "No losses reported" : "Losses reported");
    const grave = share > 0.01 || incomplete > 0.02;
    const button = h(
      `button.badge.${none ? "good" : grave ? "bad" : "note"}`,
      { type: "button" },
      icon(none ? "check" : "warn"),
      parts.join(" · "),
      icon("down")
    );
    const rows = meta.losses.map(
      ([reason, n]) => h("tr", {}, h("td", {}, h("bdi", {}, cut(plain(reason), 300))), h("td.number", {}, count(n)), h("td.number", {}, totals.samples ? percent(n / (totals.samples + lost)) : ""))
    );
    const panel = h(
      "div.panel.losses",
      { role: "dialog", "aria-label": "What is missing" },
      h("h2", {}, "What is missing from this profile"),
      rows.length ? h("table", {}, h("thead", {}, h("tr", {}, h("th", {}, "Reason"), h("th.number", {}, "Count"), h("th.number", {}, "Of samples"))), h("tbody", {}, rows)) : h("p", {}, meta.origin.producer ? "The recording reports no loss." : "The file does not report losses."),
      h(
        "p",
        {},
        totals.incomplete ? `${totals.text(totals.incomplete)} (${percent(incomplete)}) are on stacks that could not be followed to their root. They are drawn with a hatched frame that says why.` : "Every stack was followed to its root."
      ),
      meta.negative ? h("p", {}, `${count(meta.negative)} values below zero have no width and are left out.`) : null
    );
    return popover(button, panel);
  }
  function facts(profile, totals) {
    const { meta } = profile;
    const { origin: origin2 } = meta;
    const { period } = meta.types[meta.shown];
    const rate = origin2.frequency ? `${count(origin2.frequency)} Hz` : period[2] > 0 ? `1 per ${period[1] === "nanoseconds" ? duration(period[2]) : `${count(period[2])} ${plain(period[1])}`}` : "";
    const platform = [origin2.cpus ? `${count(origin2.cpus)} CPUs` : "", plain(origin2.arch)].filter(Boolean).join(", ");
    const used = profile.processes.length;
    const comments = meta.comments.map((text) => plain(text)).join("\n");
    return h(
      "div.facts",
      {},
      h(
        "dl",
        {},
        fact("Host", plain(origin2.host), platform),
        fact("Kernel", plain(origin2.kernel)),
        fact("Machine", platform),
        fact("Rate", rate, period[2] ? `period: ${count(period[2])} ${plain(period[1])} of ${plain(period[0])}` : null),
        fact("Duration", meta.duration_ns ? duration(meta.duration_ns) : ""),
        fact("Recorded", meta.start_ms ? clock(meta.start_ms) : "", new Date(meta.start_ms).toString()),
        fact("Samples", count(totals.samples)),
        used ? fact("Processes", `${count(used)}, ${count(profile.threads.length)} threads`) : null,
        comments ? fact("Comment", comments, cut(comments, 1e3)) : null
      ),
      lossBadge(profile, totals)
    );
  }
  function legend(kinds, whole2, incomplete) {
    if (!whole2) return null;
    const weights = /* @__PURE__ */ new Map();
    kinds.forEach((weight, flags) => {
      const { name } = kindOf(flags);
      if (weight > 0) weights.set(name, (weights.get(name) ?? 0) + weight);
    });
    const known = allKinds().map((kind) => ({ kind, weight: weights.get(kind.name) ?? 0 })).filter(({ weight }) => weight > 0);
    const stack = [...known];
    const marker = KINDS.find((kind) => kind.key === "marker");
    if (incomplete > 0 && !kinds[marker.flags]) known.push({ kind: marker, weight: incomplete });
    return h(
      "div.kinds",
      {},
      h("div.stack", { "aria-hidden": "true" }, stack.map(({ kind, weight }) => h("span", { css: { width: `${weight / whole2 * 100}%`, background: `var(--kind-${kind.key})` } }))),
      h(
        "ul.legend",
        { "aria-label": "Colours" },
        known.map(
          ({ kind, weight }) => h(
            "li",
            { title: `${kind.name}: ${kind.about}` },
            h(`span.swatch${kind.key === "marker" ? ".hatched" : ""}`, { css: { "background-color": `var(--kind-${kind.key})` } }),
            kind.name,
            h("span.share", {}, percent(weight / whole2))
          )
        )
      )
    );
  }
  function bars(items, whole2, onclick, describe2) {
    return h(
      "ol.bars",
      {},
      items.map(
        ({ id, name, module, weight, key }) => h(
          "li",
          {},
          h(
            "button",
            { type: "button", title: describe2(name, weight, module), onclick: () => onclick(id) },
            h("span.bar", { css: { width: `${whole2 ? weight / whole2 * 100 : 0}%`, background: key ? `var(--kind-${key})` : null } }),
            h("bdi.name", {}, cut(name, 200)),
            h("span.share", {}, percent(whole2 ? weight / whole2 : 0))
          )
        )
      )
    );
  }
  function side(host, { profile, weights, kinds, whole: whole2, incomplete, scale: scale2, threads, on }) {
    const { functions } = profile;
    host.hidden = !whole2;
    const text = (v) => [scale2.main(v), scale2.time(v)].filter(Boolean).join(" · ");
    const top = [];
    for (let f = 0; f < functions.n; f += 1) if (weights.self[f] > 0) top.push(f);
    top.sort((a, b) => weights.self[b] - weights.self[a]);
    const hot = top.slice(0, 10).map((f) => ({
      id: f,
      name: functions.name[f],
      module: functions.module[f],
      weight: weights.self[f],
      key: kindOf(functions.flags[f]).key
    }));
    const perProcess = new Float64Array(profile.processes.length);
    profile.threads.forEach((thread, i) => {
      perProcess[thread.process] += threads[i + 1];
    });
    const busy = [...perProcess.keys()].filter((p) => perProcess[p] > 0).sort((a, b) => perProcess[b] - perProcess[a]);
    const all = threads.reduce((a, b) => a + b, 0);
    fill(
      host,
      h("h2", {}, "Where the time goes".replace("time", scale2.name === "samples" || scale2.name === "cpu" ? "time" : scale2.name)),
      legend(kinds, whole2, incomplete),
      h("h3", {}, scale2.name === "samples" || scale2.name === "cpu" ? "Hottest functions" : "Top functions", h("span", {}, "self")),
      bars(hot, whole2, on.open, (name, v, module) => `${cut(name, 600)}
${module ? `${cut(module, 200)}
` : ""}${text(v)}
Show callers and callees`),
      busy.length > 1 ? [
        h("h3", {}, "Busiest processes", h("span", {}, "total")),
        bars(
          busy.slice(0, 8).map((p) => ({ id: p, name: processText(profile.processes[p]), weight: perProcess[p] })),
          all,
          on.process,
          (name, v) => `${cut(name, 300)}
${text(v)}
Show this process only`
        )
      ] : null
    );
  }

  // src/table.js
  var ROW2 = 28;
  var Table = class {
    constructor(host, { profile, on, narrow = false }) {
      this.profile = profile;
      this.on = on;
      this.narrow = narrow;
      this.list = [];
      this.selected = -1;
      this.sort = "-self";
      this.head = h("div.head", { role: "row" });
      this.body = h("div.rows", { role: "rowgroup" });
      this.scroller = h("div.scroller", { role: "presentation", tabIndex: 0, "aria-label": "functions", onscroll: () => this.paint() }, this.body);
      this.scroller.addEventListener("keydown", (event) => this.key(event));
      this.root = h(`div.table${narrow ? ".narrow" : ""}`, { role: "grid", "aria-label": "Functions" }, this.head, this.scroller);
      host.append(this.root);
      new ResizeObserver(() => this.paint()).observe(this.scroller);
    }
    /** `weights`: {self, total}; `match`: Uint8Array or null; `whole`: the weight that percentages are of. */
    show({ weights, whole: whole2, match, scale: scale2, sort, selected = this.selected }) {
      Object.assign(this, { weights, whole: whole2, scale: scale2, sort, selected });
      const { functions } = this.profile;
      const list = [];
      for (let f = 0; f < functions.n; f += 1) if (weights.total[f] > 0 && (!match || match[f])) list.push(f);
      const back = sort.startsWith("-") ? -1 : 1;
      const key = sort.replace("-", "");
      const text = (a, b) => a < b ? -1 : a > b ? 1 : 0;
      const orders = {
        self: (a, b) => weights.self[a] - weights.self[b] || weights.total[a] - weights.total[b],
        total: (a, b) => weights.total[a] - weights.total[b] || weights.self[a] - weights.self[b],
        name: (a, b) => text(functions.name[a], functions.name[b]),
        module: (a, b) => text(functions.module[a], functions.module[b]) || text(functions.name[a], functions.name[b])
      };
      const order = orders[key];
      list.sort((a, b) => back * order(a, b) || a - b);
      this.list = list;
      this.root.setAttribute("aria-rowcount", list.length + 1);
      this.columns();
      this.body.style.height = `${list.length * ROW2}px`;
      this.paint();
    }
    columns() {
      const column = (key, title, help) => {
        const on = this.sort.replace("-", "") === key;
        const descending = this.sort.startsWith("-");
        const mark = on ? descending ? " ▾" : " ▴" : "";
        const first = key === "self" || key === "total" ? "-" : "";
        const next = on ? descending ? key : `-${key}` : first + key;
        return h(
          `div.cell.${key}`,
          { role: "columnheader", "aria-sort": on ? descending ? "descending" : "ascending" : "none" },
          h("button", { type: "button", title: help, onclick: () => this.on.sort(next) }, title, h("span.mark", {}, mark))
        );
      };
      const bare = this.narrow ? [] : [column("module", "Module", "Executable or library")];
      fill(
        this.head,
        column("self", "Self", "In the function itself"),
        column("total", "Total", "In the function and all that it calls"),
        column("name", "Function", "Name of the function"),
        bare
      );
    }
    paint() {
      const { scroller, list } = this;
      const height = scroller.clientHeight;
      if (!height || !this.weights) return;
      const first = Math.max(0, Math.floor(scroller.scrollTop / ROW2) - 4);
      const last = Math.min(list.length, Math.ceil((scroller.scrollTop + height) / ROW2) + 4);
      const rows = [];
      for (let i = first; i < last; i += 1) rows.push(this.row(list[i], i));
      if (!list.length) rows.push(h("p.none", {}, "No function matches."));
      fill(this.body, rows);
    }
    row(f, i) {
      const { profile, weights, whole: whole2, scale: scale2 } = this;
      const { functions } = profile;
      const value = (key, v) => h(
        `div.cell.${key}`,
        { role: "gridcell", title: [scale2.main(v), scale2.time(v)].filter(Boolean).join(" · ") },
        h("span.bar", { css: { width: `${whole2 ? Math.min(100, v / whole2 * 100) : 0}%` } }),
        h("span.share", {}, percent(v / whole2)),
        this.narrow ? null : h("span.value", {}, scale2.time(v) || (scale2.bare ?? scale2.main)(v))
      );
      const kind = kindOf(functions.flags[f]);
      return h(
        `div.row${f === this.selected ? ".selected" : ""}`,
        {
          role: "row",
          "aria-rowindex": i + 2,
          "aria-selected": String(f === this.selected),
          css: { transform: `translateY(${i * ROW2}px)` },
          onclick: () => this.on.open(f)
        },
        value("self", weights.self[f]),
        value("total", weights.total[f]),
        h(
          "div.cell.name",
          { role: "gridcell" },
          h("span.swatch", { css: { background: `var(--kind-${kind.key})` }, title: kindText(functions.flags[f]) }),
          h("bdi", { title: cut(functions.name[f], 600) }, cut(functions.name[f], 400)),
          h(
            "button.quiet.onrow",
            {
              type: "button",
              tabIndex: -1,
              title: "Copy the name",
              "aria-label": "Copy the name",
              onclick: (event) => {
                event.stopPropagation();
                this.on.copy(f);
              }
            },
            icon("copy")
          )
        ),
        this.narrow ? null : h("div.cell.module", { role: "gridcell", title: cut(functions.module[f], 600) }, h("bdi", {}, cut(base(functions.module[f]), 200)))
      );
    }
    key(event) {
      const at = this.list.indexOf(this.selected);
      const page = Math.max(1, Math.floor(this.scroller.clientHeight / ROW2) - 1);
      const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
      if (event.key === "Enter" && at >= 0) this.on.open(this.selected);
      else if (event.key === "c" && at >= 0) this.on.copy(this.selected);
      else if (event.key in steps && this.list.length) {
        const to = Math.min(this.list.length - 1, Math.max(0, at + steps[event.key]));
        this.selected = this.list[to];
        const y = to * ROW2;
        if (y < this.scroller.scrollTop) this.scroller.scrollTop = y;
        else if (y + ROW2 > this.scroller.scrollTop + this.scroller.clientHeight) {
          this.scroller.scrollTop = y + ROW2 - this.scroller.clientHeight;
        }
        this.paint();
        this.on.select?.(this.selected);
      } else return;
      event.preventDefault();
      event.stopPropagation();
    }
  };

  // src/tree.js
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
      x: null
    };
  }
  function settle(tree2) {
    const { n, parent, total, end } = tree2;
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
      if (total[i] > 0 && tree2.depth[i] > depth) depth = tree2.depth[i];
    }
    tree2.x = x;
    tree2.height = depth + 1;
    if (n) end[0] = n;
    return tree2;
  }
  function build(profile, { type, keep, groups }) {
    const { nodes, rows } = profile;
    const values = rows.values[type];
    if (groups) return grouped(profile, values, keep, groups);
    const tree2 = { ...nodes, labels: [], origin: null, total: new Float64Array(nodes.n), self: null, x: null };
    for (let i = 0; i < rows.n; i += 1) {
      if (!keep || keep[rows.thread[i]]) tree2.total[rows.node[i]] += values[i];
    }
    tree2.self = tree2.total.slice();
    return settle(tree2);
  }
  function split(rows, list, values, label) {
    const parts = /* @__PURE__ */ new Map();
    for (const row of list) {
      const key = label[rows.thread[row]];
      let part = parts.get(key);
      if (!part) parts.set(key, part = { label: key, rows: [], weight: 0 });
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
  var Growing = class {
    constructor(room) {
      Object.assign(this, blank(room));
      this.n = 0;
    }
    push(frame, depth, parent, origin2) {
      if (this.n === this.frame.length) {
        for (const key of ["frame", "depth", "parent", "end", "origin", "total", "self"]) {
          const wider = new this[key].constructor(this.n * 2 + 16);
          wider.set(this[key]);
          this[key] = wider;
        }
      }
      const i = this.n++;
      this.frame[i] = frame;
      this.depth[i] = depth;
      this.parent[i] = parent;
      this.origin[i] = origin2;
      return i;
    }
    finish(labels) {
      const { n } = this;
      const tree2 = { n, labels };
      for (const key of ["frame", "depth", "parent", "end", "origin", "self"]) tree2[key] = this[key].subarray(0, n);
      tree2.total = this.self.slice(0, n);
      tree2.end.fill(0);
      for (let i = n - 1; i >= 0; i -= 1) {
        if (tree2.end[i] <= i) tree2.end[i] = i + 1;
        const p = tree2.parent[i];
        if (p >= 0 && tree2.end[p] < tree2.end[i]) tree2.end[p] = tree2.end[i];
      }
      return settle(tree2);
    }
  };
  function functionWeights(profile, tree2) {
    const { frames } = profile;
    const n = profile.functions.n;
    const self = new Float64Array(n);
    const total = new Float64Array(n);
    const open = new Int32Array(n);
    const path = new Int32Array(tree2.height + 2);
    let length = 0;
    const { frame, depth, end } = tree2;
    for (let i = 0; i < tree2.n; ) {
      if (tree2.total[i] === 0) {
        i = end[i];
        continue;
      }
      const d = depth[i];
      while (length > d) {
        const f2 = path[--length];
        if (f2 >= 0) open[f2] -= 1;
      }
      const f = frame[i] >= 0 ? frames.function[frame[i]] : -1;
      while (length < d) path[length++] = -1;
      path[length++] = f;
      if (f >= 0) {
        if (open[f]++ === 0) total[f] += tree2.total[i];
        self[f] += tree2.self[i];
      }
      i += 1;
    }
    return { self, total };
  }
  function kindWeights(profile, tree2) {
    const out = new Float64Array(256);
    for (let i = 0; i < tree2.n; i += 1) {
      if (tree2.self[i] > 0 && tree2.frame[i] >= 0) out[profile.frames.flags[tree2.frame[i]] & ~GUESSED] += tree2.self[i];
    }
    return out;
  }
  function matchedWeight(profile, tree2, match) {
    const { frames } = profile;
    let sum = 0;
    for (let i = 0; i < tree2.n; ) {
      const f = tree2.frame[i];
      if (tree2.total[i] === 0) i = tree2.end[i];
      else if (f >= 0 && match[frames.function[f]]) {
        sum += tree2.total[i];
        i = tree2.end[i];
      } else i += 1;
    }
    return sum;
  }
  function outermost(profile, tree2, fn) {
    const { frames } = profile;
    const list = [];
    for (let i = 0; i < tree2.n; ) {
      const f = tree2.frame[i];
      if (tree2.total[i] === 0) i = tree2.end[i];
      else if (f >= 0 && frames.function[f] === fn) {
        list.push(i);
        i = tree2.end[i];
      } else i += 1;
    }
    return list;
  }
  function callees(profile, tree2, fn) {
    const list = outermost(profile, tree2, fn);
    const next = new Int32Array(tree2.n).fill(-1);
    for (let i = 0; i + 1 < list.length; i += 1) next[list[i]] = list[i + 1];
    return merge(tree2, list, list[0] ?? -1, {
      next,
      expand(first, add2) {
        for (let at = first; at >= 0; at = next[at]) {
          for (let child = at + 1; child < tree2.end[at]; child = tree2.end[child]) {
            if (tree2.total[child] > 0) add2(child, child, tree2.total[child]);
          }
        }
      },
      alone(at, head, depth, out) {
        const shift = depth - tree2.depth[at];
        const path = [head];
        out.self[head] = tree2.self[at];
        for (let i = at + 1; i < tree2.end[at]; ) {
          if (tree2.total[i] === 0) {
            i = tree2.end[i];
            continue;
          }
          const d = tree2.depth[i] - tree2.depth[at];
          path[d] = out.push(tree2.frame[i], tree2.depth[i] + shift, path[d - 1], origin(tree2, i));
          out.self[path[d]] = tree2.self[i];
          i += 1;
        }
      }
    });
  }
  function callers(profile, tree2, fn) {
    const list = outermost(profile, tree2, fn);
    const at = Int32Array.from(list);
    const next = new Int32Array(list.length).fill(-1);
    for (let i = 0; i + 1 < list.length; i += 1) next[i] = i + 1;
    return merge(tree2, list, list.length ? 0 : -1, {
      next,
      expand(first, add2) {
        for (let o = first; o >= 0; ) {
          const following = next[o];
          const up = tree2.parent[at[o]];
          if (up > 0) {
            at[o] = up;
            add2(o, up, tree2.total[list[o]]);
          }
          o = following;
        }
      },
      alone(o, head, depth, out) {
        let below = head;
        for (let up = tree2.parent[at[o]]; up > 0; up = tree2.parent[up]) {
          depth += 1;
          below = out.push(tree2.frame[up], depth, below, origin(tree2, up));
        }
        out.self[below] = tree2.total[list[o]];
      }
    });
  }
  function origin(tree2, i) {
    return tree2.origin ? tree2.origin[i] : i;
  }
  function merge(tree2, starts, first, { next, expand, alone }) {
    const out = new Growing(1024);
    if (first < 0) return out.finish(tree2.labels);
    const whole2 = starts.reduce((sum, node) => sum + tree2.total[node], 0);
    const pending = [[{ frame: tree2.frame[starts[0]], first, weight: whole2, origin: origin(tree2, starts[0]) }, 0, -1]];
    const slot = /* @__PURE__ */ new Map();
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
        const frame = tree2.frame[at];
        let child = slot.get(frame);
        if (!child) {
          child = { frame, first: -1, weight: 0, origin: origin(tree2, at) };
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
    return out.finish(tree2.labels);
  }

  // src/main.js
  var App = class {
    constructor(profile, host) {
      this.profile = profile;
      this.host = host;
      const { meta } = profile;
      this.firstGroup = profile.processes.length > 1 ? "program" : "none";
      this.state = this.complete(read(location.hash));
      this.cache = {};
      this.tooltip = new Tooltip();
      this.layout();
      this.paint();
      window.addEventListener("hashchange", () => this.adopt());
      window.addEventListener("popstate", () => this.adopt());
      window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.theme());
      document.addEventListener("keydown", (event) => this.key(event));
    }
    /** `state` with what the profile decides filled in, and what it does not have taken out. */
    complete(state) {
      const { profile } = this;
      const { meta, processes, threads, functions } = profile;
      if (state.type === null || state.type >= meta.types.length) state.type = meta.shown;
      state.group ??= this.firstGroup;
      if (!processes.length) state.group = "none";
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
      const same = ["type", "group", "processes", "threads"].every((key) => this.state[key] === before[key]);
      if (!same && !("zoom" in change)) this.state.zoom = 0;
      const short2 = { ...this.state };
      if (short2.type === this.profile.meta.shown) short2.type = null;
      if (short2.group === this.firstGroup) short2.group = null;
      const address2 = write(short2) || "#";
      if (address2 !== location.hash) {
        try {
          if (step) history.pushState(null, "", address2);
          else history.replaceState(null, "", address2);
        } catch {
        }
      }
      this.paint();
    }
    layout() {
      const { profile, host } = this;
      const { meta } = profile;
      const { title: what } = meta.types[meta.shown];
      const target = plain(meta.origin.target);
      const title = !target ? plain(what) : what === "CPU profile" ? target : `${plain(what)}: ${target}`;
      document.title = cut([title, plain(meta.origin.host)].filter(Boolean).join(" on "), 120);
      this.live = h("div.offscreen", { role: "status", "aria-live": "polite" });
      this.tabs = h("div.tabs", { role: "tablist", "aria-label": "Views" });
      this.search = h("input", {
        type: "search",
        placeholder: "Find functions, files, modules",
        "aria-label": "Find functions, files, modules; /…/ is a regular expression",
        title: "Any part of a name, file or module, or a /regular expression/",
        value: this.state.q,
        spellcheck: false
      });
      let wait = 0;
      this.search.addEventListener("input", () => {
        clearTimeout(wait);
        wait = setTimeout(() => this.set({ q: this.search.value }), 60);
      });
      this.found = h("output.found", { "aria-live": "polite" });
      this.types = h(
        "select.field",
        { "aria-label": "Sample type", onchange: (e) => this.set({ type: Number(e.target.value) }) },
        meta.types.map(({ name, unit }, i) => h("option", { value: i }, `${plain(name)} (${plain(unit)})`))
      );
      const groups = [["none", "No grouping"], ["program", "By program"], ["process", "By process"], ["thread", "By thread"]];
      this.groups = h(
        "select.field",
        { "aria-label": "Group stacks", onchange: (e) => this.set({ group: e.target.value }) },
        groups.map(([value, name]) => h("option", { value }, name))
      );
      this.filter = filterButton(profile, {
        get: () => this.state,
        set: (change) => this.set(change),
        weights: () => this.threadWeights()
      });
      this.flip = h("button.field", { type: "button", onclick: () => this.set({ root: this.state.root === "top" ? "bottom" : "top" }) });
      this.sideButton = h("button.square", { type: "button", title: "Show or hide the summary", "aria-label": "Summary", onclick: () => this.set({ side: !this.state.side }) }, icon("panel"));
      const dark = h("button.square", { type: "button", title: "Light or dark", "aria-label": "Light or dark", onclick: () => this.set({ theme: this.isDark() ? "light" : "dark" }) }, icon("sun"));
      this.help = helpButton(plain(meta.origin.producer));
      this.crumbs = h("nav.crumbs", { "aria-label": "Zoom" });
      this.flameHost = h("div");
      this.legendHost = h("div.legendstrip");
      this.sideHost = h("aside.side", { "aria-label": "Where the time goes" });
      this.flameView = h("section.view.flameview", {}, h("div.main", {}, this.crumbs, this.legendHost, this.flameHost), this.sideHost);
      this.topView = h("section.view.topview");
      this.callersHead = h("div.subject");
      this.upNote = h("span");
      this.downNote = h("span");
      this.upHost = h("div");
      this.downHost = h("div");
      const pick = h("div.pick");
      this.callersView = h(
        "section.view.callersview",
        {},
        pick,
        h("div.pair", {}, this.callersHead, h("h3", {}, "Callers", this.upNote), this.upHost, h("h3", {}, "Callees", this.downNote), this.downHost)
      );
      this.foot = h("footer.foot");
      const filterable = profile.processes.length > 0;
      fill(
        host,
        h(
          "header.bar",
          {},
          h("div.brand", {}, h("span.mark", { "aria-hidden": "true" }, h("i"), h("i"), h("i")), h("h1", {}, h("bdi", {}, cut(title, 90)))),
          this.tabs,
          h("div.tools", {}, this.help, this.sideButton, dark)
        ),
        facts(profile, this.totals()),
        h(
          "div.toolbar",
          { role: "toolbar", "aria-label": "Choices" },
          h("label.searchbox", {}, icon("search"), this.search),
          this.found,
          h("span.grow"),
          meta.types.length > 1 ? this.types : h("span.type", {}, `Sample type: ${plain(meta.types[0].name)} (${plain(meta.types[0].unit)})`),
          filterable ? [this.groups, this.filter] : null,
          this.flip
        ),
        h("main", {}, this.flameView, this.topView, this.callersView),
        this.foot,
        this.live
      );
      const flame = (into, label, on2) => new Flame(into, { profile, label, name: (tree2, node) => nameOf(profile, tree2, node), on: on2 });
      const pointer = (get) => ({
        hover: (node, event) => this.tooltip.show(this.describe(get(), node), event),
        leave: () => this.tooltip.hide()
      });
      this.flame = flame(this.flameHost, "Flame graph of all stacks. Arrow keys walk, Enter zooms, Escape goes back.", {
        ...pointer(() => this.flame),
        select: (node) => this.select(this.flame, node),
        zoom: (node) => this.set({ zoom: node }, true),
        painted: () => performance.mark("painted")
      });
      const inner = (get) => ({
        ...pointer(get),
        select: (node) => this.select(get(), node),
        zoom: (node) => get().zoomTo(node)
      });
      this.up = flame(this.upHost, "Flame graph of the callers", inner(() => this.up));
      this.down = flame(this.downHost, "Flame graph of the callees", inner(() => this.down));
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
      return this.memo("keep", this.filterKey(), () => keepOf(this.profile, this.state));
    }
    threadWeights() {
      return this.memo("threads", this.state.type, () => threadWeights(this.profile, this.state.type));
    }
    /** The tree without groups: what tables and callers are computed from. */
    plainTree() {
      return this.memo("plain", this.filterKey(), () => build(this.profile, { type: this.state.type, keep: this.keep(), groups: null }));
    }
    tree() {
      if (this.state.group === "none") return this.plainTree();
      return this.memo("tree", `${this.filterKey()}|${this.state.group}`, () => {
        const groups = groupsOf(this.profile, this.state.group);
        return build(this.profile, { type: this.state.type, keep: this.keep(), groups });
      });
    }
    weights() {
      return this.memo("weights", this.filterKey(), () => functionWeights(this.profile, this.plainTree()));
    }
    kinds() {
      return this.memo("kinds", this.filterKey(), () => kindWeights(this.profile, this.plainTree()));
    }
    incomplete() {
      return this.memo("incomplete", this.filterKey(), () => incompleteWeight(this.profile, this.state.type, this.keep()));
    }
    /** Which functions the search finds; null without a search. */
    match() {
      return this.memo("match", this.state.q, () => {
        const query = this.state.q.trim();
        if (!query) return null;
        let test;
        const regex = /^\/(.+)\/i?$/.exec(query);
        if (regex) {
          try {
            const compiled = new RegExp(regex[1], "i");
            test = (text) => compiled.test(text.length > 4e3 ? text.slice(0, 4e3) : text);
          } catch {
            test = () => false;
          }
        } else {
          const low = query.toLowerCase();
          test = (text) => text.toLowerCase().includes(low);
        }
        const { functions } = this.profile;
        const known = /* @__PURE__ */ new Map();
        const shared = (text) => {
          if (!known.has(text)) known.set(text, text !== "" && test(text));
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
      return scale(meta.types[this.state.type]);
    }
    totals() {
      const { profile } = this;
      const type = profile.meta.shown;
      let whole2 = 0;
      for (const value of profile.rows.values[type]) whole2 += value;
      const scale2 = scale(profile.meta.types[type]);
      return { whole: whole2, incomplete: incompleteWeight(profile, type), samples: profile.meta.counts.samples, text: scale2.main };
    }
    // Painting.
    isDark() {
      const { theme } = this.state;
      return theme ? theme === "dark" : window.matchMedia("(prefers-color-scheme: dark)").matches;
    }
    theme() {
      const dark = this.isDark();
      const key = dark ? "dark" : "light";
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
      const tabs = [["flame", "Flame graph"], ["top", "Top functions"], ["callers", "Callers and callees"]];
      const focused = this.tabs.contains(document.activeElement);
      fill(this.tabs, tabs.map(([view, name]) => h("button", {
        type: "button",
        role: "tab",
        "aria-selected": String(state.view === view),
        tabIndex: state.view === view ? 0 : -1,
        onclick: () => this.set({ view }, true),
        onkeydown: (event) => {
          const step = { ArrowRight: 1, ArrowLeft: 2 }[event.key];
          if (step) this.set({ view: tabs[(tabs.findIndex(([v]) => v === view) + step) % 3][0] }, true);
        }
      }, name)));
      if (focused) this.tabs.querySelector("[aria-selected=true]").focus();
      this.types.value = String(state.type);
      this.groups.value = state.group;
      fill(this.flip, icon("flip"), state.root === "top" ? "Root at top" : "Root at bottom");
      this.flip.title = state.root === "top" ? "Draw it as a flame graph, root at the bottom" : "Draw it as an icicle, root at the top";
      this.flip.hidden = this.groups.hidden = state.view !== "flame";
      this.sideButton.hidden = state.view !== "flame";
      this.filter.paint();
      this.flameView.hidden = state.view !== "flame";
      this.topView.hidden = state.view !== "top";
      this.callersView.hidden = state.view !== "callers";
      const plainTree = this.plainTree();
      const whole2 = plainTree.total[0];
      const match = this.match();
      this.found.hidden = match === null;
      if (match) {
        const functions = match.reduce((a, b, f) => a + (b && this.weights().total[f] > 0 ? 1 : 0), 0);
        const weight = matchedWeight(profile, plainTree, match);
        const scale2 = this.scale();
        fill(
          this.found,
          functions ? [h("b", {}, percent(weight / whole2)), ` in ${count(functions)} ${functions === 1 ? "function" : "functions"}`] : "no match",
          h("button.quiet", { type: "button", title: "End the search", "aria-label": "End the search", onclick: () => this.find("") }, icon("close"))
        );
        this.found.title = [scale2.main(weight), scale2.time(weight)].filter(Boolean).join(" · ");
      }
      if (state.view === "flame") this.paintFlame(whole2, match);
      else if (state.view === "top") {
        this.table.show({ weights: this.weights(), whole: whole2, match, scale: this.scale(), sort: state.sort, selected: state.fn });
      } else this.paintCallers(plainTree, whole2, match);
    }
    paintFlame(whole2, match) {
      const { state, flame } = this;
      const tree2 = this.tree();
      const scale2 = this.scale();
      tree2.rootName ??= ["All", scale2.main(whole2), scale2.time(whole2)].filter(Boolean).join(" · ");
      flame.whole = whole2;
      const empty = whole2 === 0;
      this.flameHost.classList.toggle("empty", empty);
      this.flameHost.dataset.empty = this.profile.meta.counts.samples ? "No samples here: choose other processes, or another sample type." : "This profile has no samples. Was the target idle, or had it ended? Record longer, or while it is busy.";
      const changed = flame.tree !== tree2 || flame.rootAtBottom !== (state.root === "bottom");
      if (changed) flame.show(tree2, { zoom: state.zoom, match, rootAtBottom: state.root === "bottom" });
      else {
        flame.setMatch(match);
        if (flame.zoomed !== state.zoom) flame.zoomTo(state.zoom < tree2.n ? state.zoom : 0);
      }
      this.paintCrumbs(tree2);
      this.flameView.classList.toggle("wide", !state.side);
      fill(this.legendHost, legend(this.kinds(), whole2, this.incomplete()));
      const key = `${this.filterKey()}|${this.themed}`;
      if (this.sidePainted !== key) {
        this.sidePainted = key;
        side(this.sideHost, {
          profile: this.profile,
          weights: this.weights(),
          kinds: this.kinds(),
          whole: whole2,
          incomplete: this.incomplete(),
          scale: scale2,
          threads: this.threadWeights(),
          on: { open: (fn) => this.open(fn), process: (p) => this.set({ processes: [p], threads: [] }, true) }
        });
      }
      if (empty) foot(this.foot, null);
      if (changed) foot(this.foot, state.zoom ? this.describe(flame, flame.zoomed) : null, this.actions());
    }
    paintCrumbs(tree2) {
      const path = [];
      for (let node = this.flame.zoomed; node >= 0; node = tree2.parent[node]) path.unshift(node);
      const crumb = (node, last) => h("li", {}, h(
        "button",
        { type: "button", "aria-current": last ? "true" : null, title: cut(nameOf(this.profile, tree2, node), 400), onclick: () => this.set({ zoom: node }, true) },
        h("bdi", {}, cut(node === 0 ? "All" : nameOf(this.profile, tree2, node), 48))
      ));
      const shown = path.length > 8 ? [...path.slice(0, 3), -1, ...path.slice(-4)] : path;
      this.crumbs.hidden = path.length < 2;
      fill(
        this.crumbs,
        h("ol", {}, shown.map((node, i) => node < 0 ? h("li.gap", {}, `… ${path.length - 7} …`) : crumb(node, i === shown.length - 1))),
        h("button.reset", { type: "button", onclick: () => this.set({ zoom: 0 }, true) }, icon("close"), "Reset zoom")
      );
    }
    paintCallers(tree2, whole2, match) {
      const { state, profile } = this;
      const weights = this.weights();
      let fn = state.fn;
      if (fn < 0 || !(weights.total[fn] > 0)) {
        fn = -1;
        for (let f = 0; f < profile.functions.n; f += 1) if (weights.self[f] > (fn < 0 ? 0 : weights.self[fn])) fn = f;
      }
      const scale2 = this.scale();
      this.picker.show({ weights, whole: whole2, match, scale: scale2, sort: state.sort, selected: fn });
      this.subject = fn;
      if (fn < 0) {
        fill(this.callersHead, h("p.hint", {}, "There are no samples here."));
        return;
      }
      const [up, down] = this.memo("callers", `${this.filterKey()}|${fn}`, () => {
        const both = [callers(profile, tree2, fn), callees(profile, tree2, fn)];
        for (const one of both) one.merged = true;
        return both;
      });
      const value = (v) => [percent(v / whole2), scale2.time(v) || scale2.main(v)].join(" · ");
      const name = profile.functions.name[fn];
      fill(
        this.callersHead,
        h("h2", {}, h("bdi", { title: cut(name, 600) }, cut(name, 300))),
        h(
          "p",
          {},
          h("span", {}, "total ", h("b", {}, value(weights.total[fn]))),
          h("span", {}, "self ", h("b", {}, value(weights.self[fn]))),
          profile.functions.module[fn] ? h("span.place", {}, h("bdi", {}, cut(profile.functions.module[fn], 120))) : null,
          profile.functions.file[fn] ? h("span.place", {}, h("bdi", {}, cut(`${profile.functions.file[fn]}${profile.functions.line[fn] ? `:${profile.functions.line[fn]}` : ""}`, 160))) : null
        ),
        h(
          "div.actions",
          {},
          h("button", { type: "button", onclick: () => this.copyName(fn) }, icon("copy"), "Copy name"),
          h("button", { type: "button", onclick: () => this.find(name, "flame") }, icon("search"), "Find in the flame graph")
        )
      );
      this.upNote.textContent = up.n > 1 ? "what calls it; read upwards" : "nothing calls it: stacks start here";
      this.downNote.textContent = down.n > 1 ? "what it calls; read downwards" : "it calls nothing that was sampled";
      for (const [flame, shown, bottom] of [[this.up, up, true], [this.down, down, false]]) {
        flame.whole = whole2;
        flame.host.classList.toggle("single", shown.n < 2);
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
      this.live.textContent = `${cut(d.name, 200)}, total ${d.total.share}, self ${d.self.share}${d.kind ? `, ${d.kind}` : ""}`;
    }
    actions() {
      return {
        open: (fn) => this.open(fn),
        copy: (fn) => this.copyName(fn),
        find: (fn) => this.find(this.profile.functions.name[fn])
      };
    }
    open(fn) {
      this.set({ view: "callers", fn }, true);
    }
    find(text, view = this.state.view) {
      this.search.value = text;
      this.set({ q: text, view }, view !== this.state.view);
    }
    async copyName(fn) {
      const done = await copy(this.profile.functions.name[fn]);
      this.toast(done ? "Name copied" : "The browser did not allow copying");
    }
    toast(text) {
      this.live.textContent = text;
      const note = h("div.toast", {}, text);
      this.host.append(note);
      setTimeout(() => note.remove(), 1600);
    }
    key(event) {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
      if (event.key === "Escape") {
        if (this.state.q) this.find("");
        else if (this.state.view === "flame" && this.state.zoom) this.set({ zoom: this.flame.tree.parent[this.state.zoom] }, true);
        if (typing) event.target.blur();
        return;
      }
      if (typing) return;
      const chosen = this.state.view === "callers" ? this.subject : this.chosen;
      const keys = {
        "/": () => this.search.focus(),
        1: () => this.set({ view: "flame" }, true),
        2: () => this.set({ view: "top" }, true),
        3: () => this.set({ view: "callers" }, true),
        i: () => this.set({ root: this.state.root === "top" ? "bottom" : "top" }),
        t: () => this.set({ theme: this.isDark() ? "light" : "dark" }),
        g: () => chosen >= 0 && this.open(chosen),
        c: () => chosen >= 0 && this.copyName(chosen),
        "?": () => this.help.querySelector("button").click()
      };
      if (!keys[event.key]) return;
      event.preventDefault();
      keys[event.key]();
    }
  };
  async function main() {
    const host = document.getElementById("app");
    const block = document.getElementById("profile");
    try {
      const profile = await decode(block.textContent);
      setKinds(profile.meta.kinds);
      block.remove();
      new App(profile, host);
      performance.mark("ready");
    } catch (error) {
      const old = typeof DecompressionStream === "undefined";
      fill(host, h(
        "div.failed",
        { role: "alert" },
        h("h1", {}, "This profile cannot be shown"),
        h("p", {}, old ? "The browser is too old: it has to know DecompressionStream (Chrome 80, Firefox 113, Safari 16.4 or newer)." : `The data in the file is damaged or incomplete: ${error.message}`)
      ));
      console.error(error);
    }
  }
  main();
})();
