import { isSettled } from '@tomaat/client';
import { Component, lazy, type ReactNode, Suspense, useEffect, useState } from 'react';
import { Link, Route, Switch, useLocation } from 'wouter';
import { DeletionNotice } from './deletion-notice.tsx';
import { Directory } from './directory.tsx';
import { AccountMenu, LoginGate, needsLogin, useMe } from './login.tsx';
import { resumeNotifications } from './notify.ts';
import { useSite } from './site.ts';
import { tidy, useHistory } from './store.ts';
import { chooseTheme, storedTheme, type Theme, themes } from './theme.ts';
import { Empty, faultOf, Loading, Problem } from './ui.tsx';

const ServicePage = lazy(() => import('./service-page.tsx'));
const JobPage = lazy(() => import('./job/job-page.tsx'));
const ApiPage = lazy(() => import('./api-page.tsx'));
const HistoryPage = lazy(() => import('./history-page.tsx'));
const ComparePage = lazy(() => import('./compare/compare-page.tsx'));

export function App() {
  const [path] = useLocation();
  useEffect(() => {
    void tidy();
    resumeNotifications();
  }, []);
  // A new page begins at its top.
  // biome-ignore lint/correctness/useExhaustiveDependencies: the address is what it waits for
  useEffect(() => {
    window.scrollTo(0, 0);
  }, [path]);
  return (
    <>
      <a className="skip" href="#main">
        Skip to content
      </a>
      <Header />
      <main id="main" tabIndex={-1}>
        <FaultBoundary key={path}>
          <Suspense fallback={<Loading what="Loading …" />}>
            <Switch>
              {/* Who writes a client may read it before anyone gives them a key. */}
              <Route path="/docs" component={ApiPage} />
              <Route>
                <LoginGate>
                  <Pages />
                  <DeletionNotice />
                </LoginGate>
              </Route>
            </Switch>
          </Suspense>
        </FaultBoundary>
      </main>
      <footer>
        <p>
          For research use. Not a medical device unless a service says so. This page loads nothing from other
          hosts. <Link href="/docs">API</Link>
        </p>
      </footer>
    </>
  );
}

function Pages() {
  return (
    <Switch>
      <Route path="/" component={Directory} />
      <Route path="/services/:id">{({ id }) => <ServicePage key={id} id={decode(id)} />}</Route>
      <Route path="/jobs" component={HistoryPage} />
      <Route path="/compare" component={ComparePage} />
      <Route path="/jobs/:id">{({ id }) => <JobPage key={id} id={decode(id)} />}</Route>
      <Route>
        <Empty title="Page not found">
          <p>
            <Link href="/">See the available services</Link>
          </p>
        </Empty>
      </Route>
    </Switch>
  );
}

/** Errors of the page itself are shown, too; another page may still work. (React needs a class for this.) */
class FaultBoundary extends Component<{ children: ReactNode }, { error?: unknown }> {
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

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function Header() {
  const me = useMe();
  const isOpen = !me.isPending && !needsLogin(me.data);
  const site = useSite(isOpen);
  const jobs = useHistory();
  const [path] = useLocation();
  const running = jobs.filter(({ state }) => state === 'sending' || !isSettled({ state })).length;
  const isRegistry = site.data?.kind === 'registry';
  return (
    <header className="top">
      <div className="top-inner">
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
            {isRegistry ? 'registry at ' : ''}
            {location.host}
          </span>
        </Link>
        <nav aria-label="Main">
          {isOpen && (
            <Link href="/" aria-current={path === '/' ? 'page' : undefined}>
              Services
            </Link>
          )}
          {isOpen && !isRegistry && (
            <Link href="/jobs" aria-current={path === '/jobs' ? 'page' : undefined}>
              My jobs
              {running > 0 && (
                <span className="count">
                  {running}
                  <span className="visually-hidden"> in progress</span>
                </span>
              )}
            </Link>
          )}
          <ThemeSwitch />
          {me.data?.who && <AccountMenu who={me.data.who} host={me.data.ways.oidc?.host} />}
        </nav>
      </div>
    </header>
  );
}

const themeNames: Record<Theme, string> = { system: 'System', light: 'Light', dark: 'Dark' };

function ThemeSwitch() {
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
