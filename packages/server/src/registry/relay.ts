import { type ClientRequest, request as httpRequest, type IncomingMessage } from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import { isIP } from 'node:net';
import type { Readable, Writable } from 'node:stream';
import type { Entry } from '@tomaat/client';
import { TomaatError, withoutTrailingSlashes } from '@tomaat/core';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { openPrincipal } from '../access/principal.ts';
import { addTo, mayHaveMore } from '../fair-share.ts';
import { fitHeaders, headerBytes, relayedHeader } from '../http/header-budget.ts';
import { tcpKeepAliveMs } from '../http/keep-alive.ts';
import { receiptLink } from '../http/receipts.ts';
import { takeOver } from '../http/send.ts';
import { connectTls } from '../trust/guarded-fetch.ts';
import { certificateOf, type Entries } from './entries.ts';
import type { Target, TargetPolicy } from './targets.ts';

/**
 * The promise through the registry: `POST /{task}/{anatomy}` goes to a server that offers it. The body and the response are
 * streamed, never buffered. Once the first byte of the body was sent, nothing is retried: a failure after that is 502. If
 * the caller disconnects, its request at the server is cancelled.
 */

/** How a relayed request ended. */
export const relayOutcomes = [
  'answered',
  'unknown',
  'unreachable',
  'failed',
  'broken',
  'caller-left',
  'refused',
] as const;
export type RelayOutcome = (typeof relayOutcomes)[number];

/** Tells the caller that its result is still being computed; called whenever the server tells the registry so. */
export type KeepAlive = (request: FastifyRequest, reply: FastifyReply) => void;

export interface RelayOptions {
  entries: Pick<Entries, 'candidates' | 'addresses'>;
  policy: TargetPolicy;
  /** Certificates (PEM) that servers beyond this machine may show, besides those that Node trusts. */
  trust?: string;
  keepAlive?: KeepAlive;
  /** How long a server may take to accept the connection and report that it is ready. */
  probeMs?: number;
  maxConcurrent?: number;
  onOutcome?: (outcome: RelayOutcome) => void;
}

export interface RelayAddress {
  task: string;
  anatomy: string;
  /** SID, service id or name: which one, where several services have the address. */
  service?: string;
}

type Headers = Record<string, string | string[] | number>;

export type Relay = (request: FastifyRequest, reply: FastifyReply, address: RelayAddress) => Promise<void>;

interface Tried {
  sid: string;
  name: string;
  server: string;
  reason: string;
}

/** The caller's headers that are forwarded to the server. `authorization` goes too, to the server beside the registry. */
const passedOn = [
  'content-type',
  'content-length',
  'content-encoding',
  'content-disposition',
  'accept',
  'accept-language',
  'prefer',
  'idempotency-key',
  'user-agent',
] as const;
/** The server's headers that are forwarded to the caller, besides all that begin with `tomaat-`. */
const passedBack = [
  'content-type',
  'content-length',
  'content-disposition',
  'content-encoding',
  'retry-after',
  'www-authenticate',
] as const;

const maxProbed = 32;
const probedAtOnce = 8;
/** How long the rest of a body is read after an early answer, so that callers that write before they read get it. */
const drainMs = 30_000;
const maxReadRestBytes = 2 ** 28;
const maxReadRestMs = 10_000;

/** @throws (the relay) TomaatError NOT_FOUND, UNREACHABLE, UPSTREAM or BUSY, all before an answer has begun. */
export function createRelay(options: RelayOptions): Relay {
  const { entries, policy, probeMs = 2000, maxConcurrent = 256 } = options;
  /** Requests under way, by owner. */
  const running = new Map<string, number>();

  async function choose(
    address: RelayAddress,
    signal: AbortSignal,
  ): Promise<{ entry: Entry; target: Target }> {
    const path = `${address.task}/${address.anatomy}`;
    const all = await entries.candidates(address.task, address.anatomy);
    if (all.length === 0) {
      const available = await entries.addresses();
      throw new TomaatError(
        'NOT_FOUND',
        available.length === 0
          ? `No server offers ${path}, and no other services are announced. Announce a service to this registry first.`
          : `No server offers ${path}. Available: ${available.slice(0, 40).join(', ')}${available.length > 40 ? ' …' : ''}.`,
        { detail: { available } },
      );
    }
    const wanted = address.service?.toLowerCase();
    const chosen = wanted === undefined ? all : all.filter((entry) => isCalled(entry, wanted));
    if (chosen.length === 0) {
      const services = all.map(({ sid, serviceId, name }) => ({ sid, id: serviceId, name }));
      throw new TomaatError(
        'NOT_FOUND',
        `No service with the id '${address.service}' offers ${path}. Available: ${services.map(({ id, sid }) => id ?? sid).join(', ')}.`,
        { field: 'service', detail: { services } },
      );
    }
    const tried: Tried[] = [];
    for (let at = 0; at < Math.min(chosen.length, maxProbed); at += probedAtOnce) {
      const ready = await firstReady(chosen.slice(at, at + probedAtOnce), signal, tried);
      if (ready) return ready;
    }
    const list = tried.map(({ name, server, reason }) => `${name} at ${server}: ${reason}`).join('; ');
    throw new TomaatError(
      'UNREACHABLE',
      `No server that offers ${path} can take the request now (${list}). Try again later.`,
      {
        detail: { tried },
      },
    );
  }

  /** Asks all servers in parallel whether they are ready, and takes the first ready one in the given order. */
  async function firstReady(candidates: Entry[], signal: AbortSignal, tried: Tried[]) {
    const done = new AbortController();
    const limit = AbortSignal.any([signal, done.signal, AbortSignal.timeout(probeMs)]);
    const answers = candidates.map((entry) =>
      findReady(entry, limit).then(
        (target) => ({ entry, target }),
        (error: unknown) => ({ entry, reason: describeFailure(error, probeMs) }),
      ),
    );
    try {
      for (const answer of answers) {
        const result = await answer;
        if ('target' in result) return result;
        const { sid, name, serverUrl = '' } = result.entry;
        tried.push({ sid, name, server: serverUrl, reason: result.reason });
      }
    } finally {
      done.abort();
    }
  }

  async function findReady(entry: Entry, signal: AbortSignal): Promise<Target> {
    const targets = await abortable(policy.resolve(entry.serverUrl ?? ''), signal);
    try {
      const trust = { ca: options.trust, certificate: certificateOf(entry) };
      return await Promise.any(targets.map((target) => checkReady(target, trust, signal)));
    } catch (error) {
      throw error instanceof AggregateError ? error.errors[0] : error;
    }
  }

  function checkReady(target: Target, trust: Trust, signal: AbortSignal): Promise<Target> {
    return new Promise((resolve, reject) => {
      const probe = open(target, 'GET', '/health/ready', {}, trust, signal);
      probe.on('error', reject);
      probe.once('response', (answer) => {
        // Only the status matters; a body of whatever length is not read.
        answer.destroy();
        if (answer.statusCode === 200) resolve(target);
        else reject(new TomaatError('UNREACHABLE', `it is not ready (${answer.statusCode})`));
      });
      probe.end();
    });
  }

  return async (request, reply, address) => {
    const settle = (outcome: RelayOutcome) => options.onOutcome?.(outcome);
    if (request.headers[relayedHeader] !== undefined) {
      settle('refused');
      throw new TomaatError(
        'UPSTREAM',
        'The request came from another registry, and registries do not serve each other. Announce servers here, not registries.',
      );
    }
    const { owner } = request.principal ?? openPrincipal;
    if (!mayHaveMore(running, owner, maxConcurrent)) {
      settle('refused');
      throw new TomaatError(
        'BUSY',
        `The registry is at its limit of ${maxConcurrent} forwarded requests. Try again later.`,
      );
    }
    addTo(running, owner, 1);
    const gone = new AbortController();
    const onClose = () => {
      if (!reply.raw.writableFinished) gone.abort();
    };
    reply.raw.once('close', onClose);
    try {
      const { entry, target } = await choose(address, gone.signal);
      settle(await forward(request, reply, { address, entry, target }, gone.signal));
    } catch (error) {
      if (gone.signal.aborted) {
        // Nobody is left to notify.
        reply.hijack();
        reply.raw.destroy();
        return settle('caller-left');
      }
      if (!(error instanceof TomaatError)) throw error;
      settle(
        error.code === 'NOT_FOUND' ? 'unknown' : error.code === 'UNREACHABLE' ? 'unreachable' : 'failed',
      );
      await readRest(request.raw);
      throw error;
    } finally {
      reply.raw.off('close', onClose);
      addTo(running, owner, -1);
    }
  };

  function forward(
    request: FastifyRequest,
    reply: FastifyReply,
    { address, entry, target }: { address: RelayAddress; entry: Entry; target: Target },
    gone: AbortSignal,
  ) {
    return new Promise<RelayOutcome>((resolve, reject) => {
      const path = `/${address.task}/${address.anatomy}?${queryFor(request, entry)}`;
      const trust = { ca: options.trust, certificate: certificateOf(entry) };
      const own = ownHeaders(reply, entry);
      const upstream = open(target, 'POST', path, headerFor(request, target, own), trust, gone);
      upstream.setSocketKeepAlive(true, tcpKeepAliveMs);
      upstream.setNoDelay(true);
      let answered = false;
      let broken = false;
      upstream.on('continue', () => {
        if (!answered && !gone.aborted) options.keepAlive?.(request, reply);
      });
      upstream.on('error', (error) => {
        if (answered) return; // The answer's own stream says how it ended.
        stopUpload();
        const why = describeFailure(error, probeMs);
        reject(
          new TomaatError(
            'UPSTREAM',
            `The server of ${entry.name} (${entry.serverUrl}) failed while it had the request: ${why}. It may have started the work, so the request was not sent again. Try again.`,
            { cause: error, detail: { sid: entry.sid, server: entry.serverUrl } },
          ),
        );
      });
      upstream.on('response', (answer) => {
        answered = true;
        const status = answer.statusCode ?? 502;
        if (status < 200 || (status >= 300 && status < 400)) {
          upstream.destroy();
          reject(
            new TomaatError(
              'UPSTREAM',
              `The server of ${entry.name} answered with ${status}, which is not followed here. Its operator must correct its address.`,
            ),
          );
          return;
        }
        if (status === 401 && !target.own) {
          stopUpload();
          upstream.destroy();
          reject(
            new TomaatError(
              'FORBIDDEN',
              `The server of ${entry.name} requires its own API key, and a registry does not forward keys. Send the request directly to the server: ${entry.serverUrl}.`,
              { detail: { sid: entry.sid, server: entry.serverUrl } },
            ),
          );
          return;
        }
        takeOver(reply, status, headerBack(answer, own));
        answer.on('error', () => {
          if (!gone.aborted) broken = true;
          // The caller's connection breaks, too: no short answer looks whole.
          reply.raw.destroy();
        });
        reply.raw.once('close', () => {
          if (!reply.raw.writableFinished) stopUpload();
          upstream.destroy();
          if (broken || gone.aborted) return resolve(broken ? 'broken' : 'caller-left');
          resolve('answered');
        });
        reply.raw.once('finish', () => {
          stopUpload();
          if (!request.raw.complete) drain(request.raw);
        });
        pump(answer, reply.raw);
      });
      const stopUpload = pump(request.raw, upstream);
    });
  }
}

/**
 * Copies a stream to another at the pace of the slower one, and ends it where the first ends; returns a function that stops
 * it. Each chunk is the stream's own copy, and its memory is given back as soon as the system has the bytes: left to the
 * garbage collector, which sees only the small objects around them, 100 MB of chunks would pile up.
 */
function pump(from: Readable, to: Writable): () => void {
  const onData = (chunk: Buffer) => {
    const whole = chunk.byteOffset === 0 && chunk.length === chunk.buffer.byteLength;
    if (!to.write(chunk, () => whole && (chunk.buffer as ArrayBuffer).transfer(0))) from.pause();
  };
  const onDrain = () => from.resume();
  const onEnd = () => to.end();
  const stop = () => {
    from.off('data', onData).off('end', onEnd).pause();
    to.off('drain', onDrain);
  };
  from.on('data', onData).once('end', onEnd);
  to.on('drain', onDrain);
  return stop;
}

/** Reads and discards for a while, then disconnects. */
function drain(body: IncomingMessage): void {
  const timer = setTimeout(() => body.socket.destroy(), drainMs);
  timer.unref();
  body.once('close', () => clearTimeout(timer));
  body.once('end', () => clearTimeout(timer));
  body.resume();
}

/**
 * Reads a body of moderate length to its end before an error is answered: most clients write all before they read,
 * and would see a broken connection instead of the reason.
 */
function readRest(body: IncomingMessage): Promise<void> {
  if (body.complete || body.destroyed) return Promise.resolve();
  return new Promise((resolve) => {
    let left = maxReadRestBytes;
    const finish = () => {
      clearTimeout(timer);
      body.off('data', count).off('end', finish).off('close', finish).pause();
      resolve();
    };
    const count = (chunk: Buffer) => {
      if ((left -= chunk.length) < 0) finish();
    };
    const timer = setTimeout(finish, maxReadRestMs);
    body.on('data', count).once('end', finish).once('close', finish).resume();
  });
}

/** Which certificates of a server are good. */
interface Trust {
  /** Certificates (PEM) besides those that Node trusts. */
  ca?: string;
  /** Fingerprint of the one that the server announced, signed. */
  certificate?: string;
}

/**
 * A request to a permitted address. On this machine the certificate is not checked, because nobody can intercept the
 * connection and servers create their own; elsewhere it must be trusted here, or be the one that the server announced.
 */
function open(
  target: Target,
  method: string,
  path: string,
  headers: Headers,
  trust: Trust,
  signal: AbortSignal,
): ClientRequest {
  const { url, address, family } = target;
  const secure = url.protocol === 'https:';
  const hostname = url.hostname.replace(/^\[(.*)\]$/, '$1');
  const base = withoutTrailingSlashes(url.pathname);
  const common = {
    host: address,
    family,
    port: url.port || (secure ? 443 : 80),
    method,
    path: base + path,
    headers: { ...headers, host: url.host },
    agent: false as const,
    signal,
  };
  if (!secure) return httpRequest(common);
  const agent = new HttpsAgent();
  agent.createConnection = (_options, callback) => {
    const to = { host: address, port: Number(common.port), servername: isIP(hostname) ? '' : hostname };
    connectTls(to, trust.ca, signal).then(
      ({ socket, shown }) => {
        if (target.loopback || shown.authorized || shown.fingerprint === trust.certificate)
          return callback?.(null, socket);
        socket.destroy();
        callback?.(Object.assign(new Error('untrusted'), { code: shown.reason }), socket);
      },
      (error: Error) => callback?.(error, undefined as never),
    );
    return undefined as never;
  };
  return httpsRequest({ ...common, agent });
}

function headerFor(request: FastifyRequest, target: Target, added: Headers): Headers {
  const headers: Headers = {
    // The server must leave room in its header for what is added here; a link to the receipt becomes longer, too.
    [relayedHeader]: String(headerBytes(added) + String(added['tomaat-server']).length),
    // Kept alive, so that a server that refuses early can read on instead of breaking the connection under its answer.
    connection: 'keep-alive',
  };
  for (const name of passedOn) {
    const value = request.headers[name];
    if (value !== undefined) headers[name] = value;
  }
  // A credential never goes to an address that came from an announcement, not even on this machine, where any user may
  // listen. The server beside the registry has the same keys.
  if (target.own && request.headers.authorization !== undefined) {
    headers.authorization = request.headers.authorization;
  }
  return headers;
}

/** What the registry adds to an answer of the server. */
function ownHeaders(reply: FastifyReply, { serverUrl = '' }: Entry): Headers {
  return {
    ...(reply.getHeaders() as Headers),
    // What a server sends must not act in the name of the registry's own page.
    'content-security-policy': "default-src 'none'; sandbox",
    // As ASCII, whatever letters its name has.
    'tomaat-server': withoutTrailingSlashes(URL.parse(serverUrl)?.href ?? ''),
  };
}

/** The response headers that are sent back, with our own, which come first. */
function headerBack({ headers: given }: IncomingMessage, own: Headers): Headers {
  const headers: Headers = {};
  for (const [name, value] of Object.entries(given)) {
    if (value === undefined) continue;
    if (name.startsWith('tomaat-') || (passedBack as readonly string[]).includes(name)) headers[name] = value;
  }
  const receipt = linkedReceipt(given.link, String(own['tomaat-server']));
  if (receipt !== undefined) headers.link = receiptLink(receipt);
  return fitHeaders({ ...headers, ...own });
}

/** The address of the receipt that an answer links to, for clients that do not know the server. */
function linkedReceipt(link: string | string[] | undefined, serverUrl: string): string | undefined {
  const [, path, id] =
    /^<((?:\/[\w.~%-]{1,100}){0,20}\/api\/jobs\/([\w-]{1,100})\/receipt)>; rel="tomaat-receipt"/.exec(
      String(link ?? ''),
    ) ?? [];
  return id === undefined ? undefined : URL.parse(path, serverUrl)?.href;
}

/** The caller's query; `service` becomes the server's own id of the entry that was chosen. */
function queryFor(request: FastifyRequest, entry: Entry): string {
  const url = request.raw.url ?? '';
  const query = new URLSearchParams(url.includes('?') ? url.slice(url.indexOf('?') + 1) : '');
  if (entry.serviceId !== undefined) query.set('service', entry.serviceId);
  return query.toString();
}

function isCalled(entry: Entry, wanted: string): boolean {
  return [entry.sid, entry.serviceId, entry.name].some((name) => name?.toLowerCase() === wanted);
}

/** What went wrong with a server, for users of the registry. */
function describeFailure(error: unknown, probeMs: number): string {
  if (error instanceof TomaatError) return error.message;
  const { name, code } = error as NodeJS.ErrnoException;
  if (name === 'TimeoutError' || name === 'AbortError' || code === 'ABORT_ERR')
    return `no response within ${probeMs / 1000} s`;
  if (code === 'ECONNREFUSED') return 'nothing is listening there';
  if (code === 'ECONNRESET' || code === 'EPIPE') return 'it closed the connection';
  if (code === 'EHOSTUNREACH' || code === 'ENETUNREACH' || code === 'ETIMEDOUT')
    return 'the machine cannot be reached';
  if (code?.startsWith('HPE_')) return 'it does not speak HTTP';
  if (code?.startsWith('ERR_TLS') || code?.includes('CERT') || code?.includes('SSL'))
    return `its certificate is not trusted here (${code})`;
  return code ?? 'it failed';
}

/** The promise, abandoned when the signal aborts; its outcome is then ignored. */
function abortable<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  return new Promise((resolve, reject) => {
    const give = () => reject(signal.reason);
    signal.addEventListener('abort', give, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', give));
  });
}
