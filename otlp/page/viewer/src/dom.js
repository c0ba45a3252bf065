// Elements without HTML: text becomes text nodes, so no name of a profile can become markup.

/** An element `tag.class`, with properties, attributes (`aria-*`, `role`, ...), listeners (`on…`) and children. */
export function h(spec, props, ...children) {
  const [tag, ...classes] = spec.split('.');
  const element = document.createElement(tag || 'div');
  if (classes.length) element.className = classes.join(' ');
  for (const [key, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else if (key === 'css') for (const [name, v] of Object.entries(value)) element.style.setProperty(name, v);
    else if (key in element && !key.includes('-') && key !== 'role') element[key] = value;
    else element.setAttribute(key, value === true ? '' : value);
  }
  add(element, children);
  return element;
}

function add(element, children) {
  for (const child of children) {
    if (Array.isArray(child)) add(element, child);
    else if (child !== null && child !== undefined && child !== false) element.append(child);
  }
}

/** Replaces all that `element` holds. */
export function fill(element, ...children) {
  element.replaceChildren();
  add(element, children);
  return element;
}

const ICONS = {
  sun: 'M8 4.5a3.5 3.5 0 1 0 0 7 3.5 3.5 0 0 0 0-7ZM8 .8v1.7M8 13.5v1.7M.8 8h1.7M13.5 8h1.7M2.9 2.9l1.2 1.2M11.9 11.9l1.2 1.2M2.9 13.1l1.2-1.2M11.9 4.1l1.2-1.2',
  search: 'M7 2.2a4.8 4.8 0 1 0 0 9.6 4.8 4.8 0 0 0 0-9.6ZM10.6 10.6 14 14',
  flip: 'M4.5 13.5v-11M2 5l2.5-2.5L7 5M11.5 2.5v11M9 11l2.5 2.5L14 11',
  copy: 'M5.5 5.5h8v8h-8zM10.5 5.5v-3h-8v8h3',
  close: 'M4 4l8 8M12 4l-8 8',
  down: 'M4 6.5 8 10.5l4-4',
  warn: 'M8 2 1.5 13.5h13ZM8 6.3v3.6M8 11.6v.4',
  check: 'M3 8.5 6.5 12 13 4.5',
  callers: 'M8 1.5v13M3.5 5 8 1.5 12.5 5M3.5 11 8 14.5l4.5-3.5',
  panel: 'M2 3h12v10H2zM10 3v10',
};

/** A small line drawing; for the eye alone. */
export function icon(name) {
  const ns = 'http://www.w3.org/2000/svg';
  const svg = document.createElementNS(ns, 'svg');
  svg.setAttribute('viewBox', '0 0 16 16');
  svg.setAttribute('class', 'icon');
  svg.setAttribute('aria-hidden', 'true');
  const path = document.createElementNS(ns, 'path');
  path.setAttribute('d', ICONS[name]);
  svg.append(path);
  return svg;
}

/** Puts `text` on the clipboard; false where the browser does not let us. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = h('textarea.offscreen', { value: text, readOnly: true });
    document.body.append(area);
    area.select();
    const done = document.execCommand('copy');
    area.remove();
    return done;
  }
}

/** A button that opens `panel` below it; closes on Escape, on a click elsewhere and when focus leaves. */
export function popover(button, panel, onopen) {
  const wrap = h('div.pop', {}, button, panel);
  panel.hidden = true;
  button.setAttribute('aria-haspopup', 'dialog');
  const set = (open) => {
    panel.hidden = !open;
    button.setAttribute('aria-expanded', String(open));
    if (!open) return;
    onopen?.();
    panel.style.removeProperty('transform');
    const over = panel.getBoundingClientRect().right - (window.innerWidth - 8);
    if (over > 0) panel.style.setProperty('transform', `translateX(${-over}px)`);
    panel.querySelector('input')?.focus();
  };
  set(false);
  button.addEventListener('click', () => set(panel.hidden));
  document.addEventListener('mousedown', (event) => {
    if (!wrap.contains(event.target)) set(false);
  });
  wrap.addEventListener('keydown', (event) => {
    if (event.key !== 'Escape' || panel.hidden) return;
    set(false);
    button.focus();
    event.stopPropagation();
  });
  wrap.addEventListener('focusout', (event) => {
    if (event.relatedTarget && !wrap.contains(event.relatedTarget)) set(false);
  });
  wrap.close = () => set(false);
  return wrap;
}
