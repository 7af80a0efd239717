import { TomaatError } from '@tomaat/core';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { openPrincipal } from '../access/principal.ts';
import { addTo, mayHaveMore } from '../fair-share.ts';
import { relayedHeader } from '../http/header-budget.ts';
import { tcpKeepAliveMs } from '../http/keep-alive.ts';
import { takeOver } from '../http/send.ts';
import { certificateOf, type Entries } from './entries.ts';
import { type Choice, createChoice, type RelayAddress } from './relay-choice.ts';
import { headerBack, headerFor, ownHeaders, queryFor } from './relay-headers.ts';
import { describeFailure, openRequest } from './relay-request.ts';
import { drain, pump, readRest } from './relay-streams.ts';
import type { TargetPolicy } from './targets.ts';

/**
 * The promise through the registry: `POST /{task}/{anatomy}` goes to a server that offers it. The body and the response are
 * streamed, never buffered. Once the first byte of the body has been sent, nothing is retried: a failure after that is 502. If
 * the caller disconnects, its request at the server is cancelled.
 */

/** How a relayed request ended. */
const relayOutcomes = [
  'answered',
  'unknown',
  'unreachable',
  'failed',
  'broken',
  'caller-left',
  'refused',
] as const;
export type RelayOutcome = (typeof relayOutcomes)[number];

/** Tells the caller that its result is still being computed; called whenever the server reports this to the registry. */
export type KeepAlive = (request: FastifyRequest, reply: FastifyReply) => void;

export interface RelayOptions {
  entries: Pick<Entries, 'candidates' | 'addresses'>;
  policy: TargetPolicy;
  /** Certificates (PEM) that servers beyond this machine may present, in addition to those that Node trusts. */
  trust?: string;
  keepAlive?: KeepAlive;
  /** How long a server may take to accept the connection and report that it is ready. */
  probeMs?: number;
  maxConcurrent?: number;
  onOutcome?: (outcome: RelayOutcome) => void;
}

export type Relay = (request: FastifyRequest, reply: FastifyReply, address: RelayAddress) => Promise<void>;

/** @throws (the relay) TomaatError NOT_FOUND, UNREACHABLE, UPSTREAM or BUSY, all before an answer has begun. */
export function createRelay(options: RelayOptions): Relay {
  const { entries, policy, trust, keepAlive, probeMs = 2000, maxConcurrent = 256 } = options;
  const choose = createChoice({ entries, policy, ca: trust, probeMs });
  /** Requests in progress, by owner. */
  const running = new Map<string, number>();

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
      const choice = await choose(address, gone.signal);
      const how = { trust, keepAlive, probeMs };
      settle(await forward(request, reply, { address, ...choice }, how, gone.signal));
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
}

/** Sends the request to the chosen server and its answer back; settles at the end of the answer. */
function forward(
  request: FastifyRequest,
  reply: FastifyReply,
  { address, entry, target }: Choice & { address: RelayAddress },
  { trust: ca, keepAlive, probeMs }: Pick<RelayOptions, 'trust' | 'keepAlive'> & { probeMs: number },
  gone: AbortSignal,
) {
  return new Promise<RelayOutcome>((resolve, reject) => {
    const path = `/${address.task}/${address.anatomy}?${queryFor(request, entry)}`;
    const trust = { ca, certificate: certificateOf(entry) };
    const own = ownHeaders(reply, entry);
    const upstream = openRequest(target, 'POST', path, headerFor(request, target, own), trust, gone);
    upstream.setSocketKeepAlive(true, tcpKeepAliveMs);
    upstream.setNoDelay(true);
    let answered = false;
    let broken = false;
    upstream.on('continue', () => {
      if (!answered && !gone.aborted) keepAlive?.(request, reply);
    });
    upstream.on('error', (error) => {
      if (answered) return; // The answer's own stream reports how it ended.
      stopUpload();
      const why = describeFailure(error, probeMs);
      reject(
        new TomaatError(
          'UPSTREAM',
          `The server of ${entry.name} (${entry.serverUrl}) failed while it was handling the request: ${why}. It may have started the work, so the request was not sent again. Try again.`,
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
        // The caller's connection is broken too, so that no truncated answer looks complete.
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
