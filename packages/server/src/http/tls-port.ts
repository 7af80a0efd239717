import type { Server as HttpsServer } from 'node:https';
import type { Socket } from 'node:net';
import { TomaatError } from '@tomaat/core';
import { rawProblem } from './framing.ts';

/** How long a connection may be silent before its first byte. */
const firstByteMs = 15_000;
/** How long the client's remaining bytes are read after the answer, so that it gets to read the answer. */
const lingerMs = 2_000;
/** The first byte of a TLS record that begins a handshake (RFC 8446, 5.1). */
const handshake = 0x16;

export interface TlsPort {
  /** Closes every connection, including those before their first request. */
  closeAllConnections(): void;
}

/**
 * Answers plain HTTP at an HTTPS port with a 400 that explains it; TLS alone would close the connection without an answer.
 * Call it before the server listens.
 */
export function refusePlainHttp(server: HttpsServer): TlsPort {
  // The listeners of node:tls, which start the handshake.
  const begin = server.listeners('connection') as ((this: HttpsServer, socket: Socket) => void)[];
  const sockets = new Set<Socket>();
  server.removeAllListeners('connection');
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
    const giveUp = () => socket.destroy();
    socket.on('error', giveUp).setTimeout(firstByteMs, giveUp);
    socket.once('readable', () => {
      const first: Buffer | null = socket.read();
      // It ended without a byte.
      if (!first) return giveUp();
      if (first[0] !== handshake) return refuse(socket, first);
      socket.off('error', giveUp).off('timeout', giveUp).setTimeout(0);
      socket.unshift(first);
      for (const listener of begin) listener.call(server, socket);
    });
  });
  return {
    closeAllConnections() {
      for (const socket of sockets) socket.destroy();
    },
  };
}

function refuse(socket: Socket, first: Buffer): void {
  const head = first.toString('latin1', 0, 8192);
  const host =
    /^host:[ \t]{0,8}([a-z0-9._-]{1,253}(?::\d{1,5})?|\[[0-9a-f:.]{2,45}\](?::\d{1,5})?)[ \t]{0,8}\r?$/im.exec(
      head,
    )?.[1] ?? `HOST:${socket.localPort}`;
  const error = new TomaatError(
    'BAD_REQUEST',
    `This port speaks HTTPS, and the request came as plain HTTP. Use https://${host} instead.`,
  );
  const isBrowser = /^accept:[^\r\n]{0,2000}\btext\/html\b/im.test(head);
  socket.end(
    rawProblem(error, isBrowser ? { link: `https://${host}/`, text: `https://${host}` } : undefined),
  );
  setTimeout(() => socket.destroy(), lingerMs).unref();
  socket.resume();
}
