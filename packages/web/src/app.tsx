import { isSettled } from '@tomaat/client';
import { lazy, Suspense, useEffect } from 'react';
import { Link, Route, Switch, useLocation } from 'wouter';
import { settleLostRuns } from './compute/runs.ts';
import { DeletionNotice } from './deletion-notice.tsx';
import { Directory } from './directory.tsx';
import { Brand, FaultBoundary, ThemeSwitch } from './frame.tsx';
import { AccountMenu, LoginGate, needsLogin, useMe } from './login.tsx';
import { resumeNotifications } from './notify.ts';
import { useSite } from './site.ts';
import { tidy, useHistory } from './store.ts';
import { Empty, Loading } from './ui.tsx';

const ServicePage = lazy(() => import('./service-page.tsx'));
const BatchPage = lazy(() => import('./batch/batch-page.tsx'));
const JobPage = lazy(() => import('./job/job-page.tsx'));
const ApiPage = lazy(() => import('./api-page.tsx'));
const HistoryPage = lazy(() => import('./history-page.tsx'));
const ComparePage = lazy(() => import('./compare/compare-page.tsx'));

export function App() {
  const [path] = useLocation();
  useEffect(() => {
    void tidy().then(settleLostRuns);
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
      <Route path="/services/:id/batch">{({ id }) => <BatchPage key={id} id={decode(id)} />}</Route>
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
        <Brand kind={isRegistry ? 'registry' : undefined} />
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
