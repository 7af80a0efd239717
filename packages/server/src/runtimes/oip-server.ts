import { connect } from 'node:net';
import { type ModelServerAddress, type ServedSpec, TomaatError } from '@tomaat/core';
import { checkLiteral, connectTls, type FetchRules, guardedLookup } from '../trust/guarded-fetch.ts';
import { createAddressRule, type ModelServers } from '../trust/model-servers.ts';
import type { AnsweredTensor, InferRequest, ModelFacts } from './oip-messages.ts';

/** What the clients of model servers by gRPC and by HTTP have in common. */

/** A connection to a model on a model server. Each call ends with the errors of `oip-faults.ts`. */
export interface ModelServer {
  /** Whether the server is ready to run the model. */
  isReady(limitMs: number): Promise<boolean>;
  facts(limitMs: number): Promise<ModelFacts>;
  /** @param maxBytes the largest answer that is accepted */
  infer(
    request: Pick<InferRequest, 'input' | 'output'>,
    limits: { limitMs: number; maxBytes: number },
  ): Promise<AnsweredTensor>;
  close(): void;
}

/** The model of a manifest, and what is permitted. */
export interface ServedModel {
  readonly spec: ServedSpec;
  readonly address: ModelServerAddress;
  readonly permitted: ModelServers;
}

/** Longest time of a connection's start, and of each question but the network itself. */
export const connectMs = 10_000;
/** A silent connection is probed after this time, by TCP: a server that is computing need not answer, its system does. */
export const keepAliveMs = 10_000;

/** The model in messages. */
export const nameOf = ({ model, version, url }: ServedSpec): string =>
  `${model}${version === undefined ? '' : ` ${version}`} at ${url}`;

export const keyOf = ({ address, permitted }: ServedModel): string | undefined =>
  Object.hasOwn(permitted.keys, address.name) ? permitted.keys[address.name] : undefined;

export const rulesOf = ({ address, permitted }: ServedModel): FetchRules => ({
  ca: permitted.ca,
  checkAddress: createAddressRule(address, permitted),
});

/**
 * Connects once, and gives the address that answered: checked by the rules, and to be connected to from then on, whatever DNS says later.
 * @throws {TomaatError} BAD_MANIFEST if no address is permitted, UPSTREAM for a certificate that is not trusted; other errors are of Node
 */
export async function findServer(served: ServedModel): Promise<string> {
  const { host, port, secure, name } = served.address;
  const rules = rulesOf(served);
  checkLiteral(host, rules);
  const signal = AbortSignal.timeout(connectMs);
  const to = { host, port, lookup: guardedLookup(rules) };
  if (!secure) {
    const socket = connect(to);
    try {
      await new Promise<void>((resolve, reject) => {
        socket.once('connect', resolve).once('error', reject);
        signal.addEventListener('abort', () => reject(signal.reason), { once: true });
      });
      return socket.remoteAddress!;
    } finally {
      socket.destroy();
    }
  }
  const { socket, shown } = await connectTls({ ...to, ALPNProtocols: ['h2', 'http/1.1'] }, rules.ca, signal);
  const { remoteAddress } = socket;
  socket.destroy();
  if (shown.authorized) return remoteAddress!;
  throw new TomaatError(
    'UPSTREAM',
    `The certificate of the model server ${name} is not trusted here (${shown.reason}). Give the certificate of its authority, or its own, with --ca FILE or the setting ca.`,
    { field: 'model.url' },
  );
}
