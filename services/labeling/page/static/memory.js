// localStorage as JSON. Where the browser forbids it or it is full, values live as long as the page does.
const fallback = new Map();

export const memory = {
  get(key) {
    try {
      const text = localStorage.getItem(key);
      if (text !== null) return JSON.parse(text);
    } catch {
      // Forbidden, or not what this page wrote: as if it were not there.
    }
    return fallback.get(key) ?? null;
  },

  set(key, value) {
    fallback.delete(key);
    try {
      localStorage.setItem(key, JSON.stringify(value));
    } catch {
      fallback.set(key, value);
    }
  },

  remove(key) {
    fallback.delete(key);
    try {
      localStorage.removeItem(key);
    } catch {
      // Nothing was kept there.
    }
  },

  keys(prefix) {
    const found = new Set(fallback.keys());
    try {
      for (let index = 0; index < localStorage.length; index += 1) found.add(localStorage.key(index));
    } catch {
      // Only what this page remembers.
    }
    return [...found].filter((key) => key.startsWith(prefix));
  },
};
