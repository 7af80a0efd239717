import { createHash, randomBytes } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type CryptoKey, exportJWK, generateKeyPair, type JWK, type JWTPayload, SignJWT } from 'jose';

/** A real OpenID Connect issuer on loopback, whose user, answers and faults a test chooses. */
export interface OidcProvider extends AsyncDisposable {
  readonly issuer: string;
  readonly clientId: string;
  readonly clientSecret: string;
  /** Who logs in there at once, without being asked. */
  claims: JWTPayload;
  /** Changes the ID token that the token endpoint gives: its claims, or the whole token. */
  changeClaims: (claims: JWTPayload) => JWTPayload;
  changeToken: (token: string, claims: JWTPayload) => string | Promise<string>;
  /** Says no, with this error, instead of giving a code. */
  refusal?: string;
  /** Shows a button instead of coming back at once, for a browser. */
  asks: boolean;
  down: boolean;
  /** More of its metadata; null takes a field out. */
  metadata: Record<string, unknown>;
  /** What its userinfo endpoint answers, if the metadata names it (`/userinfo`); undefined: it fails. */
  userinfo?: JWTPayload;
  /** How clients said who they are at the token endpoint. */
  readonly authentications: ('basic' | 'post' | 'none')[];
  readonly publicJwk: JWK;
  readonly privateKey: CryptoKey;
  /** What went wrong in it, and not because a test wanted it. */
  readonly faults: unknown[];
  /** Requests by path. */
  readonly asked: string[];
  sign(claims: JWTPayload, header?: Record<string, unknown>): Promise<string>;
}

export const keyId = 'key-1';

export async function openOidcProvider(alg = 'RS256'): Promise<OidcProvider> {
  const { privateKey, publicKey } = await generateKeyPair(alg, { extractable: true });
  const publicJwk: JWK = { ...(await exportJWK(publicKey)), kid: keyId, alg, use: 'sig' };
  const codes = new Map<string, { challenge: string; redirectUri: string; nonce: string }>();
  const server = createServer((request, response) => {
    answer(request, response).catch((error: unknown) => {
      provider.faults.push(error);
      response.statusCode = 500;
      response.end(String(error));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;

  const provider: OidcProvider = {
    issuer,
    clientId: 'tomaat-test',
    clientSecret: 'a+secret with: signs%',
    claims: { sub: 'u-17', name: 'Ada Example', groups: ['radiology'], email: 'ada@hospital.example' },
    changeClaims: (claims) => claims,
    changeToken: (token) => token,
    asks: false,
    down: false,
    metadata: {},
    authentications: [],
    publicJwk,
    privateKey,
    faults: [],
    asked: [],
    sign: (claims, header = {}) =>
      new SignJWT(claims).setProtectedHeader({ alg, kid: keyId, ...header }).sign(privateKey),
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url!, issuer);
    provider.asked.push(url.pathname);
    const json = (status: number, body: unknown) => {
      response.writeHead(status, { 'content-type': 'application/json' });
      response.end(JSON.stringify(body));
    };
    if (provider.down) return json(503, { error: 'temporarily_unavailable' });
    if (url.pathname === '/.well-known/openid-configuration') {
      const metadata = {
        issuer,
        authorization_endpoint: `${issuer}/authorize`,
        token_endpoint: `${issuer}/token`,
        jwks_uri: `${issuer}/keys`,
        response_types_supported: ['code'],
        subject_types_supported: ['public'],
        id_token_signing_alg_values_supported: [alg],
        code_challenge_methods_supported: ['S256'],
        ...provider.metadata,
      };
      return json(200, Object.fromEntries(Object.entries(metadata).filter(([, value]) => value !== null)));
    }
    if (url.pathname === '/keys') return json(200, { keys: [publicJwk] });
    if (url.pathname === '/authorize') return authorize(url, response);
    if (url.pathname === '/token') return token(request, json);
    if (url.pathname === '/userinfo' && provider.userinfo) return json(200, provider.userinfo);
    json(404, { error: 'not_found' });
  }

  function authorize(url: URL, response: ServerResponse): void {
    const query = url.searchParams;
    const redirectUri = query.get('redirect_uri')!;
    const back = new URL(redirectUri);
    back.searchParams.set('state', query.get('state')!);
    const challenge = query.get('code_challenge') ?? '';
    const isWhole =
      query.get('response_type') === 'code' &&
      query.get('client_id') === provider.clientId &&
      query.get('code_challenge_method') === 'S256' &&
      query.get('scope')!.split(' ').includes('openid');
    if (provider.refusal || !isWhole) back.searchParams.set('error', provider.refusal ?? 'invalid_request');
    else {
      const code = randomBytes(16).toString('hex');
      codes.set(code, { challenge, redirectUri, nonce: query.get('nonce')! });
      back.searchParams.set('code', code);
    }
    if (provider.asks) {
      response.writeHead(200, { 'content-type': 'text/html' });
      response.end(`<h1>Issuer</h1><a href="${back.href.replaceAll('&', '&amp;')}">Log in as Ada</a>`);
      return;
    }
    response.writeHead(302, { location: back.href });
    response.end();
  }

  async function token(
    request: IncomingMessage,
    json: (status: number, body: unknown) => void,
  ): Promise<void> {
    let text = '';
    for await (const chunk of request) text += chunk;
    const form = new URLSearchParams(text);
    const basic = request.headers.authorization?.replace(/^Basic /, '');
    provider.authentications.push(
      basic !== undefined ? 'basic' : form.has('client_secret') ? 'post' : 'none',
    );
    const [id, secret] =
      basic === undefined
        ? [form.get('client_id'), form.get('client_secret')]
        : Buffer.from(basic, 'base64')
            .toString()
            .split(':')
            .map((text) => decodeURIComponent(text.replaceAll('+', ' ')));
    if (id !== provider.clientId || secret !== provider.clientSecret)
      return json(401, { error: 'invalid_client' });
    const code = codes.get(form.get('code') ?? '');
    codes.delete(form.get('code') ?? '');
    const verifier = form.get('code_verifier') ?? '';
    const challenge = createHash('sha256').update(verifier).digest('base64url');
    if (!code || code.redirectUri !== form.get('redirect_uri') || code.challenge !== challenge)
      return json(400, { error: 'invalid_grant' });
    const seconds = Math.floor(Date.now() / 1000);
    const claims = provider.changeClaims({
      iss: issuer,
      aud: provider.clientId,
      iat: seconds,
      exp: seconds + 300,
      nonce: code.nonce,
      ...provider.claims,
    });
    const idToken = await provider.changeToken(await provider.sign(claims), claims);
    json(200, { access_token: 'opaque', token_type: 'Bearer', expires_in: 300, id_token: idToken });
  }
  return provider;
}
