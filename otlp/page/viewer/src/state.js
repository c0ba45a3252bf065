// What the page shows, as the address remembers it after the #. Only what differs from the first view is written.

export const INITIAL = {
  view: 'flame',
  type: null,
  group: null,
  q: '',
  root: 'top',
  zoom: 0,
  fn: -1,
  sort: '-self',
  processes: [],
  threads: [],
  theme: '',
  side: true,
};

const VIEWS = ['flame', 'top', 'callers'];
const GROUPS = ['none', 'program', 'process', 'thread'];
const THEMES = ['', 'light', 'dark'];
const SORTS = /^-?(name|module|self|total)$/;

const number = (text) => (/^\d{1,9}$/.test(text) ? Number(text) : null);
const numbers = (text) => text.split('.').map(number).filter((n) => n !== null);

/** The state in `hash`; what makes no sense there is left at its first value. */
export function read(hash) {
  const state = { ...INITIAL };
  const params = new URLSearchParams(hash.replace(/^#/, ''));
  const take = (key, parse) => {
    const value = params.has(key) ? parse(params.get(key)) : null;
    if (value !== null && value !== undefined) state[key] = value;
  };
  const among = (list) => (text) => (list.includes(text) ? text : null);
  take('view', among(VIEWS));
  take('type', number);
  take('group', among(GROUPS));
  take('q', (text) => text.slice(0, 1000));
  take('root', among(['top', 'bottom']));
  take('zoom', number);
  take('fn', number);
  take('sort', (text) => (SORTS.test(text) ? text : null));
  take('processes', numbers);
  take('threads', numbers);
  take('theme', among(THEMES));
  take('side', (text) => text !== 'off');
  return state;
}

/** `state` as an address's hash; '' for the first view. */
export function write(state) {
  const params = new URLSearchParams();
  for (const [key, first] of Object.entries(INITIAL)) {
    const value = state[key];
    if (Array.isArray(value)) {
      if (value.length) params.set(key, value.join('.'));
    } else if (key === 'side') {
      if (!value) params.set(key, 'off');
    } else if (value !== first && value !== null) {
      params.set(key, String(value));
    }
  }
  const text = params.toString();
  return text ? `#${text}` : '';
}
