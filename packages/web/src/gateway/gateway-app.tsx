import { Brand, FaultBoundary, ThemeSwitch } from '../frame.tsx';
import { AccountMenu, LoginGate, useMe } from '../login.tsx';
import { GatewayPage } from './gateway-page.tsx';

/** The page of a gateway, for those who run it. */
export function GatewayApp() {
  return (
    <>
      <a className="skip" href="#main">
        Skip to content
      </a>
      <Header />
      <main id="main" tabIndex={-1}>
        <FaultBoundary>
          <LoginGate
            purpose={{ text: 'Log in to see the series between the PACS and the services.', scope: 'admin' }}
          >
            <GatewayPage />
          </LoginGate>
        </FaultBoundary>
      </main>
      <footer>
        <p>For research use. Not a medical device. This page loads nothing from other hosts.</p>
      </footer>
    </>
  );
}

function Header() {
  const me = useMe();
  return (
    <header className="top">
      <div className="top-inner">
        <Brand kind="gateway" />
        <nav aria-label="Main">
          <ThemeSwitch />
          {me.data?.who && <AccountMenu who={me.data.who} host={me.data.ways.oidc?.host} />}
        </nav>
      </div>
    </header>
  );
}
