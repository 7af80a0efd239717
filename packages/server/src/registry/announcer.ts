import { X509Certificate } from 'node:crypto';
import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { setTimeout as sleep } from 'node:timers/promises';
import { getCACertificates, type PeerCertificate } from 'node:tls';
import type { AnnouncedParity, Announcement } from '@tomaat/client';
import { TomaatError, withoutTrailingSlashes } from '@tomaat/core';
import type { FastifyBaseLogger } from 'fastify';
import type { AnnouncementSigner } from './signer.ts';

/** The server's side of the registry: announces the services, renews them, withdraws them at the end. */

/** `id` names the announcement at the registry, the same after a restart: the key's thumbprint, a dot, the service. */
export type AnnouncedService = Announcement & { id: string; parity?: AnnouncedParity };

export interface AnnouncerOptions {
  registryUrl: string;
  /** The registry's public address; `registryUrl` if missing. Announcements are valid only for it. */
  audience?: string;
  signer: Pick<AnnouncementSigner, 'sign'>;
  /** Needs the scope announce. It is sent only to `registryUrl`. */
  apiKey: string;
  /** The services to announce; read before every round. */
  services: () => readonly AnnouncedService[];
  logger: Pick<FastifyBaseLogger, 'info' | 'warn' | 'error'>;
  /** Certificates (PEM) to trust in addition to Node's. */
  trust?: string;
  /**
   * The exact certificate (PEM) that the registry presents, whatever its names; nothing else is trusted then. A function
   * if it may be replaced.
   */
  pinned?: string | (() => string);
  /** Between two rounds at a registry of ours, where entries live for 90 s. */
  renewMs?: number;
  /** The first wait after a failure; it doubles up to `renewMs`. */
  retryMs?: number;
}

export interface AnnouncerState {
  /** `v1`: the registry supports only TOMAAT v1. `undefined`: it has not answered yet. */
  face?: 'api' | 'v1';
  /** Services that the registry listed in the last round. */
  announced: number;
  /** The error of the last round. */
  error?: string;
}

export interface Announcer {
  state(): AnnouncerState;
  /** Resolves after the first round, whether or not it succeeded. */
  readonly firstRound: Promise<void>;
  /** Starts a round immediately, for example when the services changed. */
  refresh(): void;
  /** Ends the rounds and withdraws what was announced (at most 2 s; v1 has no withdrawal: entries expire). */
  close(): Promise<void>;
}

const callMs = 10_000;
const withdrawMs = 2_000;
const v1RenewMs = 1_600_000;

/**
 * Starts to announce immediately and continues until closed. A registry that is unreachable or rejects is logged once and
 * tried again; the server keeps serving without it. @throws TomaatError BAD_REQUEST if the registry's address is invalid.
 */
export function startAnnouncer(options: AnnouncerOptions): Announcer {
  const { renewMs = 30_000, retryMs = 1_000, logger } = options;
  const base = parseBase(options.registryUrl);
  const closing = new AbortController();
  const announced = new Set<string>();
  const state: AnnouncerState = { announced: 0 };
  let wake = new AbortController();
  let failures = 0;
  let firstDone = () => {};
  const firstRound = new Promise<void>((resolve) => {
    firstDone = resolve;
  });

  const call = (method: string, path: string, body: unknown, signal: AbortSignal) => {
    const headers: Record<string, string> = path.startsWith('/api/')
      ? { authorization: `Bearer ${options.apiKey}` }
      : {};
    const limit = AbortSignal.any([signal, AbortSignal.timeout(callMs)]);
    return callJson(base, {
      method,
      path,
      body,
      signal: limit,
      headers,
      trust: options.trust,
      pinned: typeof options.pinned === 'function' ? options.pinned() : options.pinned,
    });
  };

  async function announceByApi(
    { id, ...announcement }: AnnouncedService,
    signal: AbortSignal,
  ): Promise<'done' | 'v1'> {
    const signed = await options.signer.sign(announcement, options.audience ?? base.href);
    const answer = await call('PUT', `/api/announcements/${encodeURIComponent(id)}`, { signed }, signal);
    if (answer.status === 200) return 'done';
    if (isOldRegistry(answer)) return 'v1';
    throw refusal(answer, announcement.name);
  }

  async function announceByV1(announcement: AnnouncedService, signal: AbortSignal): Promise<void> {
    const { predictionUrl, interfaceUrl, name, modality, anatomy, task, description } = announcement;
    const card = { name, modality, anatomy, task, description };
    const body = {
      api_key: options.apiKey,
      prediction_url: predictionUrl,
      interface_url: interfaceUrl,
      ...card,
    };
    const answer = await call('POST', '/announce', body, signal);
    const result = answer.json as { status?: unknown; error?: unknown } | undefined;
    if (answer.status !== 200 || typeof result?.status !== 'number') {
      throw new TomaatError(
        'UPSTREAM',
        `it does not respond like a registry (${answer.status}). Check its address`,
      );
    }
    if (result.status !== 0)
      throw new TomaatError('FORBIDDEN', `it rejects '${name}': ${String(result.error)}`);
  }

  /**
   * How many of the services a registry of v1 lists: that of 2018 keeps one per key, and reports all as
   * accepted. Undefined if it does not report a number.
   */
  async function countListed(services: readonly AnnouncedService[], signal: AbortSignal) {
    const { status, json } = await call('GET', '/discover', undefined, signal);
    if (status !== 200 || !Array.isArray(json)) return undefined;
    const hrefOf = (address: unknown) => URL.parse(String(address))?.href;
    const listed = new Set(json.map((entry) => hrefOf(entry?.prediction_url)));
    return services.filter(({ predictionUrl }) => listed.has(hrefOf(predictionUrl))).length;
  }

  let saidLost = false;
  function sayLost(listed: number, accepted: number): void {
    if (!saidLost) {
      logger.warn(
        { registry: base.href, accepted, listed },
        `the registry at ${base.href} keeps one service per key: it accepted ${accepted} and lists ${listed}. Give each service its own server and key`,
      );
    }
    saidLost = true;
  }

  async function round(): Promise<void> {
    const signal = closing.signal;
    const services = options.services();
    const refused: unknown[] = [];
    const accepted: AnnouncedService[] = [];
    for (const service of services) {
      try {
        if (state.face !== 'v1') {
          const how = await announceByApi(service, signal);
          state.face = how === 'v1' ? 'v1' : 'api';
          if (how === 'done') announced.add(service.id);
        }
        if (state.face === 'v1') await announceByV1(service, signal);
        accepted.push(service);
      } catch (error) {
        // One rejected service must not block the others; an unreachable registry is unreachable for all.
        if (!(error instanceof TomaatError) || error.code === 'UNREACHABLE') throw error;
        refused.push(error);
      }
    }
    const current = new Set(services.map(({ id }) => id));
    for (const id of [...announced].filter((known) => !current.has(known))) {
      await call('DELETE', `/api/announcements/${encodeURIComponent(id)}`, undefined, signal);
      announced.delete(id);
    }
    state.announced = accepted.length;
    if (state.face === 'v1' && accepted.length > 1) {
      state.announced = (await countListed(accepted, signal)) ?? accepted.length;
      if (state.announced < accepted.length) sayLost(state.announced, accepted.length);
      else saidLost = false;
    }
    if (refused.length > 0) throw refused[0];
  }

  async function run(): Promise<void> {
    let said: string | undefined;
    while (!closing.signal.aborted) {
      wake = new AbortController();
      try {
        await round();
        if (failures > 0 || state.error !== undefined)
          logger.info({ registry: base.href }, 'the registry lists the services again');
        failures = 0;
        said = undefined;
        state.error = undefined;
      } catch (error) {
        if (closing.signal.aborted) break;
        failures++;
        const message = error instanceof TomaatError ? error.message : String(error);
        // Logged once, not on every attempt; the reason may change from one attempt to the next.
        const fault = error instanceof TomaatError && error.code === 'UNREACHABLE' ? error.code : message;
        if (fault !== said) {
          said = fault;
          logger.warn(
            { registry: base.href, err: error },
            `announcing at ${base.href} failed: ${message}; trying again`,
          );
        }
        state.error = message;
        if (error instanceof TomaatError && error.code === 'UNREACHABLE') {
          state.announced = 0;
          state.face = undefined; // The registry that returns may be a different one.
        }
      }
      firstDone();
      const regular = state.face === 'v1' ? v1RenewMs : renewMs;
      const wait = failures > 0 ? Math.min(retryMs * 2 ** (failures - 1), renewMs) : regular;
      // Randomised, so that many servers do not return to a registry at the same moment.
      const spread = wait * (failures > 0 ? 0.75 + Math.random() / 2 : 1);
      await sleep(spread, undefined, { signal: AbortSignal.any([closing.signal, wake.signal]) }).catch(
        () => {},
      );
    }
    firstDone();
  }

  const running = run();
  return {
    state: () => ({ ...state }),
    firstRound,
    refresh: () => wake.abort(),
    async close() {
      if (closing.signal.aborted) return;
      closing.abort();
      await running;
      const signal = AbortSignal.timeout(withdrawMs);
      const ids = [...announced];
      announced.clear();
      await Promise.all(
        ids.map((id) =>
          call('DELETE', `/api/announcements/${encodeURIComponent(id)}`, undefined, signal).catch(
            (error: unknown) => {
              logger.warn(
                { err: error, id },
                'withdrawing failed; the registry drops the service after 90 s',
              );
            },
          ),
        ),
      );
      state.announced = 0;
    },
  };
}

function parseBase(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (
    !url ||
    (url.protocol !== 'http:' && url.protocol !== 'https:') ||
    url.username !== '' ||
    url.password !== ''
  ) {
    throw new TomaatError(
      'BAD_REQUEST',
      `'${text}' is not the address of a registry. Give one like http://127.0.0.1:8001.`,
      {
        field: 'announce',
      },
    );
  }
  url.pathname = withoutTrailingSlashes(url.pathname);
  url.search = '';
  url.hash = '';
  return url;
}

interface Answer {
  status: number;
  json: unknown;
  type: string;
}

/** Whether this is how a registry with only v1 answers our API. */
function isOldRegistry({ status, type }: Answer): boolean {
  return [404, 405, 501].includes(status) && !type.startsWith('application/problem+json');
}

function refusal(answer: Answer, name: string): TomaatError {
  const detail = (answer.json as { detail?: unknown } | undefined)?.detail;
  const why = typeof detail === 'string' ? detail : `it answered with ${answer.status}`;
  if (answer.status >= 500 || answer.status === 429) return new TomaatError('UNREACHABLE', why);
  if (answer.status === 401 || answer.status === 403) return new TomaatError('FORBIDDEN', why);
  return new TomaatError('UPSTREAM', `it rejects '${name}': ${why}`);
}

interface CallOptions {
  method: string;
  path: string;
  body: unknown;
  headers: Record<string, string>;
  trust?: string;
  pinned?: string;
  signal: AbortSignal;
}

/** How the registry's certificate is checked. */
function trustOptions(trust: string | undefined, pinned: string | undefined) {
  if (pinned !== undefined) {
    const { fingerprint256 } = new X509Certificate(pinned);
    return {
      ca: [pinned],
      allowPartialTrustChain: true,
      checkServerIdentity: (_host: string, shown: PeerCertificate) =>
        shown.fingerprint256 === fingerprint256
          ? undefined
          : Object.assign(new Error('a different certificate'), { code: 'ERR_TLS_CERT_ALTNAME_INVALID' }),
    };
  }
  return trust ? { ca: [...getCACertificates('default'), trust] } : {};
}

const maxAnswerBytes = 1_048_576;

/** One request with JSON in and out. @throws TomaatError UNREACHABLE if there is no response. */
function callJson(
  base: URL,
  { method, path, body, headers, trust, pinned, signal }: CallOptions,
): Promise<Answer> {
  const secure = base.protocol === 'https:';
  const text = body === undefined ? undefined : Buffer.from(JSON.stringify(body));
  const target = new URL(base);
  target.pathname = `${base.pathname.replace(/\/$/, '')}${path}`;
  const common = {
    method,
    headers: {
      ...headers,
      accept: 'application/json',
      ...(text ? { 'content-type': 'application/json', 'content-length': text.length } : {}),
    },
    signal,
  };
  return new Promise((resolve, reject) => {
    const fail = (error: Error & { code?: string }) => {
      const why =
        error.name === 'AbortError' || error.name === 'TimeoutError'
          ? 'no response in time'
          : (error.code ?? error.message);
      const certificate = /CERT|SELF_SIGNED|ALTNAME/.test(error.code ?? '');
      reject(
        new TomaatError(
          'UNREACHABLE',
          certificate
            ? `its certificate is not trusted here (${error.code}). Give the server the registry's certificate with --ca`
            : `it cannot be reached (${why})`,
          { cause: error },
        ),
      );
    };
    const request = secure
      ? httpsRequest(target, {
          ...common,
          minVersion: 'TLSv1.2',
          ...trustOptions(trust, pinned),
        })
      : httpRequest(target, common);
    request.on('error', fail);
    request.on('response', (answer) => {
      const chunks: Buffer[] = [];
      let bytes = 0;
      answer.on('error', fail);
      answer.on('data', (chunk: Buffer) => {
        bytes += chunk.length;
        if (bytes > maxAnswerBytes) answer.destroy(new Error('its response is too long'));
        else chunks.push(chunk);
      });
      answer.on('end', () => {
        let json: unknown;
        try {
          json = JSON.parse(Buffer.concat(chunks).toString('utf8'));
        } catch {
          json = undefined; // A body that is not JSON is ignored; only the status counts.
        }
        resolve({ status: answer.statusCode ?? 0, json, type: answer.headers['content-type'] ?? '' });
      });
    });
    request.end(text);
  });
}
