import type { Entry } from '@tomaat/client';
import { TomaatError } from '@tomaat/core';
import { certificateOf, type Entries } from './entries.ts';
import { describeFailure, openRequest, type Trust } from './relay-request.ts';
import type { Target, TargetPolicy } from './targets.ts';

/** Chooses the server of an address for a request: the first of the list that reports that it is ready. */

export interface RelayAddress {
  task: string;
  anatomy: string;
  /** SID, service id or name, to choose among several services at the address. */
  service?: string;
}

/** A server that can take the request, and its address. */
export interface Choice {
  entry: Entry;
  target: Target;
}

export interface ChoiceOptions {
  entries: Pick<Entries, 'candidates' | 'addresses'>;
  policy: TargetPolicy;
  /** Certificates (PEM) that servers may present, in addition to those that Node trusts. */
  ca?: string;
  /** How long a server may take to accept the connection and report that it is ready. */
  probeMs: number;
}

interface Tried {
  sid: string;
  name: string;
  server: string;
  reason: string;
}

const maxProbed = 32;
const probedAtOnce = 8;

/** @throws (the returned function) TomaatError NOT_FOUND if no service matches the address, UNREACHABLE if no server is ready. */
export function createChoice({ entries, policy, ca, probeMs }: ChoiceOptions) {
  async function choose(address: RelayAddress, signal: AbortSignal): Promise<Choice> {
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
      const trust = { ca, certificate: certificateOf(entry) };
      return await Promise.any(targets.map((target) => checkReady(target, trust, signal)));
    } catch (error) {
      throw error instanceof AggregateError ? error.errors[0] : error;
    }
  }

  return choose;
}

function checkReady(target: Target, trust: Trust, signal: AbortSignal): Promise<Target> {
  return new Promise((resolve, reject) => {
    const probe = openRequest(target, 'GET', '/health/ready', {}, trust, signal);
    probe.on('error', reject);
    probe.once('response', (answer) => {
      // Only the status matters; the body is not read.
      answer.destroy();
      if (answer.statusCode === 200) resolve(target);
      else reject(new TomaatError('UNREACHABLE', `it is not ready (${answer.statusCode})`));
    });
    probe.end();
  });
}

function isCalled(entry: Entry, wanted: string): boolean {
  return [entry.sid, entry.serviceId, entry.name].some((name) => name?.toLowerCase() === wanted);
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
