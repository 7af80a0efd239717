import type { FastifyInstance } from 'fastify';
import { markLegacy } from '../access/access.ts';
import { hostForOthers, hostForSelf } from '../addresses.ts';
import type { Certificates } from '../certificates.ts';
import { type Listener, listenHttp, listenHttps } from '../http/app.ts';
import type { FilledOptions } from './options.ts';

/** Where a server can be reached. */
export interface ServerAddresses {
  /** HTTP on loopback; undefined on any other address. */
  readonly url?: string;
  readonly tlsUrl: string;
  /** The address for this machine itself, whatever its name resolves to. */
  readonly localUrl: string;
  /** The address that is announced. */
  readonly announcedUrl: string;
  /** Of the port without login, which v1 clients use if it serves them. */
  readonly legacyUrl?: string;
}

/** The open ports of a server. Disposing closes them. */
export interface Listeners extends AsyncDisposable {
  readonly addresses: ServerAddresses;
}

/** Opens the ports: on loopback HTTP and HTTPS, elsewhere HTTPS alone; and one for faces without login if there is to be one. */
export async function openListeners(
  app: FastifyInstance,
  certificates: Certificates,
  options: FilledOptions,
): Promise<Listeners> {
  const { host, isLocal, publicUrl } = options;
  await using opened = new AsyncDisposableStack();
  let http: Listener | undefined;
  if (isLocal) {
    const listener = await listenHttp(app, host, options.port, options.strictPort ?? false);
    opened.defer(() => listener.close());
    http = listener;
  } else {
    opened.defer(() => app.close());
  }
  const isStrict = (isLocal ? options.strictTlsPort : options.strictPort) ?? false;
  const https = await listenHttps(app, certificates.current, host, options.tlsPort, isStrict);
  opened.defer(() => https.close());
  const legacy =
    options.legacyPort === undefined
      ? undefined
      : await listenHttps(app, certificates.current, host, options.legacyPort, true, markLegacy);
  if (legacy) opened.defer(() => legacy.close());
  certificates.onChange((certificate) => {
    for (const listener of [https, legacy]) listener?.renew(certificate);
  });

  const name = hostForOthers(host);
  const url = http && `http://${name}:${http.port}`;
  const tlsUrl = `https://${name}:${https.port}`;
  const stack = opened.move();
  return {
    addresses: {
      url,
      tlsUrl,
      localUrl: url ?? `https://${hostForSelf(host)}:${https.port}`,
      announcedUrl: publicUrl ?? url ?? tlsUrl,
      legacyUrl: legacy && `https://${name}:${legacy.port}`,
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}
