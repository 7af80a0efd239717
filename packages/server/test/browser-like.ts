import { request as httpRequest } from 'node:http';
import { buffer } from 'node:stream/consumers';

/** One request; fetch of Node says of itself that it is no navigation, whatever the headers are. */
function request(address: string, init: RequestInit, headers: Headers): Promise<Response> {
  return new Promise((resolve, reject) => {
    const options = { method: init.method ?? 'GET', headers: Object.fromEntries(headers) };
    const sent = httpRequest(address, options, async (answer) => {
      const given = new Headers();
      for (const [name, values] of Object.entries(answer.headersDistinct))
        for (const value of values ?? []) given.append(name, value);
      const body = await buffer(answer);
      const status = answer.statusCode!;
      resolve(new Response(body.length > 0 ? new Uint8Array(body) : null, { status, headers: given }));
    });
    sent.on('error', reject);
    sent.end(init.body as string | Uint8Array | undefined);
  });
}

/**
 * What a browser does of itself when it goes to addresses: keeps cookies (by host, not by port), sends them as SameSite
 * says, follows redirects, and says where a request comes from.
 */
export interface BrowserLike {
  readonly cookies: Map<string, { value: string; sameSite: string; attributes: string }>;
  /** Opens an address and follows; the last answer. `from`: the page with the link, missing for a typed address. */
  open(address: string, from?: string): Promise<Response & { address: string }>;
  /** Sends a form of the page at `from`, and follows. */
  submit(
    address: string,
    from: string,
    form: Record<string, string>,
  ): Promise<Response & { address: string }>;
  /** One step, without following. */
  step(address: string, from?: string): Promise<Response>;
  /** What a script of the page at `from` asks. */
  fetch(address: string, from: string, init?: RequestInit): Promise<Response>;
}

export function createBrowserLike(): BrowserLike {
  const cookies: BrowserLike['cookies'] = new Map();
  // Sites are hosts here: ports do not count, and tests use `localhost` and `127.0.0.1`.
  const siteOf = (address: string) => new URL(address).hostname;
  const relation = (from: string, to: string) =>
    new URL(from).origin === new URL(to).origin
      ? 'same-origin'
      : siteOf(from) === siteOf(to)
        ? 'same-site'
        : 'cross-site';
  const keyOf = (address: string, name: string) => `${siteOf(address)} ${name}`;

  async function send(address: string, init: RequestInit, site: string, isNavigation: boolean) {
    const allowed = [...cookies].filter(
      ([key, { sameSite }]) =>
        key.startsWith(`${siteOf(address)} `) &&
        (site !== 'cross-site' || (isNavigation && sameSite.toLowerCase() === 'lax')),
    );
    const headers = new Headers(init.headers);
    headers.set('sec-fetch-site', site);
    headers.set('sec-fetch-mode', isNavigation ? 'navigate' : 'cors');
    headers.set('sec-fetch-dest', isNavigation ? 'document' : 'empty');
    if (allowed.length > 0)
      headers.set('cookie', allowed.map(([key, { value }]) => `${key.split(' ')[1]}=${value}`).join('; '));
    const response = await request(address, init, headers);
    for (const line of response.headers.getSetCookie()) {
      const [pair, ...attributes] = line.split(/; */);
      const [name, value] = pair.split('=');
      const sameSite = attributes.find((text) => /^samesite=/i.test(text))?.split('=')[1] ?? 'Lax';
      const expires = attributes.find((text) => /^expires=/i.test(text))?.slice('expires='.length);
      const isPast = expires !== undefined && Date.parse(expires) < Date.now();
      if (isPast || attributes.some((text) => /^max-age=0$/i.test(text)))
        cookies.delete(keyOf(address, name));
      else cookies.set(keyOf(address, name), { value, sameSite, attributes: attributes.join('; ') });
    }
    return response;
  }

  const html = { headers: { accept: 'text/html,*/*;q=0.8' } };
  async function follow(address: string, from: string | undefined, init: RequestInit) {
    let site = from === undefined ? 'none' : relation(from, address);
    for (let step = 0; step < 10; step++) {
      const response = await send(address, step === 0 ? init : html, site, true);
      const location = response.headers.get('location');
      if (response.status < 300 || response.status > 399 || location === null)
        return Object.assign(response, { address });
      const next = new URL(location, address).href;
      // Once a chain of redirects has left the site it stays foreign.
      if (relation(address, next) === 'cross-site') site = 'cross-site';
      else if (site === 'none' || site === 'same-origin') site = relation(address, next);
      address = next;
    }
    throw new Error('it goes round in circles');
  }

  return {
    cookies,
    open: (address, from) => follow(address, from, html),
    submit(address, from, form) {
      const headers = { ...html.headers, 'content-type': 'application/x-www-form-urlencoded' };
      const body = new URLSearchParams(form).toString();
      return follow(address, from, { method: 'POST', headers, body });
    },
    step: (address, from) => send(address, html, from === undefined ? 'none' : relation(from, address), true),
    fetch(address, from, init = {}) {
      const site = relation(from, address);
      const headers = new Headers(init.headers);
      const method = init.method ?? 'GET';
      if (site !== 'same-origin' || (method !== 'GET' && method !== 'HEAD'))
        headers.set('origin', new URL(from).origin);
      return send(address, { ...init, headers }, site, false);
    },
  };
}
