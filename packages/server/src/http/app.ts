import { randomUUID } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { createServer as createHttpsServer, type Server as HttpsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import { TomaatError } from '@tomaat/core';
import fastify, {
  type FastifyBaseLogger,
  type FastifyInstance,
  type FastifyReply,
  type FastifyRequest,
  LogController,
} from 'fastify';
import { JoinedMessage } from '../intake/joined-message.ts';
import { sendProblem } from '../problem/problem.ts';
import type { Certificate } from '../tls.ts';
import { answerParseError, checkFraming, headerBytes } from './framing.ts';
import { tcpKeepAliveMs } from './keep-alive.ts';
import { trackMethods } from './methods.ts';
import { openPublicAddress, type PublicAddress } from './public-address.ts';
import { rewriteRequest } from './rewrite-request.ts';
import { hangUpOnSlowReaders, type Pace } from './slow-readers.ts';
import { refusePlainHttp } from './tls-port.ts';

declare module 'fastify' {
  interface FastifyInstance {
    /** The address at which others reach this app. */
    publicAddress: PublicAddress;
    /** Text of the link to the page in a Problem that a browser shows. */
    pageLink: string;
    /** Lets the page of an allowed origin read the answer, before anything can be refused (access/access.ts). */
    letRead(request: FastifyRequest, reply: FastifyReply): void;
  }
}

export interface AppOptions {
  pace?: Pace;
  /** If missing: no path and no own name. */
  address?: PublicAddress;
  /** The address that says what else there is, and the link to the page, for who asks for what is not. */
  index?: { readonly path: string; readonly lists: string; readonly link: string };
}

const servicesIndex = { path: '/api/services', lists: 'the services', link: 'See the available services' };

/**
 * What the HTTP of server, registry and gateway has in common: bodies reach the routes as streams, every error
 * is sent as Problem Details, slow headers and slow readers are cut off while uploads may take long.
 */
export function createApp(
  logger: FastifyBaseLogger | false,
  { pace, address = openPublicAddress(), index = servicesIndex }: AppOptions = {},
): FastifyInstance {
  const app: FastifyInstance = fastify({
    loggerInstance: logger || undefined,
    logController: new LogController({ disableRequestLogging: true }),
    genReqId: () => randomUUID(),
    routerOptions: { ignoreTrailingSlash: true, maxParamLength: 200 },
    // An upload may take hours: its pace is checked where it is read (intake/byte-counter.ts).
    requestTimeout: 0,
    forceCloseConnections: true,
    http: connectionOptions,
    clientErrorHandler: answerParseError,
    frameworkErrors: (error, request, reply) => {
      app.letRead(request, reply);
      return sendProblem(error, request, reply);
    },
    rewriteUrl: (request) => rewriteRequest(request as IncomingMessage, address),
  }) as unknown as FastifyInstance;
  app.decorate('publicAddress', address);
  app.decorate('pageLink', index.link);
  app.decorate('letRead', () => {});
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', (_request, payload, done) => done(null, payload));
  hangUpOnSlowReaders(app, pace);
  const methodsOf = trackMethods(app);
  app.setErrorHandler(sendProblem);
  /** @throws TomaatError METHOD_NOT_ALLOWED where the address takes only other methods. */
  const checkMethod = (request: FastifyRequest, reply: FastifyReply) => {
    const methods = methodsOf(request.url.split('?')[0]);
    // A file of the page that is not there is at an address with a route.
    if (methods.length === 0 || methods.includes(request.method)) return;
    reply.header('allow', methods.join(', '));
    throw new TomaatError(
      'METHOD_NOT_ALLOWED',
      `This address does not take ${request.method}. Send ${methods.join(' or ')}.`,
    );
  };
  const nothingHere = () =>
    new TomaatError(
      'NOT_FOUND',
      `There is nothing at this address. GET ${address.pathOf(index.path)} lists ${index.lists}.`,
    );
  app.setNotFoundHandler((request, reply) => {
    checkMethod(request, reply);
    throw nothingHere();
  });
  // Before the body is looked at: a wrong method must not be reported as a wrong content type.
  app.addHook('preParsing', async (request, reply) => {
    if (request.is404) checkMethod(request, reply);
  });
  const refused = new WeakSet<Socket>();
  app.addHook('onRequest', async (request, reply) => {
    app.letRead(request, reply);
    reply.header('x-content-type-options', 'nosniff');
    const { socket } = request.raw;
    if (refused.has(socket))
      throw new TomaatError(
        'BAD_REQUEST',
        'An earlier request of this connection was malformed. Send this one over a new connection.',
      );
    try {
      checkFraming(request.raw);
    } catch (error) {
      // What follows on this connection may be an attempt to smuggle a request past a proxy: ignore all of it.
      refused.add(socket);
      reply.header('connection', 'close');
      if (request.is404) checkMethod(request, reply);
      throw error;
    }
    // No id has a NUL, and PostgreSQL has no text for one. PUT checks the id that it is to create.
    if (request.method !== 'PUT' && request.url.split('?')[0].includes('%00')) throw nothingHere();
  });
  app.addHook('onResponse', async (request, reply) => {
    request.log.debug(
      {
        method: request.method,
        route: request.routeOptions.url,
        status: reply.statusCode,
        ms: Math.round(reply.elapsedTime),
      },
      'request',
    );
  });
  return app;
}

const connectionOptions = {
  IncomingMessage: JoinedMessage,
  keepAlive: true,
  keepAliveInitialDelay: tcpKeepAliveMs,
  headersTimeout: 15_000,
  connectionsCheckingInterval: 1_000,
  keepAliveTimeout: 65_000,
  maxHeaderSize: headerBytes,
  // Checked by checkFraming, which answers with a Problem.
  requireHostHeader: false,
};

export interface Listener {
  readonly port: number;
  close(): Promise<void>;
}

export interface TlsListener extends Listener {
  /** New connections get this certificate; open ones keep theirs. */
  renew(certificate: Certificate): void;
}

/** Opens the app on a port; `strict: false` moves on to the next free port when this one is taken. */
export async function listenHttp(
  app: FastifyInstance,
  host: string,
  port: number,
  strict = true,
): Promise<Listener> {
  await app.ready();
  const bound = await firstFree(port, strict, host, (candidate) =>
    app.listen({ host, port: candidate }).then(() => {}),
  );
  const address = app.server.address() as AddressInfo;
  return { port: address?.port ?? bound, close: () => app.close() };
}

/** The same app over TLS, on a separate port. */
export async function listenHttps(
  app: FastifyInstance,
  certificate: Certificate,
  host: string,
  port: number,
  strict = true,
  /** Called with each request before the app handles it. */
  onRequest?: (request: IncomingMessage) => void,
): Promise<TlsListener> {
  await app.ready();
  const server: HttpsServer = createHttpsServer(
    { ...contextOf(certificate), requestTimeout: 0, ...connectionOptions },
    (request, response) => {
      onRequest?.(request);
      app.routing(request, response);
    },
  );
  server.on('clientError', answerParseError);
  const connections = refusePlainHttp(server);
  await firstFree(port, strict, host, (candidate) => {
    return new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(candidate, host, () => {
        server.off('error', reject);
        resolve();
      });
    });
  });
  return {
    port: (server.address() as AddressInfo).port,
    renew: (renewed) => server.setSecureContext(contextOf(renewed)),
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        connections.closeAllConnections();
      }),
  };
}

const contextOf = ({ key, cert }: Certificate) => ({ key, cert, minVersion: 'TLSv1.2' as const });

async function firstFree(
  port: number,
  strict: boolean,
  host: string,
  listen: (port: number) => Promise<void>,
): Promise<number> {
  for (let candidate = port; ; candidate++) {
    try {
      await listen(candidate);
      return candidate;
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code;
      if (code === 'EADDRINUSE' && !strict && port !== 0 && candidate < port + 100) continue;
      if (code === 'EADDRINUSE') {
        throw new TomaatError(
          'CONFLICT',
          `Port ${candidate} on ${host} is already in use. Choose another with --port, or stop the program that uses it.`,
        );
      }
      if (code === 'EACCES' || code === 'EADDRNOTAVAIL') {
        throw new TomaatError(
          'CONFLICT',
          `Cannot listen on ${host}:${candidate} (${code}). Check --host and --port.`,
        );
      }
      throw error;
    }
  }
}
