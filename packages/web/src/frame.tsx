import { Component, type ReactNode, useState } from 'react';
import { Link } from 'wouter';
import { chooseTheme, storedTheme, type Theme, themes } from './theme.ts';
import { faultOf, Problem } from './ui.tsx';

/** What every page has around its content, whatever program it belongs to. */

/** @param kind what it is the page of; a server if missing */
export function Brand({ kind }: { kind?: string }) {
  return (
    <Link href="/" className="brand">
      <svg viewBox="0 0 32 32" width="26" height="26" aria-hidden="true">
        <path d="M16 2 28 9v14l-12 7L4 23V9z" fill="var(--accent)" />
        <path
          d="M16 16 28 9M16 16v14M16 16 4 9"
          stroke="var(--paper)"
          strokeWidth="1.6"
          fill="none"
          opacity=".8"
        />
        <circle cx="16" cy="16" r="4.2" fill="var(--paper)" />
      </svg>
      <span className="brand-name">TOMAAT</span>
      <span className="where">
        {kind && `${kind} at `}
        {location.host}
      </span>
    </Link>
  );
}

/** Errors of the page itself are shown, too; another page may still work. (React needs a class for this.) */
export class FaultBoundary extends Component<{ children: ReactNode }, { error?: unknown }> {
  override state: { error?: unknown } = {};

  static getDerivedStateFromError(error: unknown) {
    return { error };
  }

  override render() {
    if (this.state.error === undefined) return this.props.children;
    return (
      <Problem fault={faultOf(this.state.error)}>
        <button type="button" onClick={() => location.reload()}>
          Reload the page
        </button>
      </Problem>
    );
  }
}

const themeNames: Record<Theme, string> = { system: 'System', light: 'Light', dark: 'Dark' };

export function ThemeSwitch() {
  const [theme, setTheme] = useState(storedTheme);
  return (
    <label className="theme">
      <span className="visually-hidden">Colours</span>
      <select
        value={theme}
        onChange={(event) => {
          const chosen = event.target.value as Theme;
          setTheme(chosen);
          chooseTheme(chosen);
        }}
      >
        {themes.map((name) => (
          <option key={name} value={name}>
            {themeNames[name]}
          </option>
        ))}
      </select>
    </label>
  );
}
