import { useQuery, useQueryClient } from '@tanstack/react-query';
import type { Me } from '@tomaat/client';
import { TomaatError } from '@tomaat/core';
import { type FormEvent, type ReactNode, useEffect, useId, useRef, useState } from 'react';
import { useLocation } from 'wouter';
import { basePath, baseUrl } from './base.ts';
import { forgetModels } from './compute/models.ts';
import { Contact } from './contact.tsx';
import { formatTime } from './format.ts';
import { noteLogin } from './logins.ts';
import { client, safeAddress } from './site.ts';
import { belongTo } from './store.ts';
import { faultOf, Loading, Problem } from './ui.tsx';

/** Who is logged in; the session itself is a cookie that this page cannot read, and the key is kept nowhere. */

/** The owner whose page this is; another one gets a fresh page. */
let owner: string | undefined;

const meQuery = {
  queryKey: ['me'],
  queryFn: async ({ signal }: { signal: AbortSignal }) => {
    // Better to find out now than after selecting a scan whether the server accepts this page.
    const me = await client.me({ signal, page: baseUrl });
    if (me.who && owner !== undefined && me.who.owner !== owner) location.reload();
    if (me.who) {
      owner = me.who.owner;
      belongTo(owner);
    }
    return me;
  },
  refetchOnWindowFocus: true,
} as const;

/** Who is logged in, as far as known; the gate keeps it up to date. */
export const useMe = () => useQuery({ ...meQuery, refetchOnMount: false });

// ---- The view ----

/** Why a login at an issuer failed (`LoginFault` of the server); `host`: the issuer. */
const faults: Record<string, (host: string) => string> = {
  expired: () => 'That login took longer than ten minutes or was already used. Log in again.',
  refused: (host) => `${host} did not log you in. Try again, or ask the operator of ${host}.`,
  settings: (host) =>
    `${host} rejects the configuration of this server. Trying again will not help. Tell the operator of this server, whose log names the fault. You can log in with an API key.`,
  clock: (host) =>
    `The clocks of ${host} and this server differ too much. Tell the operator of this server. You can log in with an API key.`,
  failed: (host) =>
    `${host} sent an invalid response, so you are not logged in. Try again. If it fails again, tell the operator of this server, whose log gives the reason.`,
  'not-allowed': (host) =>
    `${host} knows you, but this server does not serve your account. Ask the operator of this server for access, or log in with another account.`,
  unreachable: (host) =>
    `${host} is not responding correctly. Try again in a minute, or log in with an API key.`,
};

/** What the address contains on arrival: why a login failed, or what a logout ended. */
interface Arrival {
  readonly fault?: string;
  /** `here`: the session at the issuer continues. */
  readonly loggedOut?: 'here' | 'everywhere';
}

/** Reads it from the address, and removes it from there. */
function takeArrival(): Arrival {
  const url = new URL(location.href);
  const { searchParams: query } = url;
  const fault = query.get('login-fault') ?? undefined;
  // `state` is how an issuer marks a logout as requested by us.
  const isEverywhere = query.get('state') === 'logged-out';
  const isHere = query.get('logged-out') === 'here';
  if (fault === undefined && !isEverywhere && !isHere) return {};
  for (const name of ['login-fault', 'state', 'logged-out']) query.delete(name);
  history.replaceState(history.state, '', url);
  return { fault, loggedOut: isEverywhere ? 'everywhere' : isHere ? 'here' : undefined };
}
const arrival = takeArrival();

const faultText = (fault: string | undefined, host: string): string | undefined =>
  fault === undefined ? undefined : (Object.hasOwn(faults, fault) ? faults[fault] : faults.failed)(host);

/** What a login is for, and the scope that a key needs. */
export interface LoginPurpose {
  readonly text: string;
  readonly scope: string;
}
const predicting: LoginPurpose = { text: 'Log in to see the services and send scans.', scope: 'predict' };

/** Shows its children to users who are logged in, or if no login is needed. They are kept when a session ends. */
export function LoginGate({
  children,
  purpose = predicting,
}: {
  children: ReactNode;
  purpose?: LoginPurpose;
}) {
  const me = useQuery({
    ...meQuery,
    refetchInterval: ({ state }) => (state.data?.login === 'required' ? 60_000 : false),
  });
  const [wasOpen, setWasOpen] = useState(false);
  const isOpen = !me.isPending && !needsLogin(me.data);
  if (isOpen && !wasOpen) setWasOpen(true);
  if (me.error instanceof TomaatError && me.error.code === 'FORBIDDEN')
    return <Problem fault={faultOf(me.error)} />;
  return (
    <>
      {me.isPending && <Loading what="One moment …" />}
      {me.data && needsLogin(me.data) && <LoginView me={me.data} isAgain={wasOpen} purpose={purpose} />}
      {wasOpen && <div hidden={!isOpen}>{children}</div>}
    </>
  );
}

export const needsLogin = (me: Me | undefined): boolean => me?.login === 'required' && !me.who;

function LoginView({ me, isAgain, purpose }: { me: Me; isAgain: boolean; purpose: LoginPurpose }) {
  const queries = useQueryClient();
  const [path] = useLocation();
  const [key, setKey] = useState('');
  const { oidc } = me.ways;
  const host = oidc?.host ?? 'The login server';
  const first: Arrival = isAgain ? {} : arrival;
  const [fault, setFault] = useState(faultText(first.fault, host));
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
      noteLogin();
      await queries.invalidateQueries();
    } catch (error) {
      // The server's message about the key, not that a session has ended.
      setFault(error instanceof TomaatError ? error.message : faultOf(error).message);
      field.current?.focus();
      field.current?.select();
    } finally {
      setBusy(false);
    }
  }

  const back = path + location.search + location.hash;
  return (
    <section className="login panel" aria-labelledby="login-title">
      <h1 id="login-title">{isAgain ? 'Log in again' : 'Log in'}</h1>
      <p>{isAgain ? 'Your session has ended. Log in as the same user to continue.' : purpose.text}</p>
      {isAgain && (
        <p>
          {oidc
            ? `If you log in with a key, this page stays as it is. Logging in with ${oidc.host} reloads the page: jobs and uploads continue, but whatever you filled in and did not send is lost.`
            : 'This page stays as it is: what you were doing is still here.'}
        </p>
      )}
      {first.loggedOut === 'everywhere' && <p role="status">You are logged out, here and at {host}.</p>}
      {first.loggedOut === 'here' && (
        <p role="status">
          You are logged out here, but {host} may let the next user of this browser in without asking. On a
          shared computer, log out there as well.
        </p>
      )}
      {oidc && (
        <>
          <a className="button primary" href={`${oidc.address}?return=${encodeURIComponent(back)}`}>
            Log in with {oidc.host}
          </a>
          {first.fault === 'not-allowed' && (
            <a className="button" href={`${oidc.address}?again=1&return=${encodeURIComponent(back)}`}>
              Log in with another account
            </a>
          )}
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
          The operator of this server creates keys with{' '}
          <code>tomaat keys create --label NAME --scope {purpose.scope}</code>; the first one was shown, or
          written to a file, when the server first started. This page does not store the key. You stay logged
          in until you log out or close the browser, and no longer than the time in the account menu.
        </p>
        <Contact of={me.contact} />
      </form>
    </section>
  );
}

// ---- The menu ----

const scopeTexts: Record<string, string> = {
  predict: 'Can see services and request predictions',
  admin: 'Has every permission; sees only its own jobs',
};

/** Who is logged in, and the logout button. */
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
    let next = `${basePath}/`;
    try {
      const left = await client.logOut();
      if (left) next = safeAddress(left.issuer.address) ?? `${basePath}/?logged-out=here`;
    } catch (error) {
      if (!(error instanceof TomaatError) || error.code !== 'UNAUTHORIZED') {
        setFault(faultOf(error).message);
        return;
      }
    }
    await forgetModels();
    // A page without data of the previous user, via the issuer if it ends sessions.
    location.assign(next);
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
