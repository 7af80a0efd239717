import { randomUUID } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { createServer as createHttpsServer, type Server as HttpsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import { TomaatError } from '@tomaat/core';
import fastify, { type FastifyBaseLogger, type FastifyInstance, LogController } from 'fastify';
import { JoinedMessage } from '../intake/joined-message.ts';
import type { Certificate } from '../tls.ts';
import { answerParseError, checkFraming, headerBytes } from './framing.ts';
import { trackMethods } from './methods.ts';
import { sendProblem } from './problem.ts';
import { hangUpOnSlowReaders, type Pace } from './slow-readers.ts';

/**
 * What the server's and the registry's HTTP have in common: bodies reach the routes as streams, every error
 * leaves as Problem Details, slow headers and slow readers are cut off while uploads may take their time.
 */
export function createApp(logger: FastifyBaseLogger | false, pace?: Pace): FastifyInstance {
  const app = fastify({
    loggerInstance: logger || undefined,
    logController: new LogController({ disableRequestLogging: true }),
    genReqId: () => randomUUID(),
    routerOptions: { ignoreTrailingSlash: true, maxParamLength: 200 },
    // An upload may take hours: its pace is policed where it is read (intake/byte-counter.ts).
    requestTimeout: 0,
    forceCloseConnections: true,
    http: connectionOptions,
    clientErrorHandler: answerParseError,
    frameworkErrors: sendProblem,
  }) as unknown as FastifyInstance;
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', (_request, payload, done) => done(null, payload));
  hangUpOnSlowReaders(app, pace);
  const methodsOf = trackMethods(app);
  app.setErrorHandler(sendProblem);
  app.setNotFoundHandler((request, reply) => {
    const methods = methodsOf(request.url.split('?')[0]);
    if (methods.length === 0) {
      throw new TomaatError(
        'NOT_FOUND',
        'There is nothing at this address. GET /api/services lists what there is.',
      );
    }
    reply.header('allow', methods.join(', '));
    throw new TomaatError(
      'METHOD_NOT_ALLOWED',
      `This address does not take ${request.method}. Send ${methods.join(' or ')}.`,
    );
  });
  const refused = new WeakSet<Socket>();
  app.addHook('onRequest', async (request, reply) => {
    reply.header('x-content-type-options', 'nosniff');
    const { socket } = request.raw;
    if (!refused.has(socket)) {
      try {
        checkFraming(request.raw);
        return;
      } catch (error) {
        // What follows on this connection may be what somebody wants to slip past a proxy: none of it is done.
        refused.add(socket);
        reply.header('connection', 'close');
        throw error;
      }
    }
    throw new TomaatError(
      'BAD_REQUEST',
      'An earlier request of this connection was malformed. Send this one over a new connection.',
    );
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

/** The same app over TLS, on a port of its own. */
export async function listenHttps(
  app: FastifyInstance,
  certificate: Certificate,
  host: string,
  port: number,
  strict = true,
  /** Is told of each request before the app is. */
  onRequest?: (request: IncomingMessage) => void,
): Promise<Listener> {
  await app.ready();
  const server: HttpsServer = createHttpsServer(
    {
      key: certificate.key,
      cert: certificate.cert,
      minVersion: 'TLSv1.2',
      requestTimeout: 0,
      ...connectionOptions,
    },
    (request, response) => {
      onRequest?.(request);
      app.routing(request, response);
    },
  );
  server.on('clientError', answerParseError);
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
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

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
          `Port ${candidate} on ${host} is taken. Choose another with --port, or stop what uses it.`,
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
