/** Light or dark: as the system prefers, unless the person chose otherwise in this browser. */
import { local } from './storage';

const THEME = 'theme';

export function applySavedTheme(): void {
  const saved = local.get(THEME);
  if (saved) document.documentElement.dataset['theme'] = saved;
}

export function toggleTheme(): void {
  const root = document.documentElement;
  const dark = root.dataset['theme'] ? root.dataset['theme'] === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
  root.dataset['theme'] = dark ? 'light' : 'dark';
  local.set(THEME, root.dataset['theme']);
}
