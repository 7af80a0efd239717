/** Light, dark, or the system's setting; the choice applies to this browser. */
export const themes = ['system', 'light', 'dark'] as const;
export type Theme = (typeof themes)[number];
const key = 'tomaat.theme';

export function storedTheme(): Theme {
  try {
    const stored = localStorage.getItem(key);
    return themes.find((theme) => theme === stored) ?? 'system';
  } catch {
    return 'system';
  }
}

export function applyTheme(theme: Theme = storedTheme()): void {
  if (theme === 'system') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}

export function chooseTheme(theme: Theme): void {
  applyTheme(theme);
  try {
    if (theme === 'system') localStorage.removeItem(key);
    else localStorage.setItem(key, theme);
  } catch {
    // If the browser stores nothing, the choice lasts as long as the page.
  }
}

/** Calls back with whether the page is dark, now and at each change, until the returned function is called. */
export function onDark(act: (isDark: boolean) => void): () => void {
  const system = matchMedia('(prefers-color-scheme: dark)');
  const say = () => {
    const { theme } = document.documentElement.dataset;
    act(theme === undefined ? system.matches : theme === 'dark');
  };
  const watched = new MutationObserver(say);
  watched.observe(document.documentElement, { attributeFilter: ['data-theme'] });
  system.addEventListener('change', say);
  say();
  return () => {
    watched.disconnect();
    system.removeEventListener('change', say);
  };
}
