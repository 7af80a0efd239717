import { useQuery, useQueryClient } from '@tanstack/react-query';
import type { Me } from '@tomaat/client';
import { TomaatError } from '@tomaat/core';
import {
  type FormEvent,
  type ReactNode,
  useEffect,
  useId,
  useRef,
  useState,
  useSyncExternalStore,
} from 'react';
import { useLocation } from 'wouter';
import { formatTime } from './format.ts';
import { client } from './site.ts';
import { belongTo } from './store.ts';
import { faultOf, Loading } from './ui.tsx';

/** Who is logged in; the session itself is a cookie that this page cannot read, and the key is kept nowhere. */

/** The owner whose page this is; another one gets a page of his own. */
let owner: string | undefined;

export const useMe = () =>
  useQuery({
    queryKey: ['me'],
    queryFn: async ({ signal }) => {
      const me = await client.me({ signal });
      if (me.who && owner !== undefined && me.who.owner !== owner) location.reload();
      if (me.who) {
        owner = me.who.owner;
        belongTo(owner);
      }
      return me;
    },
    refetchInterval: ({ state }) => (state.data?.login === 'required' ? 60_000 : false),
    refetchOnWindowFocus: true,
  });

// ---- How often somebody logged in, for what has to be asked again then ----

let logins = 0;
const listeners = new Set<() => void>();

/** Grows with each login: an effect that depends on it begins anew. */
export const useLogins = () =>
  useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => logins,
  );

// ---- The view ----

/** What came back from an issuer that logged nobody in (`LoginFault` of the server). */
const faults: Record<string, string> = {
  expired: 'That login took too long or was used already. Try again.',
  refused: 'The login was refused there. Try again, or ask whoever runs it.',
  failed:
    'What came back from the login does not hold. Try again; if it stays so, tell whoever runs this server.',
  'not-allowed':
    'You are known there, but this server does not serve your account. Ask whoever runs this server.',
  unreachable: 'The server of the logins does not answer. Try again soon, or use an API key.',
};

/** Reads the fault from the address, and takes it out of there. */
function takeFault(): string | undefined {
  const url = new URL(location.href);
  const fault = url.searchParams.get('login-fault');
  if (fault === null) return undefined;
  url.searchParams.delete('login-fault');
  history.replaceState(history.state, '', url);
  return Object.hasOwn(faults, fault) ? faults[fault] : faults.failed;
}
const firstFault = takeFault();

/** Shows what is in it to those who are logged in, or where no login is needed. A session that ends leaves it as it was. */
export function LoginGate({ children }: { children: ReactNode }) {
  const me = useMe();
  const [wasOpen, setWasOpen] = useState(false);
  const isOpen = !me.isPending && !needsLogin(me.data);
  if (isOpen && !wasOpen) setWasOpen(true);
  return (
    <>
      {me.isPending && <Loading what="One moment …" />}
      {me.data && needsLogin(me.data) && <LoginView me={me.data} isAgain={wasOpen} />}
      {wasOpen && <div hidden={!isOpen}>{children}</div>}
    </>
  );
}

export const needsLogin = (me: Me | undefined): boolean => me?.login === 'required' && !me.who;

function LoginView({ me, isAgain }: { me: Me; isAgain: boolean }) {
  const queries = useQueryClient();
  const [path] = useLocation();
  const [key, setKey] = useState('');
  const [fault, setFault] = useState(isAgain ? undefined : firstFault);
  const [isBusy, setBusy] = useState(false);
  const field = useRef<HTMLInputElement>(null);
  const [hintId, faultId] = [useId(), useId()];
  useEffect(() => field.current?.focus(), []);
  useEffect(() => {
    const before = document.title;
    document.title = 'Log in · TOMAAT';
    return () => {
      document.title = before;
    };
  }, []);

  async function logIn(event: FormEvent) {
    event.preventDefault();
    if (key.trim() === '') {
      setFault('Paste your API key first.');
      field.current?.focus();
      return;
    }
    setBusy(true);
    setFault(undefined);
    try {
      await client.logIn(key.trim());
      setKey('');
      await queries.invalidateQueries({ queryKey: ['me'] });
      logins++;
      for (const listener of listeners) listener();
      await queries.invalidateQueries();
    } catch (error) {
      setFault(faultOf(error).message);
      field.current?.focus();
      field.current?.select();
    } finally {
      setBusy(false);
    }
  }

  const { oidc } = me.ways;
  const back = path + location.search + location.hash;
  return (
    <section className="login panel" aria-labelledby="login-title">
      <h1 id="login-title">{isAgain ? 'Log in again' : 'Log in'}</h1>
      <p>
        {isAgain
          ? 'Your session has ended. What you were doing is still here.'
          : 'This server asks who you are before it shows services or takes a scan.'}
      </p>
      {oidc && (
        <>
          <a className="button primary" href={`${oidc.address}?return=${encodeURIComponent(back)}`}>
            Log in with {oidc.host}
          </a>
          <p className="or">
            <span>or</span>
          </p>
        </>
      )}
      <form onSubmit={(event) => void logIn(event)} noValidate>
        <label className="stacked">
          API key
          <input
            ref={field}
            type="password"
            name="key"
            autoComplete="current-password"
            autoCapitalize="off"
            spellCheck={false}
            maxLength={200}
            placeholder="tmt_…"
            value={key}
            aria-describedby={fault ? `${faultId} ${hintId}` : hintId}
            aria-invalid={fault ? true : undefined}
            onChange={(event) => setKey(event.target.value)}
          />
        </label>
        <p id={faultId} className="field-fault" role="alert">
          {fault}
        </p>
        <button type="submit" className={oidc ? 'quiet primary' : 'primary'} disabled={isBusy}>
          {isBusy ? 'One moment …' : 'Log in with the key'}
        </button>
        <p id={hintId} className="fine">
          Whoever runs this server gives you a key:{' '}
          <code>tomaat keys create --label NAME --scope predict</code> makes one. The first key is printed
          where the server was started. It is kept nowhere in this browser; the login ends when you close it.
        </p>
      </form>
    </section>
  );
}

// ---- The menu ----

const scopeTexts: Record<string, string> = {
  predict: 'May ask for predictions',
  admin: 'May do everything',
};

/** Who is logged in, and the way out. */
export function AccountMenu({ who, host }: { who: NonNullable<Me['who']>; host?: string }) {
  const menu = useRef<HTMLDetailsElement>(null);
  const [fault, setFault] = useState<string>();
  useEffect(() => {
    const close = (event: Event) => {
      const { current } = menu;
      if (!current?.open) return;
      if (event instanceof KeyboardEvent) {
        if (event.key !== 'Escape') return;
        current.querySelector('summary')?.focus();
      } else if (current.contains(event.target as Node)) return;
      current.open = false;
    };
    for (const type of ['keydown', 'pointerdown', 'focusin']) document.addEventListener(type, close);
    return () => {
      for (const type of ['keydown', 'pointerdown', 'focusin']) document.removeEventListener(type, close);
    };
  }, []);

  async function logOut() {
    try {
      await client.logOut();
    } catch (error) {
      if (!(error instanceof TomaatError) || error.code !== 'UNAUTHORIZED') {
        setFault(faultOf(error).message);
        return;
      }
    }
    // A page that knows nothing of who was here.
    location.assign('/');
  }

  const scopes = who.scopes.includes('admin') ? ['admin'] : who.scopes;
  return (
    <details className="account" ref={menu}>
      <summary className="account-summary" aria-label={`Account of ${who.label}`}>
        <svg viewBox="0 0 24 24" width="20" height="20" aria-hidden="true">
          <circle cx="12" cy="8.2" r="4.1" fill="none" stroke="currentColor" strokeWidth="1.8" />
          <path
            d="M3.8 20.5c1.2-4 4.4-6 8.2-6s7 2 8.2 6"
            fill="none"
            stroke="currentColor"
            strokeWidth="1.8"
            strokeLinecap="round"
          />
        </svg>
        <span className="account-label">{who.label}</span>
      </summary>
      <div className="account-panel">
        <p className="account-who">{who.label}</p>
        <p className="fine">
          {who.kind === 'oidc' ? `Logged in by ${host ?? 'your issuer'}` : 'Logged in with an API key'}
        </p>
        {scopes.map((scope) => (
          <p className="fine" key={scope}>
            {scopeTexts[scope] ?? `Scope ${scope}`}
          </p>
        ))}
        {who.expiresTime && <p className="fine">Until {formatTime(who.expiresTime)} at the latest</p>}
        {fault && (
          <p className="field-fault" role="alert">
            {fault}
          </p>
        )}
        <button type="button" className="quiet" onClick={() => void logOut()}>
          Log out
        </button>
      </div>
    </details>
  );
}
